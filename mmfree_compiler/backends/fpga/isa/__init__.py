"""The instruction set: its table, and all that comes from the table.

Each unit of the machine has a file with its instructions; table.py collects them.
"""

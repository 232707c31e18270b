"""Compiling code in child processes, and keeping what they made."""

"""Measures compiled models beside this machine's own limits and beside other engines."""

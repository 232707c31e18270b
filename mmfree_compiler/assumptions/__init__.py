"""What a traced graph takes for granted. Each is checked, or the module refused with its line."""

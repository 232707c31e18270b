"""The running half, which needs only the base install."""

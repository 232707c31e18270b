"""The running half, which needs NumPy and cuda-bindings."""

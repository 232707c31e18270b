"""The compiling half: Triton, ahead of time."""

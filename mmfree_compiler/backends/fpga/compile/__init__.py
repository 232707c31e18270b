"""The compiling half: a Program becomes a stream of weights and programs of instructions."""

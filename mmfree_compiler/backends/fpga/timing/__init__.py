"""The cycle model: when each instruction of a program runs on a board, and what it waits for."""

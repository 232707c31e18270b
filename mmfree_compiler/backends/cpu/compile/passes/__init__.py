"""The passes of the CPU target: copies, packing, memory."""

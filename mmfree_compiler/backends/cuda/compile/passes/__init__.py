"""The passes of the CUDA target: packing, memory."""

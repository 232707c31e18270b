"""The passes of the FPGA target."""

"""The passes of the ONNX target: packing."""

"""Making modules of torch of ONNX models, to compile them for any target."""

"""Making ONNX models of Programs."""

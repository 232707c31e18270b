"""Running ONNX models by ONNX Runtime."""

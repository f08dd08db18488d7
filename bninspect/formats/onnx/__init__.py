"""ONNX models: `.onnx`, with their weights inside or in files beside them."""

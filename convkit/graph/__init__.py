"""ONNX to ONNX, and reading a graph."""

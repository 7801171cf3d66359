"""ONNX to what a runtime loads: one file per runtime."""

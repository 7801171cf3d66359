"""Framework model to ONNX, and the framework's own answers: one file per framework."""

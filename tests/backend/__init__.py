"""onnx's own backend tests as convkit's: 140 model files, and the node cases that onnx generates."""

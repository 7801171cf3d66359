"""What convkit writes and does for those who ask a model on a Triton server."""

"""A real Triton server for tests, and what it says to what convkit writes."""

"""Models that tests build: small, real, with the same weights every time."""

"""A target of someone else: models packed with zlib."""

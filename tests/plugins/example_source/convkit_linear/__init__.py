"""A source for convkit: linear classifiers as JSON."""

"""Reports of conversions that never were, and how they must look."""

"""`convkit check` on real repositories: those that convkit publishes, and those that others made."""

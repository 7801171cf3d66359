"""Mutated input by the ten thousand: `make fuzz`."""

"""Inputs made to do harm: each is shown to do it where nobody looks, and to be refused by convkit."""

"""Every encoder and vision class of transformers, tiny and with random weights, through convkit's steps."""

"""The whole line through the real command: a model goes in, a server answers."""

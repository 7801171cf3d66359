"""The engine room: artifacts, steps, the runner that remembers them, and the workers that run them."""

"""convkit converts a trained model into something a server can run, and proves what it did."""

from __future__ import annotations

__version__ = "0.1.0"

"""Models that TensorRT-RTX refuses, cannot build, or runs with other numbers; each says what a finding must name.

Every one was refused by the real parser or builder when it was added, and a test holds it to that. To grow the corpus,
add a function to one of these modules: its name is the model's, its docstring says what is wrong.
"""

from __future__ import annotations

from preflight import corpus_forms, corpus_operators, corpus_quantized, corpus_types
from preflight.making import Broken, corpus

MODULES = (corpus_quantized, corpus_operators, corpus_forms, corpus_types)

__all__ = ["MODULES", "Broken", "corpus"]

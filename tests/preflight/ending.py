"""A parser that ends its process, as a real one may."""

from __future__ import annotations

import os

from convkit.graph.model import Model
from convkit.pipeline.step import step
from convkit.targets.trt_parse import Parsed


@step(version=1, stage="check", title="End", needs="onnx")
def end(model: Model) -> Parsed:
    """End this process."""
    os._exit(model.files.bytes % 2 + 11)

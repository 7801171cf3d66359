"""What every source hands on."""

from __future__ import annotations

import msgspec

from convkit.graph.model import Model, Tensors
from convkit.pipeline.artifact import Artifact


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a form that the framework's exporter takes."""

    files: Artifact


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A model as ONNX, with the inputs on which it is judged and what the framework answered on them.

    Both come from the one process and the one built model that was exported: a model built again may be another.
    """

    model: Model
    samples: Tensors
    """Inputs under their wire names; one case for each size."""
    references: Tensors
    """The framework's outputs under their wire names, for the same cases."""
    framework: str
    """Name and version, such as ``torch 2.13.0``."""
    exporter: str
    """What wrote the ONNX file, with the road taken."""
    parameters: int
    """Elements of all weights."""
    renamed: dict[str, str] = {}
    """Wire name to the file's own name, where an ONNX source calls an input otherwise."""
    matched: tuple[str, ...] = ()
    """Sentences on how names of config.txt were matched to tensors where that was not plain."""
    places: dict[str, str] = {}
    """Node name to where it comes from, such as ``in layers.3 (Attention), net.py, line 12``; only what is known."""

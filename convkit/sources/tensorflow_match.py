"""Which of a SavedModel's tensors config.txt means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from convkit.errors import InputError, MetadataError
from convkit.sources.tensorflow_model import GraphTensor, SavedModel
from convkit.spec.metadata import Metadata, TensorMetadata


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """The graph's tensors in the order of config.txt, or of the signature where there is none."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    sentences: tuple[str, ...] = ()
    """How names were matched, where it was not by the graph's or the signature's own names."""


def match_tensors(saved: SavedModel, metadata: Metadata | None) -> Match:
    """Find the tensors that config.txt names; all of the signature's where there is no config.txt.

    In this order: by the graph's tensor name, with or without ``:0``; by the signature's key; by layer; and what is
    then left by order, where counts, types and shapes agree. Outputs may be left out, inputs may not.

    Raises:
        MetadataError: a name fits no tensor, or an input of the signature is missing from config.txt.
        InputError: there is neither a signature nor a config.txt, the signature takes or gives nothing, or a tensor is
            of a type that convkit does not have.
    """
    _refuse_unusable(saved, metadata)
    if metadata is None:
        match = Match(inputs=saved.inputs, outputs=saved.outputs)
    else:
        sides = [_Side(saved, "input", metadata.inputs, metadata), _Side(saved, "output", metadata.outputs, metadata)]
        inputs, outputs = (side.matched() for side in sides)
        match = Match(inputs=inputs, outputs=outputs, sentences=tuple(s for side in sides for s in side.sentences))
    _refuse_types(match)
    return match


def _refuse_types(match: Match) -> None:
    for tensor in (*match.inputs, *match.outputs):
        if tensor.dtype is None:
            raise InputError(
                f"'{tensor.key}' is {tensor.type_name}, which servers do not take",
                hint="cast it inside the model to a type that config.txt can name",
                code="model.element-type",
            )


def _refuse_unusable(saved: SavedModel, metadata: Metadata | None) -> None:
    if saved.signature is not None and not (saved.inputs and saved.outputs):
        raise InputError(
            f"the signature '{saved.signature}' has no {'output' if saved.inputs else 'input'}",
            hint="choose another one with --signature",
            code="source.no-such-signature",
        )
    if saved.signature is None and metadata is None:
        ends = saved.ends()
        raise InputError(
            "the graph has no signature, and there is no config.txt to name its inputs and outputs",
            hint="write a config.txt with the graph's tensor names as node_name; its placeholders are: "
            + _listed(saved.inputs)
            + (f"; nothing reads: {_listed(ends)}" if ends else ""),
            code="source.no-signature",
        )


class _Side:
    """The inputs or the outputs, on their way from config.txt to the graph."""

    def __init__(self, saved: SavedModel, side: str, wanted: Sequence[TensorMetadata], metadata: Metadata) -> None:
        self.saved = saved
        self.side = side
        self.wanted = wanted
        self.batched = metadata.batch_size > 0
        self.offered = saved.inputs if side == "input" else saved.outputs
        self.found: dict[str, GraphTensor] = {}
        self.sentences: list[str] = []

    def matched(self) -> tuple[GraphTensor, ...]:
        """Return the graph's tensors in the order of config.txt."""
        self._take(lambda tensor: self._in_graph(tensor.node_name))
        self._take(lambda tensor: _only([o for o in self.offered if o.key in _with_and_without_port(tensor.node_name)]))
        self._take(lambda tensor: _only([o for o in self._left() if self._is_layer(tensor, o)]), "the layer")
        if len(self.found) < len(self.wanted):
            self._take_in_order()
        self._refuse_twice()
        if self.side == "input" and self.saved.signature is not None and self._left():
            raise MetadataError(
                f"config.txt leaves out inputs of the signature '{self.saved.signature}': {_listed(self._left())}",
                hint="list every input; convkit makes none of them constant",
                code="metadata.missing-input",
            )
        return tuple(self.found[tensor.name] for tensor in self.wanted)

    def _left(self) -> list[GraphTensor]:
        taken = {tensor.tensor for tensor in self.found.values()}
        return [offered for offered in self.offered if offered.tensor not in taken]

    def _take(self, find: Callable[[TensorMetadata], GraphTensor | None], how: str = "") -> None:
        missing = [tensor for tensor in self.wanted if tensor.name not in self.found]
        hits = {tensor.name: found for tensor in missing if (found := find(tensor)) is not None}
        for tensor in missing:
            if tensor.name in hits:
                self.found[tensor.name] = hits[tensor.name]
                if how:
                    self._say(tensor, hits[tensor.name], f"by {how} {hits[tensor.name].origin}")

    def _in_graph(self, name: str) -> GraphTensor | None:
        """Find a tensor by the graph's name: the signature's, and in an open graph any output or placeholder."""
        by_name = {offered.tensor: offered for offered in self.offered}
        signed = next((by_name[n] for n in (name, f"{name}:0") if n in by_name), None)
        if signed is not None or not self.saved.is_tf1:
            return signed
        placeholders = [tensor.tensor for tensor in self.saved.placeholders()]
        found = self.saved.tensor(name)
        return found if found and (self.side == "output" or found.tensor in placeholders) else None

    def _is_layer(self, tensor: TensorMetadata, offered: GraphTensor) -> bool:
        wanted = tensor.node_name.partition(":")[0].split("/")
        path = offered.origin.split("/")
        runs = [path[start : start + len(wanted)] for start in range(len(path) - len(wanted) + 1)]
        return self._agrees(tensor, offered) and any(all(map(_same_layer, run, wanted)) for run in runs)

    def _take_in_order(self) -> None:
        missing = [tensor for tensor in self.wanted if tensor.name not in self.found]
        left = self._left()
        if len(missing) != len(left) or not all(map(self._agrees, missing, left)):
            names = ", ".join(f"'{tensor.node_name}'" for tensor in missing)
            raise MetadataError(
                f"config.txt: the {self.side} {names} is no tensor, key or layer of the model, and does not fit what "
                f"is left by order, type and shape. {self._offer()}",
                hint="write the name of one of the model's tensors as node_name",
                code="metadata.unknown-tensor",
            )
        for tensor, offered in zip(missing, left, strict=True):
            self.found[tensor.name] = offered
            self._say(tensor, offered, "by order: nothing in the model has that name, but number, type and shape agree")

    def _offer(self) -> str:
        if self.saved.signature is not None:
            return f"The signature '{self.saved.signature}' has the {self.side}s: {_listed(self.offered)}"
        if self.side == "input":
            return f"The graph, which has no signature, has the placeholders: {_listed(self.offered)}"
        return "The graph has no signature that would name its outputs"

    def _agrees(self, tensor: TensorMetadata, offered: GraphTensor) -> bool:
        """Tell whether type and shape can be the same; a dimension that either leaves free can be any."""
        if tensor.dtype is not offered.dtype:
            return False
        if offered.dims is None:
            return True
        return len(tensor.dims) == len(offered.dims) and all(
            -1 in (want, have) or want == have or (self.batched and axis == 0)
            for axis, (want, have) in enumerate(zip(tensor.dims, offered.dims, strict=True))
        )

    def _say(self, tensor: TensorMetadata, offered: GraphTensor, how: str) -> None:
        key = f" ('{offered.key}')" if offered.key != offered.tensor else ""
        self.sentences.append(f"{self.side} '{tensor.node_name}' was matched to {offered.tensor}{key} {how}")

    def _refuse_twice(self) -> None:
        if self.side == "output":
            return  # two outputs may well be one tensor
        first: dict[str, str] = {}
        for tensor in self.wanted:
            name = self.found[tensor.name].tensor
            if name in first:
                raise MetadataError(
                    f"config.txt: the inputs '{first[name]}' and '{tensor.node_name}' are one tensor, {name}",
                    hint="keep one of them",
                    code="metadata.duplicate-tensor",
                )
            first[name] = tensor.node_name


def _only(found: list[GraphTensor]) -> GraphTensor | None:
    return found[0] if len(found) == 1 else None


def _with_and_without_port(name: str) -> tuple[str, str]:
    return name, name.removesuffix(":0")


def _same_layer(part: str, wanted: str) -> bool:
    """Compare one part of an operation's path with a layer's name; Keras numbers the layers of a second trace."""
    return part == wanted or re.fullmatch(re.escape(wanted) + r"_\d+", part) is not None


def _listed(tensors: Sequence[GraphTensor]) -> str:
    return ", ".join(map(str, tensors))

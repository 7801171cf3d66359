"""From a graph and a call that answers as its framework does, to what every source hands on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from convkit.errors import MetadataError
from convkit.graph.census import take_census
from convkit.graph.external import save_with_data
from convkit.graph.model import Model, save_tensors
from convkit.graph.present import agreed_interface, interface_of, present, wanted_interface
from convkit.graph.samples import make_cases
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact
from convkit.sources.exported import Exported
from convkit.spec.metadata import Metadata, TensorMetadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx


Answer = Callable[[dict[str, "np.ndarray"], tuple[str, ...]], Mapping[str, "np.ndarray"]]
"""Gives, for one case of the graph's inputs by name, the framework's values of the outputs named."""


class Face(NamedTuple):
    """What callers see of a graph, and what the graph itself calls it, in the same order."""

    interface: Interface
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def fed(self, case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a case by the graph's own names."""
        return {name: case[spec.name] for name, spec in zip(self.inputs, self.interface.inputs, strict=True)}

    def answered(self, case: dict[str, np.ndarray], answer: Answer) -> dict[str, np.ndarray]:
        """Return what the framework answers on a case; in and out under wire names."""
        got = answer(self.fed(case), self.outputs)
        return {spec.name: got[name] for name, spec in zip(self.outputs, self.interface.outputs, strict=True)}


def face_of(proto: onnx.ModelProto, metadata: Metadata | None, options: ExportOptions) -> Face:
    """Match what config.txt, or the graph itself, says to the graph's tensors.

    Raises:
        InputError: inputs or outputs are such that servers do not take.
        MetadataError: config.txt's names, types or dims are not the graph's.
    """
    declared = interface_of(proto, max_batch_size=options.max_batch_size)
    wanted = _each_with_a_name_of_its_own(declared)
    inputs, outputs = (tuple(spec.name for spec in specs) for specs in (declared.inputs, declared.outputs))
    if metadata is not None:
        wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
        inputs, outputs = _match(metadata, declared)
    return Face(agreed_interface(proto, wanted, inputs=inputs, outputs=outputs), inputs, outputs)


def hand_on(
    proto: onnx.ModelProto,
    answer: Answer,
    *,
    metadata: Metadata | None,
    options: ExportOptions,
    samples: Artifact | None,
    framework: str,
    exporter: str,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] = lambda proto: proto,
    data: Path | None = None,
) -> Exported:
    """Give a graph the names and shapes that callers see, and ask its framework for the answers on its samples.

    Args:
        proto: the graph; changed in place.
        answer: gives, for one case of the graph's inputs by name, the framework's values of the outputs named.
        metadata: config.txt; None: the graph says itself what its inputs and outputs are.
        options: how names and the batch are chosen.
        samples: the user's inputs; None: random ones.
        framework: name and version of what answers, such as ``onnxruntime 1.31.1``.
        exporter: what wrote the graph.
        finish: the last change to the graph, after the framework has answered.
        data: the folder of the files that weights outside of `proto` lie in.

    Raises:
        InputError: inputs or outputs are such that servers do not take, or the samples do not fit.
        MetadataError: config.txt's names, types or dims are not the graph's.
    """
    face = face_of(proto, metadata, options)
    cases = make_cases(face.interface, samples)
    answers = [face.answered(case, answer) for case in cases]
    return write_graph(finish(proto), face, data).exported(cases, answers, framework=framework, exporter=exporter)


class Written(NamedTuple):
    """A graph with the names and shapes that callers see, as it is handed on."""

    face: Face
    model: Model
    parameters: int
    """Elements of all weights."""

    def exported(
        self, cases: list[dict[str, np.ndarray]], answers: list[dict[str, np.ndarray]], *, framework: str, exporter: str
    ) -> Exported:
        """Return it with its samples, and what its framework answered on them."""
        wanted, inputs, _ = self.face
        return Exported(
            model=self.model,
            samples=save_tensors(cases),
            references=save_tensors(answers),
            framework=framework,
            exporter=exporter,
            parameters=self.parameters,
            renamed={spec.name: name for spec, name in zip(wanted.inputs, inputs, strict=True) if spec.name != name},
        )


def write_graph(proto: onnx.ModelProto, face: Face, data: Path | None) -> Written:
    """Write a graph with the names and shapes of its face; it is changed in place. `data` as in `hand_on`."""
    proto, interface = present(proto, face.interface, inputs=face.inputs, outputs=face.outputs)
    return Written(face, save_with_data(proto, interface, data), take_census(proto).parameters)


def _each_with_a_name_of_its_own(declared: Interface) -> Interface:
    """Give an output that is an input, too, another name: on the wire the two would be one."""
    taken = {spec.name for spec in (*declared.inputs, *declared.outputs)}
    outputs = []
    for spec in declared.outputs:
        name = spec.name
        if any(name == given.name for given in declared.inputs):
            while name in taken:
                name += "_output"
            events.warn("source.renamed-output", f"the output '{spec.name}' is an input, too: it is called '{name}'")
        outputs.append(msgspec.structs.replace(spec, name=name))
    return msgspec.structs.replace(declared, outputs=tuple(outputs))


def _match(metadata: Metadata, declared: Interface) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the graph's tensor for each of config.txt's: by node_name, with or without ``:0``, then by name."""
    found = []
    for side, tensors, specs in (
        ("input", metadata.inputs, declared.inputs),
        ("output", metadata.outputs, declared.outputs),
    ):
        there = {spec.name for spec in specs}
        named = [_named(tensor, there) for tensor in tensors]
        names = [name for name in named if name is not None]
        if len(names) < len(tensors) and _agree(tensors, specs):
            names = [spec.name for spec in specs]
            pairs = ", ".join(f"'{tensor.node_name}' is '{name}'" for tensor, name in zip(tensors, names, strict=True))
            events.warn("metadata.matched-by-order", f"the {side}s of config.txt were matched by their order: {pairs}")
        elif len(names) < len(tensors):
            unknown = tensors[named.index(None)].node_name
            raise MetadataError(
                f"config.txt: {side} '{unknown}' is not in the model",
                hint=f"the model's {side}s are: {'; '.join(map(str, specs))}",
                code="metadata.no-such-tensor",
            )
        if len(set(names)) < len(names):
            raise MetadataError(
                f"config.txt: two {side}s name the same tensor: {', '.join(tensor.node_name for tensor in tensors)}",
                hint=f"the model's {side}s are: {'; '.join(map(str, specs))}",
                code="metadata.same-tensor",
            )
        if side == "input" and len(names) != len(specs):
            missing = there - set(names)
            raise MetadataError(
                f"config.txt leaves out the input {', '.join(sorted(missing))}",
                hint="list every input; the model cannot run without it",
                code="metadata.missing-input",
            )
        found.append(tuple(names))
    return found[0], found[1]


def _named(tensor: TensorMetadata, there: set[str]) -> str | None:
    candidates = (tensor.node_name, tensor.node_name.removesuffix(":0"), f"{tensor.node_name}:0", tensor.name)
    return next((candidate for candidate in candidates if candidate in there), None)


def _agree(tensors: Sequence[TensorMetadata], specs: Sequence[TensorSpec]) -> bool:
    """Tell whether counts, types and shapes are such that the order says which is which."""
    return len(tensors) == len(specs) and all(
        tensor.dtype is spec.dtype
        and len(tensor.dims) == len(spec.dims)
        and all(want in (-1, has) or isinstance(has, str) for want, has in zip(tensor.dims, spec.dims, strict=True))
        for tensor, spec in zip(tensors, specs, strict=True)
    )

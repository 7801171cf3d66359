"""A ``.pt2`` as a source: it says itself what its inputs and outputs are, and which dimensions are free."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from convkit.errors import InputError
from convkit.graph.names import rename_tensors, separate_outputs
from convkit.pipeline.patience import one_run
from convkit.sources.hand_on import Face, face_of
from convkit.sources.torch_call import array_of, leaves, tensor_of
from convkit.sources.torch_export import export_program
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx

_UNBOUNDED = 1 << 20
"""Sizes above this are torch's way to say that a dimension has no limit."""
_USUAL_MOST = 1024
"""The largest size that is said of a dimension without a limit, where another of the same tensor has one."""


class Program(NamedTuple):
    """An exported program, and what a server calls its tensors."""

    exported: Any
    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def prepared(self, case: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """Return the call of the program, in inference mode, on one case by its own names."""
        import torch
        from torch.utils import _pytree

        values = iter(self.inputs)
        flat = [tensor_of(case[next(values)]) if tensor else value for tensor, value in _arguments(self.exported)]
        arguments, keywords = _pytree.tree_unflatten(flat, self.exported.call_spec.in_spec)

        def call() -> Any:
            with torch.inference_mode():
                return self.module(*arguments, **keywords)

        return call

    def answer(self, case: Mapping[str, np.ndarray], wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Run it on one case, by its own names; return the outputs that are wanted.

        Raises:
            InputError: it fails on these inputs.
        """
        shapes = ", ".join(f"{name} {list(case[name].shape)}" for name in self.inputs)
        try:
            with one_run(f"the model on the inputs {shapes}"):
                found = leaves(self.prepared(case)())
        except Exception as error:
            raise InputError(
                f"the program fails on the inputs {shapes}: {type(error).__name__}: {' '.join(str(error).split())}",
                hint="it was exported for other sizes: give samples that it takes, or bound the dims in config.txt",
                code="source.forward-failed",
            ) from error
        named = dict(zip(self.outputs, found, strict=True))
        return {name: array_of(named[name]) for name in wanted}

    def face(self, metadata: Metadata | None, options: ExportOptions) -> Face:
        """Match config.txt, or what the program says of itself, to its tensors, with the limits of its dimensions.

        Raises:
            InputError: inputs or outputs are such that servers do not take.
            MetadataError: config.txt's names, types or dims are not the program's.
        """
        face = face_of(self._outline(), metadata, options)
        if metadata is not None:
            return face
        limits = dict(zip(self.inputs, self._limits(), strict=True))
        specs = tuple(
            _limited(spec, limits[name], face.interface.max_batch_size)
            for name, spec in zip(face.inputs, face.interface.inputs, strict=True)
        )
        return face._replace(interface=msgspec.structs.replace(face.interface, inputs=specs))

    def graph(self, opset: int) -> onnx.ModelProto:
        """Return it as ONNX, its inputs and outputs under its own names.

        Raises:
            InputError: the graph has dropped an input that it does not use.
        """
        proto = export_program(self.exported, (), opset=opset)
        if len(proto.graph.input) != len(self.inputs):
            raise InputError(
                f"the exported graph has {len(proto.graph.input)} inputs, the program {len(self.inputs)}",
                hint="export the program again without the inputs that it does not use",
                code="export.inputs",
            )
        separate_outputs(proto.graph)
        for values, names in ((proto.graph.input, self.inputs), (proto.graph.output, self.outputs)):
            rename_tensors(proto.graph, dict(zip((value.name for value in values), names, strict=True)))
        return proto

    def _outline(self) -> onnx.ModelProto:
        """Return a graph without nodes that has the program's inputs and outputs."""
        from onnx import helper

        symbols: dict[str, str] = {}
        sides = []
        for names, values in (
            (self.inputs, _input_values(self.exported)),
            (self.outputs, _output_values(self.exported)),
        ):
            tensors = []
            for name, value in zip(names, values, strict=True):
                dims = [
                    size if isinstance(size, int) else symbols.setdefault(str(size), f"{_plain(name)}_{axis}")
                    for axis, size in enumerate(value.shape)
                ]
                tensors.append(helper.make_tensor_value_info(name, _dtype(name, value).onnx, dims))
            sides.append(tensors)
        return helper.make_model(helper.make_graph([], "outline", *sides))

    def _limits(self) -> list[tuple[tuple[int, int], ...]]:
        """Return the least and the largest size of every dimension of every input."""
        ranges = {str(symbol): bounds for symbol, bounds in self.exported.range_constraints.items()}
        return [
            tuple((size, size) if isinstance(size, int) else _bounds(ranges.get(str(size))) for size in value.shape)
            for value in _input_values(self.exported)
        ]


def read_program(exported: Any) -> Program:
    """Take a `torch.export.ExportedProgram`; an input's name is its own, an output's the keys that lead to it.

    Raises:
        InputError: an input or output is no tensor.
    """
    for spec in (*exported.graph_signature.input_specs, *exported.graph_signature.output_specs):
        is_tensor = hasattr(spec.arg, "value") or type(spec.arg).__name__ == "TensorArgument"
        if spec.kind.name in ("USER_INPUT", "USER_OUTPUT") and not is_tensor:
            raise InputError(
                f"the program has '{spec.arg.name}', which is no tensor, as an input or output",
                hint="export it with tensors alone: servers send and take nothing else",
                code="model.not-a-tensor",
            )
    taken: list[str] = []
    for name in (*_input_names(exported), *_output_paths(exported)):
        taken.append(name if name not in taken else f"{name}_output" if f"{name}_output" not in taken else name + "_2")
    count = len(_input_names(exported))
    return Program(exported, exported.module(), tuple(taken[:count]), tuple(taken[count:]))


def _arguments(exported: Any) -> list[tuple[bool, Any]]:
    """Return, for every leaf of the arguments, whether it is a tensor, and its value where it is a constant."""
    specs = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    return [(not hasattr(arg, "value"), getattr(arg, "value", None)) for arg in specs]


def _input_names(exported: Any) -> list[str]:
    specs = exported.graph_signature.input_specs
    return [spec.arg.name for spec in specs if spec.kind.name == "USER_INPUT" and not hasattr(spec.arg, "value")]


def _input_values(exported: Any) -> list[Any]:
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    return [values[name] for name in _input_names(exported)]


def _outputs(exported: Any) -> list[tuple[int, Any]]:
    """Return number and argument of those of the returned leaves that are tensors."""
    specs = [spec.arg for spec in exported.graph_signature.output_specs if spec.kind.name.startswith("USER_")]
    return [(number, arg) for number, arg in enumerate(specs) if not hasattr(arg, "value")]


def _output_values(exported: Any) -> list[Any]:
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    return [values[arg.name] for _, arg in _outputs(exported)]


def _output_paths(exported: Any) -> list[str]:
    from torch.utils import _pytree

    spec = exported.call_spec.out_spec
    paths, _ = _pytree.tree_flatten_with_path(_pytree.tree_unflatten(list(range(spec.num_leaves)), spec))
    names = {number: "_".join(_part(key) for key in path) for path, number in paths}
    return [_output_name(names.get(number, str(number))) for number, _ in _outputs(exported)]


def _part(key: Any) -> str:
    return str(next(getattr(key, field) for field in ("key", "idx", "name") if hasattr(key, field)))


def _output_name(path: str) -> str:
    return "output" if not path else f"output_{path}" if path[0].isdigit() else path


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _dtype(name: str, value: Any) -> DType:
    found = str(value.dtype).removeprefix("torch.")
    if found not in (dtype.value for dtype in DType):
        raise InputError(
            f"'{name}' has the type {found}, which servers do not take",
            hint="cast it inside the model to a type that config.txt can name",
            code="model.element-type",
        )
    return DType(found)


def _bounds(found: Any) -> tuple[int, int]:
    """Return the limits of a symbol; torch says 2 for the least of one that nobody has bounded."""
    if found is None:
        return 1, _UNBOUNDED
    lower, upper = (int(str(bound)) if str(bound).isdigit() else _UNBOUNDED for bound in (found.lower, found.upper))
    return (1 if lower <= 2 else lower), min(upper, _UNBOUNDED)


def _limited(spec: TensorSpec, limits: tuple[tuple[int, int], ...], max_batch: int) -> TensorSpec:
    """Give a tensor the limits of its dimensions, where it has any."""
    free = [limit for dim, limit in zip(spec.dims, limits, strict=True) if isinstance(dim, str)]
    if all(limit == (1, _UNBOUNDED) for limit in free):
        return spec
    most = [
        min(high, max_batch) if max_batch and axis == 0 else high if high < _UNBOUNDED else max(_USUAL_MOST, low)
        for axis, (low, high) in enumerate(limits)
    ]
    return msgspec.structs.replace(spec, min_dims=tuple(low for low, _ in limits), max_dims=tuple(most))

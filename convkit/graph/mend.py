"""Repairs of a graph, by name: each changes what a finding names, and keeps the numbers as far as they meant anything.

mend_quant    Q/DQ pairs        mend_types    element types
mend_forms    attributes, outputs, shapes, order, names, opset
mend_fold     what is computed of constants, operators written out in simpler ones, resizing as two products
mend_dft      Fourier transforms as products        mend_col2im   folding by Reshape, or a transposed convolution
mend_uniform  places where a tensor is not 0, where it is 0 nowhere
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from convkit.errors import StepError
from convkit.graph import mend_col2im, mend_dft, mend_fold, mend_forms, mend_quant, mend_types, mend_uniform
from convkit.graph.model import Model, load_model, save_model
from convkit.pipeline.step import step
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import onnx

Repair = Callable[["onnx.ModelProto", frozenset[str]], "onnx.ModelProto"]
"""Takes a model, which it may change, and the nodes or tensors that findings name; returns the mended one."""

REPAIRS: dict[str, tuple[Repair, str, bool]] = {
    "sort": (mend_forms.sort_nodes, "nodes sorted", True),
    "names": (mend_forms.name_apart, "every node given a name of its own", True),
    "opset": (mend_forms.raise_opset, "opset raised", True),
    "fold": (mend_fold.fold, "computed beforehand, and stored as a weight", True),
    "expand": (mend_fold.expand, "written out in simpler operators", True),
    "resize": (mend_fold.resize_by_products, "written as two products with constant matrices", True),
    "dft": (mend_dft.dft_by_products, "written as products with matrices of cosines and sines", True),
    "col2im": (mend_col2im.fold_by_others, "written as Reshape and Transpose, or as a transposed convolution", True),
    "everywhere": (mend_uniform.count_places, "counted through: what it looks at is nowhere 0", True),
    "whole-image": (mend_forms.pool_everything, "written as an average over the whole image", True),
    "float32": (mend_types.to_float32, "float64 written as float32", True),
    "wider-integers": (mend_types.to_wider_integers, "integers of 16 bits or without sign made int32 or int64", True),
    "inference-mode": (mend_forms.set_to_inference, "set to inference", False),
    "unread-outputs": (mend_forms.drop_unread_outputs, "outputs that nothing reads left out", True),
    "free-batch": (mend_forms.free_batch, "batch taken from what comes in", False),
    "scale": (mend_quant.raise_scales, "scale set to a small one", False),
    "scale-axis": (mend_quant.move_axis, "axis set to the dimension with so many channels", False),
    "float-bias": (mend_quant.fold_biases, "int32 bias stored in float32", True),
    "symmetric": (mend_quant.make_symmetric, "quantized anew, signed and symmetric", True),
    "one-type": (mend_types.to_one_type, "inputs brought to one type", True),
    "through-float": (mend_types.through_float, "computed in float32", True),
    "through-wider": (mend_types.through_wider, "computed in a wider type", True),
}
"""Every repair, in the order in which they are made: how, what is said of it, and whether numbers stay comparable."""


_LARGEST = 1_500_000_000
"""Bytes of a model that may be held in memory twice."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A repair that findings ask for."""

    mend: str
    nodes: tuple[str, ...]


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """A model with repairs made."""

    model: Model
    done: tuple[Wanted, ...]
    """Those that changed anything."""


@step(version=1, stage="check", title="Mend the graph", needs="onnx", libraries=("onnx", "onnxruntime"))
def mend(model: Model, *, wanted: tuple[Wanted, ...]) -> Mended:
    """Make the repairs that findings ask for; the model's own file is not touched.

    Raises:
        StepError: the model is too large to be held in memory twice.
    """
    if model.files.bytes > _LARGEST:
        raise StepError(
            f"a model of {model.files.bytes / 1e9:.1f} GB is not mended here",
            hint="mend what the findings name where the model is exported",
            code="preflight.too-large",
        )
    asked = {each.mend: frozenset(each.nodes) for each in wanted}
    proto = load_model(model)
    done = []
    for name, (repair, _, _) in REPAIRS.items():
        if name in asked:
            before = proto.SerializeToString(deterministic=True)
            proto = repair(proto, asked[name])
            if proto.SerializeToString(deterministic=True) != before:
                done.append(Wanted(mend=name, nodes=tuple(sorted(asked[name]))))
    return Mended(model=save_model(proto, with_types_of(proto, model.interface)), done=tuple(done))


def with_types_of(proto: onnx.ModelProto, interface: Interface) -> Interface:
    """Return the interface with the element types that the graph declares now."""
    kinds = {
        value.name: DType.from_onnx(value.type.tensor_type.elem_type)
        for value in (*proto.graph.input, *proto.graph.output)
    }

    def typed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(msgspec.structs.replace(spec, dtype=kinds.get(spec.name) or spec.dtype) for spec in specs)

    return msgspec.structs.replace(interface, inputs=typed(interface.inputs), outputs=typed(interface.outputs))

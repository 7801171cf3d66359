"""PyTorch to ONNX, through torch.export."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from convkit.errors import InputError, MetadataError, StepError
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.present import BATCH, present, wanted_interface
from convkit.graph.samples import case_sizes, make_cases, random_case
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.exported import Exported
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType, Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch

_DEFAULT_OPSET = 20  # the exporter's own default; Gelu is one node from here on, and Triton 24.10 reads 21
_LOWEST_OPSET = 18  # the exporter writes 18 also where a lower one is asked for
_TRACE_BATCH = 2  # torch.export specializes on 0 and 1


@step(version=1, stage="source", title="Export PyTorch to ONNX", needs="torch")
def export_torch(
    source: TorchSource, *, metadata: Metadata, options: ExportOptions, samples: Artifact | None
) -> Exported:
    """Export a module with the interface that config.txt describes, and record what it answers.

    Raises:
        MetadataError: config.txt's inputs or outputs are not the module's.
        InputError: the module fails on inputs of the described shapes.
        StepError: the exporter failed.
    """
    import torch

    module = load_module(source)
    wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    order = _argument_order(module, wanted)
    cases = make_cases(wanted, samples)
    answers = [_answer(module, wanted, order, case) for case in cases]
    proto = _export(module, wanted, order, options.opset or _DEFAULT_OPSET)
    inputs = _graph_inputs(proto, wanted, order)
    proto, interface = present(proto, wanted, inputs=inputs, outputs=[value.name for value in proto.graph.output])
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"torch {torch.__version__.partition('+')[0]}",
        exporter="torch.onnx.export, dynamo",
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


@observation(version=1, stage="measure", title="Time PyTorch", needs="torch")
def time_torch(
    source: TorchSource, *, metadata: Metadata, options: ExportOptions, inputs: Tensors, seconds: float
) -> Timing:
    """Time the module in inference mode on the first case of `inputs`."""
    import torch

    module = load_module(source)
    wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    order = _argument_order(module, wanted)
    arguments = _arguments(next(iter(inputs)), order)
    with torch.inference_mode():
        return time_calls(lambda: module(*arguments), seconds)


def _argument_order(module: torch.nn.Module, wanted: Interface) -> tuple[str, ...]:
    """Return the wire names in the order of forward()'s parameters.

    By name where every input of config.txt has a parameter's name; else in config.txt's own order.
    """
    parameters = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    by_name = {name: spec.name for spec in wanted.inputs for name in (spec.alias, spec.name) if name in parameters}
    if len(set(by_name.values())) == len(wanted.inputs):
        ordered = tuple(dict.fromkeys(by_name[name] for name in parameters if name in by_name))
        if [by_name.get(name) for name in parameters[: len(ordered)]] == list(ordered):
            return ordered
    return tuple(spec.name for spec in wanted.inputs)


def _arguments(case: dict[str, np.ndarray], order: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(case[name].copy()) for name in order)


def _answer(
    module: torch.nn.Module, wanted: Interface, order: tuple[str, ...], case: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    import torch

    shapes = ", ".join(f"{name} {list(case[name].shape)}" for name in order)
    try:
        with torch.inference_mode():
            result = module(*_arguments(case, order))
    except Exception as error:
        raise InputError(
            f"the model fails on inputs of config.txt's shapes ({shapes}): "
            f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="compare dims, data_type and order of the inputs with forward(); "
            "'min_dims', 'opt_dims' and 'max_dims' bound a dimension of -1",
            code="source.forward-failed",
        ) from error
    leaves = _leaves(result)
    if len(leaves) != len(wanted.outputs):
        raise MetadataError(
            f"config.txt: {len(wanted.outputs)} outputs are declared, the model returns {len(leaves)}: "
            + ", ".join(str(list(leaf.shape)) for leaf in leaves),
            hint="list every output, in the order in which forward() returns them",
            code="metadata.outputs",
        )
    outputs = {}
    for spec, leaf in zip(wanted.outputs, leaves, strict=True):
        array = leaf.float().numpy() if spec.dtype is DType.BFLOAT16 else leaf.numpy()
        if spec.dtype is not DType.BFLOAT16 and str(array.dtype) != spec.dtype.numpy:
            raise MetadataError(
                f"config.txt: output '{spec.name}' is declared as {spec.dtype.value}, the model returns {array.dtype}",
                hint=f"write data_type '{array.dtype}' for it",
                code="metadata.type-mismatch",
            )
        outputs[spec.name] = array
    return outputs


def _leaves(result: Any) -> list[torch.Tensor]:
    import torch
    from torch.utils._pytree import tree_leaves

    if hasattr(result, "to_tuple"):  # dataclass-like outputs, as transformers'
        result = result.to_tuple()
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _export(module: torch.nn.Module, wanted: Interface, order: tuple[str, ...], opset: int) -> onnx.ModelProto:
    import torch

    specs = {spec.name: spec for spec in wanted.inputs}
    sizes = {**case_sizes(wanted)[0], BATCH: _TRACE_BATCH}
    arguments = _arguments(random_case(wanted, sizes, seed=0) if _drawable(wanted) else {}, order)
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(specs[name].dims) if isinstance(dim, str)}
        for name in order
    )
    try:
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=shapes if any(shapes) else None,
            external_data=False,
            verbose=False,
        )
    except Exception as error:
        raise StepError(
            f"torch.onnx.export failed: {_reason(error)}",
            hint=_export_hint(error),
            code="export.failed",
        ) from error
    if program is None:
        raise StepError("torch.onnx.export returned nothing", hint="see the log", code="export.failed")
    proto: onnx.ModelProto = program.model_proto
    written = next((o.version for o in proto.opset_import if o.domain == ""), 0)
    if written != opset:
        raise StepError(
            f"opset {opset} was asked for, the exporter wrote {written}",
            hint=f"ask for --opset {_LOWEST_OPSET} or above; older ones are not to be had from this exporter",
            code="export.opset",
        )
    return proto


def _drawable(wanted: Interface) -> bool:
    return all(spec.dtype is not DType.STRING for spec in wanted.inputs)


def _reason(error: BaseException) -> str:
    """Return the root cause's message: torch wraps it in several pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}"


def _export_hint(error: BaseException) -> str:
    text = str(error) + str(error.__cause__ or "")
    if "specialized" in text or "Constraints violated" in text:
        return "the model fixes a dimension that config.txt leaves free (-1): write its number in config.txt"
    return "torch.export must be able to follow forward(): the log names the module and line"


def _graph_inputs(proto: onnx.ModelProto, wanted: Interface, order: tuple[str, ...]) -> list[str]:
    """Return the graph's input tensors in the order of `wanted`.

    Raises:
        InputError: the graph has dropped an input that it does not use.
    """
    names = [value.name for value in proto.graph.input]
    if len(names) != len(order):
        raise InputError(
            f"the exported graph has {len(names)} inputs ({', '.join(names)}), config.txt lists {len(order)}",
            hint="take inputs that the model does not use out of config.txt",
            code="export.inputs",
        )
    by_wire = dict(zip(order, names, strict=True))
    return [by_wire[spec.name] for spec in wanted.inputs]

"""PyTorch to ONNX, through torch.export."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from convkit.errors import InputError, MetadataError, StepError
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.present import BATCH, present, wanted_interface
from convkit.graph.samples import case_sizes, make_cases, random_case
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.torch_cuda import cuda_device, time_moved
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import DType, Interface

if TYPE_CHECKING:
    import numpy as np
    import onnx

    import torch

T = TypeVar("T")

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
    call = _how_to_call(module, wanted)
    cases = make_cases(wanted, samples)
    answers = [_answer(module, wanted, call, case) for case in cases]
    proto = _export(module, wanted, call, options.opset or _DEFAULT_OPSET)
    inputs = _graph_inputs(proto, wanted, call)
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
    source: TorchSource,
    *,
    metadata: Metadata,
    options: ExportOptions,
    inputs: Tensors,
    seconds: float,
    gpu: str | None = None,
) -> Timing:
    """Time the module in inference mode on the first case of `inputs`: on the CPU, or on the GPU that is named."""
    import torch

    module = load_module(source)
    wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    call = _how_to_call(module, wanted)
    arguments, keywords = call.given(next(iter(inputs)))
    device = cuda_device(gpu)
    with torch.inference_mode():
        if device is not None:
            return time_moved(module, arguments, keywords, seconds, device)
        return time_calls(lambda: module(*arguments, **keywords), seconds)


@step(version=1, stage="measure", title="Ask PyTorch", needs="torch")
def answer_torch(source: TorchSource, *, metadata: Metadata, options: ExportOptions, questions: Questions) -> Tensors:
    """Run the module that was exported over evaluation data; see `convkit.sources.answers`."""
    module = load_module(source)
    wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    call = _how_to_call(module, wanted)
    return answer_all(questions, lambda case: _answer(module, wanted, call, case))


class _Call(NamedTuple):
    """How forward() gets its inputs: their wire names in its order, and its parameters where those go by keyword."""

    wires: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    def given(self, case: dict[str, np.ndarray]) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """Return the positional and the keyword arguments of one call."""
        tensors = tuple(_tensor(case[name]) for name in self.wires)
        return self.arranged(tensors)

    def arranged(self, values: tuple[T, ...]) -> tuple[tuple[T, ...], dict[str, T]]:
        """Return one value for each input as positional or as keyword arguments."""
        return ((), dict(zip(self.parameters, values, strict=True))) if self.parameters else (values, {})


def _how_to_call(module: torch.nn.Module, wanted: Interface) -> _Call:
    """Match config.txt's inputs to forward()'s parameters.

    By name where every input has a parameter's name, by keyword if other parameters stand between them; else in
    config.txt's own order.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    by_name = {name: spec.name for spec in wanted.inputs for name in (spec.alias, spec.name) if name in named}
    if len(set(by_name.values())) != len(wanted.inputs) or len(by_name) != len(wanted.inputs):
        return _Call(tuple(spec.name for spec in wanted.inputs))
    ordered = [name for name in named if name in by_name]
    wires = tuple(by_name[name] for name in ordered)
    leading = list(named)[: len(ordered)] == ordered
    if leading and all(named[name].kind is not inspect.Parameter.KEYWORD_ONLY for name in ordered):
        return _Call(wires)
    return _Call(wires, tuple(ordered))


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch

    if array.dtype.name == "bfloat16":  # ml_dtypes' type, which torch does not know
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _answer(
    module: torch.nn.Module, wanted: Interface, call: _Call, case: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    import torch

    shapes = ", ".join(f"{name} {list(case[name].shape)}" for name in call.wires)
    arguments, keywords = call.given(case)
    try:
        with torch.inference_mode(), one_run(f"the model on the inputs {shapes}"):
            result = module(*arguments, **keywords)
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
        found = str(leaf.dtype).removeprefix("torch.")
        if found != spec.dtype.value:
            known = found in (dtype.value for dtype in DType)
            raise MetadataError(
                f"config.txt: output '{spec.name}' is declared as {spec.dtype.value}, the model returns {found}",
                hint=f"write data_type '{found}' for it" if known else f"no server takes {found}: cast it in the model",
                code="metadata.type-mismatch",
            )
        array = leaf.float().numpy() if spec.dtype is DType.BFLOAT16 else leaf.numpy()
        outputs[spec.name] = array
    return outputs


def _leaves(result: Any) -> list[torch.Tensor]:
    from torch.utils._pytree import tree_leaves

    import torch

    if hasattr(result, "to_tuple"):  # dataclass-like outputs, as transformers'
        result = result.to_tuple()
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _export(module: torch.nn.Module, wanted: Interface, call: _Call, opset: int) -> onnx.ModelProto:
    import torch

    specs = {spec.name: spec for spec in wanted.inputs}
    arguments, keywords = call.given(random_case(wanted, _trace_sizes(wanted), seed=0))
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(specs[name].dims) if isinstance(dim, str)}
        for name in call.wires
    )
    positional, by_keyword = call.arranged(shapes)
    try:
        program = torch.onnx.export(
            module,
            arguments,
            kwargs=keywords,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(by_keyword or positional) if any(shapes) else None,
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


def _trace_sizes(wanted: Interface) -> dict[str, int]:
    """Choose sizes to trace with; where it can be no 1, for which torch.export makes a graph of its own."""
    cases = case_sizes(wanted)
    sizes = {name: next((case[name] for case in cases if case[name] > 1), size) for name, size in cases[0].items()}
    return {**sizes, BATCH: _TRACE_BATCH}


def _reason(error: BaseException) -> str:
    """Return the root cause's message: torch wraps it in several pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}"


def _export_hint(error: BaseException) -> str:
    text = str(error) + str(error.__cause__ or "")
    if any(sign in text for sign in ("specialized", "Constraints violated", "inferred a static shape")):
        return (
            "the model fixes a dimension that config.txt leaves free: write its number there instead of -1, and "
            '"batch_size": 0 where it is the batch'
        )
    return "torch.export must be able to follow forward(): the log names the module and line"


def _graph_inputs(proto: onnx.ModelProto, wanted: Interface, call: _Call) -> list[str]:
    """Return the graph's input tensors in the order of `wanted`.

    Raises:
        InputError: the graph has dropped an input that it does not use.
    """
    names = [value.name for value in proto.graph.input]
    if len(names) != len(call.wires):
        raise InputError(
            f"the exported graph has {len(names)} inputs ({', '.join(names)}), config.txt lists {len(call.wires)}",
            hint="take inputs that the model does not use out of config.txt",
            code="export.inputs",
        )
    by_wire = dict(zip(call.wires, names, strict=True))
    return [by_wire[spec.name] for spec in wanted.inputs]

"""The roads from a torch.nn.Module to ONNX: torch.export first, the older exporter where that is closed."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.errors import ConvkitError, StepError
from convkit.graph.present import BATCH
from convkit.graph.samples import case_sizes, random_case
from convkit.pipeline import events
from convkit.sources.torch_blame import blame, fixed_sizes
from convkit.sources.torch_call import Call, leaves, tensor_of
from convkit.sources.torch_decisions import decided_by_data
from convkit.sources.torch_operators import translations
from convkit.sources.torch_rewriting import hold_rules_exact
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx
    import torch

DEFAULT_OPSET = 20  # the exporter's own default; Gelu is one node from here on, and Triton 24.10 reads 21
LOWEST_OPSET = 18  # the exporter writes 18 also where a lower one is asked for
DYNAMO = "torch.onnx.export, dynamo"
TRACED = "torch.onnx.export, the older exporter, traced"
SCRIPTED = "torch.onnx.export, the older exporter, scripted"
PROGRAM = "torch.onnx.export, from the exported program"
TORCHSCRIPT = "torch.onnx.export, the older exporter, as TorchScript"
_TRACE_BATCH = 2  # torch.export specializes on 0 and 1
_FIXES_A_DIMENSION = ("specialized", "Constraints violated", "inferred a static shape")
_UNTRANSLATED = "No ONNX function found for"
_ADVICE = re.compile(r"(For more information, run with|Caused by: \(_|The following call raised)")


class Written(NamedTuple):
    """A graph, and the road on which it came."""

    proto: onnx.ModelProto
    road: str


def export_module(
    module: torch.nn.Module,
    wanted: Interface,
    call: Call,
    opset: int,
    *,
    doubt: Callable[[onnx.ModelProto], str | None] = lambda _: None,
) -> Written:
    """Write a module as ONNX. The graph's inputs stand in the order of `call.wires`.

    Where torch.export cannot follow forward(), the older exporter is tried: on what torch.jit.script makes of the
    module where forward() decides by what its inputs hold, which a trace would settle once and for all; else on a
    trace.

    Args:
        module: in evaluation mode.
        wanted: config.txt's interface.
        call: how the module gets its inputs.
        opset: the opset to write.
        doubt: says why a graph from the older exporter must not be taken; a trace settles what it does not see.

    Raises:
        StepError: every road is closed; the message says why, and in which module and line.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        with failing(module):
            return Written(_older(module, wanted, call, opset), TORCHSCRIPT)
    try:
        with fixed_sizes(module) as fixed:
            return Written(_dynamo(module, wanted, call, opset), DYNAMO)
    except ConvkitError:
        raise
    except Exception as error:
        closed = _reason(error, module)
        if _says(error, _FIXES_A_DIMENSION) and fixed:
            closed += fixed[0]
        arguments, keywords = call.given(random_case(wanted, _trace_sizes(wanted), seed=0))
        decided = decided_by_data(module, arguments, keywords)
        road = SCRIPTED if decided is not None else TRACED
        exporter = road.partition(", ")[2]
        try:
            proto = _older(torch.jit.script(module) if road is SCRIPTED else module, wanted, call, opset)
        except Exception as second:
            settled = f"; no trace, since forward() decides by its data at {decided}" if decided is not None else ""
            raise _failure(f"{closed}; {exporter}: {_reason(second, module)}{settled}", error) from second
        if (why := doubt(proto)) is not None:
            raise _failure(f"{closed}; {exporter}: {why}", error) from error
    events.warn("export.older-exporter", f"written by {exporter}, since torch.export failed: {closed}")
    return Written(proto, road)


@contextlib.contextmanager
def failing(module: torch.nn.Module) -> Iterator[None]:
    """Turn what an exporter raises into a `StepError` with its reason, and the module's name and line.

    Raises:
        StepError: something was raised.
    """
    try:
        yield
    except ConvkitError:
        raise
    except Exception as error:
        raise _failure(_reason(error, module), error) from error


def _failure(reason: str, error: BaseException) -> StepError:
    hint = "torch.export must be able to follow forward(): the log names the module and line"
    if _says(error, (_UNTRANSLATED,)):
        hint = "say how to write the operator as ONNX: --custom-ops FILE.py with a table ONNX_TRANSLATIONS"
    if _says(error, _FIXES_A_DIMENSION):
        hint = (
            "the model fixes a dimension that config.txt leaves free: write its number there instead of -1, and "
            '"batch_size": 0 where it is the batch'
        )
    return StepError(f"torch.onnx.export failed: {reason}", hint=hint, code="export.failed")


def _dynamo(module: torch.nn.Module, wanted: Interface, call: Call, opset: int) -> onnx.ModelProto:
    import torch

    specs = {spec.name: spec for spec in wanted.inputs}
    arguments, keywords = call.given(random_case(wanted, _trace_sizes(wanted), seed=0))
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(specs[name].dims) if isinstance(dim, str)}
        for name in call.wires
    )
    positional, by_keyword = call.arranged(shapes)
    return export_program(
        module,
        arguments,
        opset=opset,
        kwargs=keywords,
        dynamic_shapes=(by_keyword or positional) if any(shapes) else None,
    )


def export_program(program: Any, arguments: tuple[Any, ...], *, opset: int, **more: Any) -> onnx.ModelProto:
    """Write a module or a `torch.export.ExportedProgram` as ONNX through torch.export.

    Raises:
        StepError: the exporter wrote another opset.
    """
    import torch

    hold_rules_exact()
    made = torch.onnx.export(
        program,
        arguments,
        dynamo=True,
        opset_version=opset,
        external_data=False,
        verbose=False,
        custom_translation_table=translations() or None,
        **more,
    )
    if made is None:
        raise StepError("torch.onnx.export returned nothing", hint="see the log", code="export.failed")
    hint = f"ask for --opset {LOWEST_OPSET} or above; older ones are not to be had from this exporter"
    return _of_opset(made.model_proto, opset, hint)


def _of_opset(proto: onnx.ModelProto, opset: int, hint: str) -> onnx.ModelProto:
    written = next((o.version for o in proto.opset_import if o.domain == ""), 0)
    if written != opset:
        raise StepError(
            f"opset {opset} was asked for, the exporter wrote {written}",
            hint=hint,
            code="export.opset",
        )
    return proto


def _older(module: torch.nn.Module, wanted: Interface, call: Call, opset: int) -> onnx.ModelProto:
    """Write a module through TorchScript; its free dimensions are named as in `wanted`."""
    import onnx
    import torch

    case = random_case(wanted, _trace_sizes(wanted), seed=0)
    specs = {spec.name: spec for spec in wanted.inputs}
    inputs = [f"input_{number}" for number in range(len(call.wires))]
    outputs = [f"output_{number}" for number in range(len(wanted.outputs))]
    dims = [specs[wire].dims for wire in call.wires] + [spec.dims for spec in wanted.outputs]
    arguments = tuple(tensor_of(case[name]) for name in call.wires)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is deprecated; what a trace settles is what the checks are for
        flat = _flat(module, call)
        if isinstance(module, torch.jit.ScriptModule):  # the exporter's own trace does not enter one
            flat = torch.jit.trace(flat, arguments, check_trace=False)
        torch.onnx.export(
            flat,
            arguments,
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={
                name: {axis: dim for axis, dim in enumerate(shape) if isinstance(dim, str)}
                for name, shape in zip([*inputs, *outputs], dims, strict=True)
            },
        )
    return _of_opset(onnx.load_from_string(buffer.getvalue()), opset, "leave --opset out")


def _flat(module: torch.nn.Module, call: Call) -> torch.nn.Module:
    """Return a module that takes tensors in the order of `call.wires` and returns a tuple of tensors."""
    import torch

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            arguments, keywords = call.arranged(tensors)
            return tuple(leaves(self.module(*arguments, **keywords)))

    return Flat().eval()


def _trace_sizes(wanted: Interface) -> dict[str, int]:
    """Choose sizes to trace with; where it can be no 1, for which torch.export makes a graph of its own."""
    cases = case_sizes(wanted)
    sizes = {name: next((case[name] for case in cases if case[name] > 1), size) for name, size in cases[0].items()}
    return {**sizes, BATCH: _TRACE_BATCH}


def _reason(error: BaseException, module: torch.nn.Module) -> str:
    """Return the root cause's message, which torch wraps in several pages of advice, with the module and line."""
    where = blame(error, module)
    while error.__cause__ is not None:
        error = error.__cause__
    text = _ADVICE.split(" ".join(str(error).split()))[0].strip()
    return f"{type(error).__name__}: {text[:600]}{where}"


def _says(error: BaseException, signs: tuple[str, ...]) -> bool:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = f"{error}{error.__cause__ or ''}{type(root).__name__}{root}"
    return any(sign in text for sign in signs)

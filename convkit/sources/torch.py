"""PyTorch to ONNX, through torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.errors import InputError
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.present import present, wanted_interface
from convkit.graph.samples import make_cases
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.torch_call import Call, answer, how_to_call
from convkit.sources.torch_export import export_module
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx

_DEFAULT_OPSET = 20  # the exporter's own default; Gelu is one node from here on, and Triton 24.10 reads 21


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
    call = how_to_call(module, wanted)
    cases = make_cases(wanted, samples)
    answers = [answer(module, wanted, call, case) for case in cases]
    proto, road = export_module(module, wanted, call, options.opset or _DEFAULT_OPSET)
    inputs = _graph_inputs(proto, wanted, call)
    proto, interface = present(proto, wanted, inputs=inputs, outputs=[value.name for value in proto.graph.output])
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"torch {torch.__version__.partition('+')[0]}",
        exporter=road,
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
    call = how_to_call(module, wanted)
    arguments, keywords = call.given(next(iter(inputs)))
    with torch.inference_mode():
        return time_calls(lambda: module(*arguments, **keywords), seconds)


@step(version=1, stage="measure", title="Ask PyTorch", needs="torch")
def answer_torch(source: TorchSource, *, metadata: Metadata, options: ExportOptions, questions: Questions) -> Tensors:
    """Run the module that was exported over evaluation data; see `convkit.sources.answers`."""
    module = load_module(source)
    wanted = wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    call = how_to_call(module, wanted)
    return answer_all(questions, lambda case: answer(module, wanted, call, case))


def _graph_inputs(proto: onnx.ModelProto, wanted: Interface, call: Call) -> list[str]:
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

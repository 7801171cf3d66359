"""PyTorch to ONNX, through torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.errors import InputError
from convkit.graph.census import take_census
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.padding import keep_zeros
from convkit.graph.present import present, wanted_interface
from convkit.graph.samples import make_cases
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.places import places_of
from convkit.sources.torch_call import Call, answer, how_to_call
from convkit.sources.torch_cuda import cuda_device, time_moved
from convkit.sources.torch_doubt import disagreement, random_node, same
from convkit.sources.torch_export import DEFAULT_OPSET, export_module
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface

if TYPE_CHECKING:
    import onnx


@step(version=3, stage="source", title="Export PyTorch to ONNX", needs="torch")
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
    proto, road = export_module(
        module,
        wanted,
        call,
        options.opset or DEFAULT_OPSET,
        doubt=lambda proto: disagreement(proto, call.wires, wanted, cases, answers),
    )
    drawn = random_node(proto)
    if drawn is not None and not same(answers[0], answer(module, wanted, call, cases[0])):
        raise InputError(
            f"the model gives other answers on the same inputs: it draws random numbers ({drawn})",
            hint="let it take them as an input, or make it draw none in evaluation mode",
            code="source.random",
        )
    inputs = _graph_inputs(proto, wanted, call)
    outputs = [value.name for value in proto.graph.output]
    places = places_of(proto)
    proto, interface = present(keep_zeros(proto), wanted, inputs=inputs, outputs=outputs)
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"torch {torch.__version__.partition('+')[0]}",
        exporter=road,
        parameters=sum(parameter.numel() for parameter in module.parameters()) or take_census(proto).parameters,
        places=places,
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
    call = how_to_call(module, wanted)
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

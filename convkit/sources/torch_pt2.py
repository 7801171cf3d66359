"""From a ``.pt2`` to ONNX, and its own answers."""

from __future__ import annotations

from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.padding import keep_zeros
from convkit.graph.present import present
from convkit.graph.samples import make_cases
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.places import places_of
from convkit.sources.torch_export import DEFAULT_OPSET, PROGRAM, failing
from convkit.sources.torch_module import TorchSource, load_program
from convkit.sources.torch_program import read_program
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface


@step(version=3, stage="source", title="Export the program to ONNX", needs="torch")
def export_pt2(
    source: TorchSource, *, metadata: Metadata | None, options: ExportOptions, samples: Artifact | None
) -> Exported:
    """Write a program as ONNX, and record what it answers.

    Raises:
        MetadataError: config.txt's names, types or dims are not the program's.
        InputError: it has inputs or outputs that servers do not take, or fails on the samples.
        StepError: the exporter failed.
    """
    import torch

    program = read_program(load_program(source))
    face = program.face(metadata, options)
    cases = make_cases(face.interface, samples)
    answers = [face.answered(case, program.answer) for case in cases]
    with failing(program.module):
        proto = program.graph(options.opset or DEFAULT_OPSET)
    places = places_of(proto)
    proto, interface = present(keep_zeros(proto), face.interface, inputs=face.inputs, outputs=face.outputs)
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"torch {torch.__version__.partition('+')[0]}",
        exporter=PROGRAM,
        parameters=sum(parameter.numel() for parameter in program.exported.parameters()),
        places=places,
    )


@step(version=1, stage="source", title="Read the program's inputs", needs="torch")
def read_pt2(source: TorchSource, *, options: ExportOptions) -> Interface:
    """Return what a program itself says of its inputs and outputs."""
    return read_program(load_program(source)).face(None, options).interface


@observation(version=1, stage="measure", title="Time PyTorch", needs="torch")
def time_pt2(
    source: TorchSource, *, metadata: Metadata | None, options: ExportOptions, inputs: Tensors, seconds: float
) -> Timing:
    """Time the program in inference mode on the first case of `inputs`."""
    program = read_program(load_program(source))
    face = program.face(metadata, options)
    call = program.prepared(face.fed(next(iter(inputs))))
    return time_calls(call, seconds)


@step(version=1, stage="measure", title="Ask PyTorch", needs="torch")
def answer_pt2(
    source: TorchSource, *, metadata: Metadata | None, options: ExportOptions, questions: Questions
) -> Tensors:
    """Run the program that was exported over evaluation data; see `convkit.sources.answers`."""
    program = read_program(load_program(source))
    face = program.face(metadata, options)
    return answer_all(questions, lambda case: face.answered(case, program.answer))

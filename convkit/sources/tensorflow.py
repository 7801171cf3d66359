"""TensorFlow to ONNX: SavedModels of TensorFlow 1 and 2, by their signature or by config.txt's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.errors import InputError, MetadataError
from convkit.graph.model import Tensors, save_model, save_tensors
from convkit.graph.padding import keep_zeros
from convkit.graph.present import interface_of, present, wanted_interface
from convkit.graph.samples import make_cases
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.identity import library_version
from convkit.pipeline.step import observation, step
from convkit.pipeline.stopwatch import Timing, time_calls
from convkit.sources.answers import Questions, answer_all
from convkit.sources.exported import Exported
from convkit.sources.tensorflow_layout import given_to_callers, given_to_model, turned, turned_metadata
from convkit.sources.tensorflow_match import Match, match_tensors
from convkit.sources.tensorflow_model import SavedModel, as_fed, load_saved_model, tensorflow
from convkit.sources.tensorflow_onnx import DEFAULT_OPSET, count_parameters, to_onnx
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions, TensorLayout
from convkit.spec.tensor import DType, Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx


@step(version=2, stage="source", title="Export TensorFlow to ONNX", needs="tensorflow", libraries=("tf2onnx",))
def export_saved_model(
    source: Artifact, *, folder: str, metadata: Metadata | None, options: ExportOptions, samples: Artifact | None
) -> Exported:
    """Export a SavedModel with the interface of config.txt, else of its signature, and record what it answers.

    Args:
        source: the SavedModel's files; `folder` in it holds saved_model.pb.
        folder: relative to the artifact, usually ``.``.
        metadata: config.txt, where there is one; wire names are then its names, else the signature's keys.
        options: signature, opset (18 by default), wire names, max_batch_size.
        samples: inputs for the reference outputs; by default random ones.

    Raises:
        InputError: no SavedModel, no usable signature, a tensor that servers do not take.
        MetadataError: config.txt's names, types or dims are not the model's.
        StepError: an operation has no counterpart in ONNX.
    """
    saved = load_saved_model(source, folder, options.signature)
    match = match_tensors(saved, metadata)
    inputs, outputs = (tuple(tensor.tensor for tensor in side) for side in (match.inputs, match.outputs))
    opset = options.opset or DEFAULT_OPSET
    proto = to_onnx(saved, inputs, outputs, opset, turned=_to_turn(match, metadata, options))
    _forget_unknown_ranks(proto, match)
    wanted = _wanted(proto, match, metadata, options)
    proto, interface = present(keep_zeros(proto), wanted, inputs=inputs, outputs=outputs)
    cases = make_cases(interface, samples)
    answers = [_answer(saved, match, interface, case, options.layout) for case in cases]
    return Exported(
        model=save_model(proto, interface),
        samples=save_tensors(cases),
        references=save_tensors(answers),
        framework=f"tensorflow {tensorflow().__version__}",
        exporter=f"tf2onnx {library_version('tf2onnx')}, from the frozen graph, opset {opset}",
        parameters=count_parameters(saved, outputs),
        matched=match.sentences,
    )


@observation(version=1, stage="measure", title="Time TensorFlow", needs="tensorflow")
def time_saved_model(
    source: Artifact,
    *,
    folder: str,
    metadata: Metadata | None,
    options: ExportOptions,
    inputs: Tensors,
    seconds: float,
) -> Timing:
    """Time the SavedModel in a TensorFlow session, as TensorFlow Serving runs it, on the first case of `inputs`."""
    saved = load_saved_model(source, folder, options.signature)
    match = match_tensors(saved, metadata)
    case = next(iter(inputs))
    names = wire_names(match, metadata, options)
    arguments = [as_fed(given_to_model(case[name], options.layout)) for name in names]
    call = saved.session.make_callable(
        [tensor.tensor for tensor in match.outputs], feed_list=[tensor.tensor for tensor in match.inputs]
    )
    return time_calls(lambda: call(*arguments), seconds)


@step(version=1, stage="measure", title="Ask TensorFlow", needs="tensorflow")
def answer_saved_model(
    source: Artifact, *, folder: str, metadata: Metadata | None, options: ExportOptions, questions: Questions
) -> Tensors:
    """Run the SavedModel over evaluation data; see `convkit.sources.answers`."""
    saved = load_saved_model(source, folder, options.signature)
    match = match_tensors(saved, metadata)
    return answer_all(questions, lambda case: _answer(saved, match, questions.interface, case, options.layout))


@step(version=1, stage="source", title="Read the signature", needs="tensorflow")
def read_signature(source: Artifact, *, folder: str, options: ExportOptions) -> Interface:
    """Return the inputs of a SavedModel's signature, as images are prepared for them."""
    match = match_tensors(load_saved_model(source, folder, options.signature), None)
    inputs = tuple(
        TensorSpec(
            name=tensor.key,
            dtype=tensor.dtype or DType.FLOAT32,
            dims=turned(
                [f"{tensor.key}_{axis}" if dim < 0 else dim for axis, dim in enumerate(tensor.dims or ())],
                options.layout,
            ),
        )
        for tensor in match.inputs
    )
    return Interface(inputs=inputs, outputs=())


def wire_names(match: Match, metadata: Metadata | None, options: ExportOptions) -> tuple[str, ...]:
    """Return what the inputs are called on the wire."""
    if metadata is None:
        return tuple(tensor.key for tensor in match.inputs)
    return tuple(spec.name for spec in wanted_interface(metadata, options.tensor_names, None).inputs)


def _wanted(proto: onnx.ModelProto, match: Match, metadata: Metadata | None, options: ExportOptions) -> Interface:
    if metadata is not None:
        metadata = turned_metadata(metadata, options.layout)
        return wanted_interface(metadata, options.tensor_names, options.max_batch_size)
    return interface_of(_with_keys(proto, match), max_batch_size=options.max_batch_size)


def _to_turn(match: Match, metadata: Metadata | None, options: ExportOptions) -> set[str]:
    """Return the graph's names of the tensors that callers see with their channels first."""
    if options.layout is not TensorLayout.NCHW:
        return set()
    found = (*match.inputs, *match.outputs)
    dims = [tensor.dims or () for tensor in found]
    if metadata is not None:  # which knows the rank where the model does not
        dims = [tensor.dims for tensor in (*metadata.inputs, *metadata.outputs)]
    return {tensor.tensor for tensor, each in zip(found, dims, strict=True) if len(each) == 4}


def _forget_unknown_ranks(proto: onnx.ModelProto, match: Match) -> None:
    """Take away the shape of a scalar that tf2onnx gives to a tensor of unknown rank."""
    unknown = {tensor.tensor for tensor in (*match.inputs, *match.outputs) if tensor.dims is None}
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name in unknown and not value.type.tensor_type.shape.dim:
            value.type.tensor_type.ClearField("shape")


def _with_keys(proto: onnx.ModelProto, match: Match) -> onnx.ModelProto:
    """Return the declarations of the graph's inputs and outputs under the signature's keys, without the graph.

    Raises:
        InputError: not even the rank of one is known.
    """
    import onnx

    face = onnx.ModelProto()
    declared = {value.name: value for value in (*proto.graph.input, *proto.graph.output)}
    for tensors, values in ((match.inputs, face.graph.input), (match.outputs, face.graph.output)):
        for tensor in tensors:
            value = values.add()
            value.CopyFrom(declared[tensor.tensor])
            value.name = tensor.key
            if not value.type.tensor_type.HasField("shape"):
                raise InputError(
                    f"the signature does not say how many dimensions '{tensor.key}' has",
                    hint="write its dims into a config.txt",
                    code="model.unknown-rank",
                )
    return face


def _answer(
    saved: SavedModel, match: Match, interface: Interface, case: dict[str, np.ndarray], layout: TensorLayout
) -> dict[str, np.ndarray]:
    """Run the SavedModel itself on one case; in and out under wire names."""
    given = zip(match.inputs, interface.inputs, strict=True)
    feed = {tensor.tensor: given_to_model(case[spec.name], layout) for tensor, spec in given}
    try:
        found = saved.run([tensor.tensor for tensor in match.outputs], feed)
    except (tensorflow().errors.OpError, ValueError) as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in case.items())
        text = " ".join((getattr(error, "message", None) or str(error)).split())
        raise InputError(
            f"the model fails on inputs of the described shapes ({shapes}): {text[:600]}",
            hint="give a dimension that is not free its number in config.txt; 'range', 'min_dims', 'opt_dims' and "
            "'max_dims' bound what is sent, and --samples gives real inputs",
            code="source.forward-failed",
        ) from error
    arrays = [given_to_callers(array, layout) for array in found]
    for spec, array in zip(interface.outputs, arrays, strict=True):
        _refuse_misfit(spec, array)
    return {spec.name: array for spec, array in zip(interface.outputs, arrays, strict=True)}


def _refuse_misfit(spec: TensorSpec, array: np.ndarray) -> None:
    fits = array.ndim == len(spec.dims) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(spec.dims, array.shape, strict=True)
    )
    if not fits:
        raise MetadataError(
            f"config.txt: output '{spec.name}' is declared as {spec}, the model answers with {list(array.shape)}",
            hint="write -1 for a dimension that varies, else the number that the model gives",
            code="metadata.dims-mismatch",
        )

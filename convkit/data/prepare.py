"""The step that brings data of any kind into the one form that everything else reads."""

from __future__ import annotations

from typing import Any

import msgspec

from convkit.data.images import form_of, image_array, open_image
from convkit.data.opened import state_of, watching
from convkit.data.raw import ImageFiles, Raw, Sample
from convkit.data.shards import ShardWriter
from convkit.errors import InputError
from convkit.pipeline import events
from convkit.pipeline.artifact import Artifact, new_folder
from convkit.pipeline.step import step
from convkit.sources.user_code import UserFunction, load_function, running
from convkit.spec.preprocess import PreprocessOptions
from convkit.spec.tensor import Interface

PREPROCESS = "[preprocess] function"
_EVERY = 16


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Data as rows of the model's inputs."""

    files: Artifact
    samples: int
    opened: tuple[str, ...]
    """What the user's code has read on the way: files and folders."""
    state: str
    """The digest of those."""


@step(version=1, stage="source", title="Prepare data", needs="onnx", libraries=("pillow",))
def prepare_data(
    raw: Raw,
    *,
    interface: Interface,
    options: PreprocessOptions,
    function: UserFunction | None,
    labels: str,
    at_most: int | None,
    state: str,
) -> Prepared:
    """Write samples as ``.npz`` files whose arrays are rows of the model's inputs, with their labels.

    Args:
        raw: the samples as the user has them.
        interface: what the model takes; each sample is held against it.
        options: how images become arrays.
        function: what makes a dict of arrays from a raw sample, in place of that.
        labels: the name of the labels, in what comes in and in what is written.
        at_most: samples to take; None: all.
        state: the digest of what the user's code was last seen to read, so that a change of that runs it again.

    Raises:
        InputError: a sample cannot be read, or does not fit the model; there are none.
        StepError: the user's code raised.
    """
    del state
    form = form_of(interface, options) if isinstance(raw, ImageFiles) and function is None else None
    writer = ShardWriter(interface, new_folder("data"), labels=labels)
    with watching() as opened:
        call = None
        if function is not None:
            with running(function):
                call = load_function(function, PREPROCESS)
        for sample in raw.samples(labels):
            if writer.samples == at_most:
                break
            value = sample.value
            if form is not None:
                value = {form.input: image_array(value, form, options)}
            elif function is not None:
                value = _called(call, function, sample, raw)
            label = sample.label
            if function is not None and isinstance(value, dict):
                label = value.pop(labels, label)
            writer.add(value, label, sample.where)
            if writer.samples % _EVERY == 0:
                events.progress(writer.samples, at_most or 0, "samples")
    if not writer.samples:
        raise InputError("the data hold no sample", hint="give at least one", code="data.too-few")
    paths = tuple(sorted(opened))
    return Prepared(files=writer.finish(), samples=writer.samples, opened=paths, state=state_of(paths))


def _called(call: Any, function: UserFunction, sample: Sample, raw: Raw) -> Any:
    """Return what the user's function makes of a raw sample; an image goes in as uint8 RGB [height, width, 3]."""
    import numpy as np

    value = np.asarray(open_image(sample.value)) if isinstance(raw, ImageFiles) else sample.value
    with running(function):
        made = call(value)
    return dict(made) if hasattr(made, "keys") else made

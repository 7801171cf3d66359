"""Which operators take the time in TensorFlow, as its own tracer tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from convkit.graph.model import Tensors
from convkit.graph.operator_times import OperatorTimes, Ran, middle_half, operator_times
from convkit.pipeline.artifact import Artifact
from convkit.pipeline.patience import one_run
from convkit.pipeline.step import observation
from convkit.sources.tensorflow import wire_names
from convkit.sources.tensorflow_layout import given_to_model
from convkit.sources.tensorflow_match import match_tensors
from convkit.sources.tensorflow_model import as_fed, load_saved_model, tensorflow
from convkit.spec.metadata import Metadata
from convkit.spec.options import ExportOptions

_MOST_CALLS = 20
_WARM_UP = 2
_LABEL = re.compile(r"= (\w+)\(")
_FED = frozenset(("_Arg", "_Retval", "_SOURCE", "_SINK", "NoOp", "Const"))


@observation(version=1, stage="measure", title="See where TensorFlow's time goes", needs="tensorflow")
def profile_saved_model(
    source: Artifact,
    *,
    folder: str,
    metadata: Metadata | None,
    options: ExportOptions,
    inputs: Tensors,
    seconds: float,
) -> OperatorTimes:
    """Run the SavedModel in a TensorFlow session on the first case of `inputs`, every call traced."""
    tf = tensorflow()
    saved = load_saved_model(source, folder, options.signature)
    match = match_tensors(saved, metadata)
    case = next(iter(inputs))
    arguments = [as_fed(given_to_model(case[name], options.layout)) for name in wire_names(match, metadata, options)]
    call = saved.session.make_callable(
        [tensor.tensor for tensor in match.outputs],
        feed_list=[tensor.tensor for tensor in match.inputs],
        accept_options=True,
    )
    traced = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    calls: list[list[Ran]] = []
    deadline = None
    while len(calls) < _WARM_UP + _MOST_CALLS:
        seen = tf.compat.v1.RunMetadata()
        with one_run("a call that is profiled"):
            call(*arguments, options=traced, run_metadata=seen)
        calls.append(list(_ran(seen)))
        if len(calls) == _WARM_UP:
            deadline = time.perf_counter() + seconds
        if deadline is not None and len(calls) > _WARM_UP and time.perf_counter() > deadline:
            break
    counted = middle_half(calls[_WARM_UP:])
    return operator_times(
        (ran for each in counted for ran in each), calls=len(counted), seen_by=f"TensorFlow {tf.__version__}'s tracer"
    )


def _ran(seen: Any) -> Iterator[Ran]:
    for device in seen.step_stats.dev_stats:
        for node in device.node_stats:
            label = _LABEL.search(node.timeline_label)
            operator = label[1] if label else node.node_name
            if operator not in _FED:
                taken = node.op_end_rel_nanos - node.op_start_rel_nanos
                yield Ran(name=node.node_name, operator=operator, ms=taken / 1e6)

"""The cases that onnx generates for its operators: converted with the published answers, or refused with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from backend.node_steps import Outcome, node_names, take_nodes
from backend.published import EVERYTHING, chosen
from convkit.errors import StepError
from convkit.pipeline.cache import Cache
from convkit.pipeline.events import nobody
from convkit.pipeline.runner import Runner
from convkit.serving.releases import OLDEST, release

NEWEST = release("26.08")
AT_ONCE = 40
REASONS = {
    "model.element-type": "4 and 8 bit floats, 4 bit integers, complex numbers: no server takes them",
    "model.not-a-tensor": "sequences and optionals",
    "model.empty-dimension": "an input that can hold nothing, such as CastLike's",
    "model.none": "no inputs at all",
    "source.opset": "an operator that is younger than the server's ONNX Runtime",
    "source.invalid": "onnx's own checker refuses it",
    "onnxruntime.refused": "ONNX Runtime has no kernel for it",
    "onnxruntime.failed": "ONNX Runtime's kernel fails on the published inputs",
}
"""Every reason for which a case is refused."""
OTHER_ANSWERS = (
    "test_attention_4d_with_past_and_present_qk_matmul_bias",
    "test_attention_4d_causal_fp16",  # by one unit in the last place
    "test_dft",
    "test_stft",
    "test_training_dropout",  # random
    "test_maxunpool_export_with_output_shape",
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
)
"""Where ONNX Runtime's own answers, on the published file, are not the published ones."""


def taken(cache: Cache, max_opset: int, names: Sequence[str] = ()) -> list[Outcome]:
    """Take cases through the steps in one worker, by default those that are chosen.

    Where the worker dies (a native library of many graphs' history may do that), each half of the batch gets another.
    """
    found: list[Outcome] = []
    with Runner(cache, nobody) as run:
        listed = run(node_names)
        names = names or chosen(listed)
        while names:
            batch = tuple(names[:AT_ONCE])
            try:
                outcomes = run(take_nodes, batch, max_opset=max_opset)
            except StepError as error:
                if error.code != "worker.died":
                    raise
                break
            found += outcomes
            names = names[AT_ONCE:]
        else:
            return found
    if len(batch) == 1:
        found.append(Outcome(name=batch[0], code="worker.died", message="it kills its worker"))
    else:
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            found += taken(cache, max_opset, half)
    return found + (taken(cache, max_opset, names[AT_ONCE:]) if names[AT_ONCE:] else [])


@pytest.fixture(scope="module", params=[OLDEST, NEWEST] if EVERYTHING else [OLDEST], ids=lambda server: server.name)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    found = taken(Cache(tmp_path_factory.mktemp("cache")), request.param.opset)
    assert len({outcome.name for outcome in found}) == len(found)
    print(f"\n{len(found)} node cases, opset {request.param.opset}:", dict(Counter(o.code or "ok" for o in found)))
    return found


def test_every_case_is_converted_or_refused_with_a_reason(outcomes: list[Outcome]) -> None:
    refused = [outcome for outcome in outcomes if outcome.code]
    unexpected = [
        f"{outcome.name}: {outcome.code}: {outcome.message}" for outcome in refused if outcome.code not in REASONS
    ]

    assert unexpected == []
    assert all(outcome.message and outcome.hint for outcome in refused)
    assert len(refused) < len(outcomes) * 0.4


def test_what_is_converted_gives_the_published_answers(outcomes: list[Outcome]) -> None:
    differing = [outcome for outcome in outcomes if outcome.difference]

    assert [outcome for outcome in differing if not outcome.name.startswith(OTHER_ANSWERS)] == []
    assert [outcome for outcome in differing if not outcome.differs_as_published] == []


def test_what_onnx_runtime_takes_it_takes_from_convkit_too(outcomes: list[Outcome]) -> None:
    assert [f"{outcome.name}: {outcome.message}" for outcome in outcomes if outcome.runs_as_published] == []

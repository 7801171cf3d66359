"""onnx's published model files through `convert`: with the published answers, or refused with nothing published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

import convkit
from backend.published import EVERYTHING, answers, chosen, data_sets, difference, model_folders
from convkit.errors import ConvkitError
from convkit.pipeline import runner
from convkit.pipeline.worker import Worker
from convkit.report.document import Status

REFUSED = {
    "test_gradient_of_add": "onnxruntime.refused",  # ONNX Runtime has no Gradient
    "test_gradient_of_add_and_mul": "onnxruntime.refused",
    "test_strnorm_model_monday_casesensintive_lower": "onnxruntime.refused",  # where its locale is not installed
    "test_strnorm_model_monday_casesensintive_upper": "onnxruntime.refused",
    "test_strnorm_model_monday_empty_output": "onnxruntime.refused",
    "test_strnorm_model_monday_insensintive_upper_twodim": "onnxruntime.refused",
    "test_sequence_model8": "onnxruntime.failed",  # the published inputs are empty: random ones do not add up
}
"""Every model that may be refused, and with which code."""
QUIET = onnxruntime.SessionOptions()
QUIET.log_severity_level = 3
FOLDERS = {name: folder for name, folder in model_folders().items() if name in chosen([name])}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    error: str = ""
    """The code of the refusal."""
    message: str = ""
    hint: str = ""


class Lasting(Worker):
    """A worker that outlives a conversion."""

    def kill(self) -> None:
        """Leave it to `end`."""

    def stop(self) -> None:
        """Leave it to `end`."""

    def end(self) -> None:
        super().kill()
        super().stop()

    def has_ended(self) -> bool:
        return self._process.poll() is not None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for cache and repository, where every conversion finds the same worker: to start it takes longest."""
    folder = tmp_path_factory.mktemp("backend")
    kept: dict[str, Lasting] = {}

    def worker(environment: str, log: Path, scratch: Path, *others: object) -> Lasting:
        del scratch  # which a run takes away: this one may write below `folder`
        if environment not in kept or kept[environment].has_ended():
            kept[environment] = Lasting(environment, log, folder, *others)
        return kept[environment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Worker", worker)
        yield folder
    for each in kept.values():
        each.end()


@pytest.fixture(scope="module")
def outcomes(home: Path) -> list[Outcome]:
    found = [converted(name, folder, home) for name, folder in FOLDERS.items()]
    print(f"\n{len(found)} model files:", dict(Counter(outcome.error or "converted" for outcome in found)))
    return found


def converted(name: str, folder: Path, home: Path) -> Outcome:
    """Convert on the published inputs; on random ones where those are no samples, being empty."""
    samples = home / "samples" / f"{name}.npz"
    samples.parent.mkdir(exist_ok=True)
    sets = data_sets(folder)
    if not sets:
        return converted_on(None, name, folder, home)
    inputs = {key: array.astype("U") if array.dtype == object else array for key, array in sets[0][0].items()}
    np.savez(samples, allow_pickle=False, **inputs)
    outcome = converted_on(samples, name, folder, home)
    return converted_on(None, name, folder, home) if outcome.error == "data.rows" else outcome


def converted_on(samples: Path | None, name: str, folder: Path, home: Path) -> Outcome:
    try:
        report = convkit.convert(
            folder / "model.onnx",
            name=name,
            output=home / "models",
            cache=home / "cache",
            export={"samples": samples},
            measure={"mode": "none"},
        )
    except ConvkitError as error:
        return Outcome(name=name, error=error.code, message=error.message, hint=error.hint)
    assert report.status is Status.OK
    return Outcome(name=name)


def test_every_model_is_converted_or_refused_with_a_reason(outcomes: list[Outcome]) -> None:
    refused = [outcome for outcome in outcomes if outcome.error]

    assert [outcome for outcome in refused if REFUSED.get(outcome.name) != outcome.error] == []
    assert all(outcome.message and outcome.hint for outcome in refused)
    assert len(REFUSED) <= 140 * 0.05
    assert len(outcomes) == 140 or not EVERYTHING


def test_nothing_is_published_that_onnx_runtime_does_not_run_with_the_published_answers(
    outcomes: list[Outcome], home: Path
) -> None:
    published = {path.parents[1].name: path for path in (home / "models").glob("*/*/model.onnx")}
    assert published.keys() == {outcome.name for outcome in outcomes if not outcome.error}

    differing = {}
    for name, path in published.items():
        session = onnxruntime.InferenceSession(str(path), QUIET)
        for inputs, wanted in data_sets(FOLDERS[name]):
            if found := difference(answers(session, inputs), wanted, rtol=1e-3, atol=1e-5):
                differing[name] = found
    assert differing == {}

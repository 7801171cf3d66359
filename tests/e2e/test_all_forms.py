"""All forms of one network with two inputs and two outputs give the same answers, as converted and through Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from triton_server.client import infer
from triton_server.server import TritonServer, unavailable

from e2e.command import Command
from e2e.forms import FORMS, IDS, POOLED, TAGS, VOCABULARY, WEIGHTS, answers
from e2e.published import Array

SHAPES = ((1, 1), (1, 33), (4, 7))
DRAW = np.random.default_rng(5)


def named(form: str) -> str:
    return form.replace(" ", "_").replace(".", "_")


each_form = pytest.mark.parametrize(
    "form", [pytest.param(name, marks=pytest.mark.soak) if form.soak else name for name, form in FORMS.items()]
)


@pytest.fixture(scope="module")
def repository(convkit: Command, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Every form that is asked for converted, each under its own name, into one repository."""
    folder = tmp_path_factory.mktemp("forms")
    asked_for = {each.callspec.params["form"] for each in request.session.items if _has_form(each)}
    for name, form in FORMS.items():
        if name in asked_for or not (asked_for or form.soak):
            source = form.write(folder / "sources" / named(name))
            convkit.converted(source, "-o", folder / "repository", "--name", named(name), *form.arguments(source))
    return folder / "repository"


def _has_form(item: pytest.Item) -> bool:
    return item.path == Path(__file__) and "form" in getattr(getattr(item, "callspec", None), "params", {})


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    if (reason := unavailable()) is not None:
        pytest.skip(f"no Triton server: {reason}")
    with TritonServer(repository) as running:
        yield running


def asked(batch: int, length: int) -> dict[str, Array]:
    return {
        IDS: DRAW.integers(0, VOCABULARY, (batch, length)),
        WEIGHTS: DRAW.standard_normal((batch, length), dtype=np.float32),
    }


def hold(answer: dict[str, Array], feeds: dict[str, Array]) -> None:
    wanted = answers(feeds[IDS], feeds[WEIGHTS])
    assert set(answer) == {TAGS, POOLED}
    for name, expected in wanted.items():
        np.testing.assert_allclose(answer[name], expected, rtol=1e-3, atol=1e-4)


@each_form
def test_every_form_gives_the_networks_answers(repository: Path, form: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(repository / named(form) / "1" / "model.onnx")
    for batch, length in SHAPES:
        feeds = asked(batch, length)
        hold(dict(zip((TAGS, POOLED), session.run([TAGS, POOLED], feeds), strict=True)), feeds)


@pytest.mark.triton
@each_form
def test_every_form_gives_the_networks_answers_through_triton(server: TritonServer, form: str) -> None:
    for batch, length in SHAPES:
        feeds = asked(batch, length)
        hold(infer(server, "grpc", named(form), feeds), feeds)


def test_every_form_is_published_with_one_configuration(repository: Path) -> None:
    texts = {
        form: (repository / named(form) / "config.pbtxt").read_text(encoding="utf-8").replace(named(form), "NAME")
        for form in FORMS
        if (repository / named(form)).is_dir()
    }

    assert len(texts) > 1
    assert len(set(texts.values())) == 1, texts

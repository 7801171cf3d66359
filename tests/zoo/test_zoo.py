"""A few classes of the zoo, in one process; `make zoo` runs all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.pipeline.artifact import use_scratch
from zoo.classes import class_names, make
from zoo.convert import Outcome, convert_class, convert_folder, write
from zoo.page import page, share

SAMPLE = (
    "BertForTokenClassification",
    "MobileNetV2ForSemanticSegmentation",
    "ViTForImageClassification",
    "T5EncoderModel",
)
"""An encoder with a mask, convolutions, a vision transformer, relative positions."""


@pytest.mark.parametrize("name", SAMPLE)
def test_a_class_of_transformers_is_converted(name: str, tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")
    outcome = convert_class(name, tmp_path / "net")

    assert outcome.verdict == "converted", outcome.message
    assert outcome.cases == 2
    assert outcome.free >= 1


def test_a_network_that_draws_random_numbers_is_refused_with_the_operator_and_the_line(tmp_path: Path) -> None:
    use_scratch(tmp_path / "scratch")
    tiny = make("ViTMAEModel")
    image = [tensor for tensor in tiny.inputs if tensor.name != "noise"]
    write(tiny._replace(inputs=image), tmp_path / "net")
    outcome = convert_folder("ViTMAEModel", tmp_path / "net")

    assert len(image) == len(tiny.inputs) - 1
    assert outcome.verdict == "refused"
    assert "RandomUniformLike, modeling_vit_mae.py, line" in outcome.message


def test_the_zoo_has_some_hundred_classes() -> None:
    names = class_names()

    assert len(names) > 400
    assert set(SAMPLE) <= set(names)


def test_the_share_is_that_of_the_classes_that_can_be_made_tiny() -> None:
    verdicts = ("converted", "converted", "converted", "refused", "not tiny", "not tiny")
    outcomes = [
        Outcome(name=f"Net{number}", verdict=verdict, message="operator X | net.py, line 3", stage="export")
        for number, verdict in enumerate(verdicts)
    ]

    assert share(outcomes) == 0.75
    text = page(outcomes, of=10)
    assert "Of 10 classes 6 were tried, drawn at random; 2 of\nthem could not be made tiny" in text
    assert "| Net3 | export | operator X \\| net.py, line 3 |" in text


def test_networks_whose_weights_are_drawn_anew_are_counted_and_marked() -> None:
    usual = Outcome(name="Usual", verdict="converted")
    drawn = [
        Outcome(name="Drawn", verdict="converted", drawn_again=True),
        Outcome(name="Failed", verdict="refused", drawn_again=True, message="operator X", stage="export"),
    ]

    text = page([usual, *drawn], of=3)
    assert "Of 2 of them (with a \\*), of which 1 were converted, the weights are drawn anew" in text
    assert "| Drawn \\* |" in text
    assert "| Failed \\* | export |" in text
    assert "| Usual |" in text
    assert "drawn anew" not in page([usual], of=1)

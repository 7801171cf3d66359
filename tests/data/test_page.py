"""What docs/data.md shows does what it says there."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np

from convkit.data.open import open_data
from convkit.data.prepare import prepare_data
from convkit.graph.feed import labelled_batches
from convkit.graph.present import wanted_interface
from convkit.request import Request, make_request
from convkit.spec.metadata import read_metadata
from convkit.spec.options import TensorNames

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
LINES = ROOT / "sample_models" / "python_lines"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def request_of(text: str, folder: Path) -> Request:
    assert tomllib.loads(text)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return make_request({}, recipe=folder / "recipe.toml", environment={})


def test_the_function_that_the_page_shows_makes_the_very_rows_of_the_sample_model(tmp_path: Path) -> None:
    (function,) = blocks("python")
    (tmp_path / "lines.py").write_text(function, encoding="utf-8")
    with np.load(LINES / "heldout.npz") as held_out:
        rows = {name: held_out[name][:50] for name in held_out.files}
    lines = [
        json.dumps({"text": bytes(tokens[tokens > 0].astype(np.uint8)).decode(), "kind": int(kind)})
        for tokens, kind in zip(rows["tokens"], rows["labels"], strict=True)
    ]
    (tmp_path / "heldout.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    request = request_of(blocks("toml")[1], tmp_path)
    interface = wanted_interface(read_metadata(LINES / "config.txt"), TensorNames.NODE_NAME, None)
    options = request.accuracy
    data = open_data(str(options.data), "--eval-data", options=request.preprocess, labels=options.labels)

    prepared = prepare_data(
        data.raw,
        interface=interface,
        options=data.options,
        function=data.function,
        labels=options.labels,
        at_most=None,
        state="",
    )
    (first, second) = labelled_batches(interface, prepared.files, labels=options.labels, size=32)
    for name in ("tokens", "mask"):
        assert np.concatenate([first.inputs[name], second.inputs[name]]).tolist() == rows[name].tolist()
    assert [*first.labels.tolist(), *second.labels.tolist()] == rows["labels"].tolist()  # type: ignore[union-attr]


def test_the_recipe_for_images_says_what_the_page_says(tmp_path: Path) -> None:
    request = request_of(blocks("toml")[0], tmp_path)

    assert (request.preprocess.resize, request.preprocess.crop) == (256, 224)
    assert request.quantize.data == str(tmp_path / "imagenet" / "train")
    assert request.accuracy.max_drop_points == 0.01

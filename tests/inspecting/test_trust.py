"""Inspecting runs nothing that nobody trusts, and tells what it would be; the rest is told all the same."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from cli.program import Program
from sources.hostile import MakesFolder

from convkit.inspecting import inspect_model
from convkit.request import make_request
from convkit.sources.outline import stored_tensors

CNN = Path(__file__).parents[2] / "sample_models" / "digits_cnn"


def test_without_trust_everything_is_told_that_needs_none() -> None:
    told = inspect_model(make_request({"model": str(CNN)}, environment={}))

    assert (told.status, told.exit_code, told.trusted) == ("partial", 0, False)
    assert [Path(file.path).name for file in told.untrusted] == ["model.py"]
    assert told.untrusted[0].runs == ("the module itself", "load_model()")
    assert [(tensor.name, tensor.dims) for tensor in told.inputs] == [("image", ("batch", 1, 8, 8))]
    assert told.stored is not None
    assert told.stored.tensors == 33
    (left_out,) = told.left_out
    assert left_out.code == "trust.required"
    assert "convkit inspect" in left_out.hint
    assert told.work is None


@pytest.mark.parametrize("quick", [False, True])
def test_a_hostile_pickle_is_named_and_never_called(tmp_path: Path, quick: bool) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "evil").mkdir()
    torch.save({"weight": torch.zeros(3, 5), "more": MakesFolder(canary)}, tmp_path / "evil" / "model.pth")

    told = inspect_model(make_request({"model": str(tmp_path / "evil")}, environment={}), quick=quick)

    assert not canary.exists()
    assert [file.runs for file in told.untrusted] == [("posix.mkdir",)]
    assert told.stored is not None
    assert [tensor.name for tensor in told.stored.largest] == ["weight"]
    assert told.status == "partial"


def rewritten(original: Path, path: Path, content: bytes) -> None:
    """Write an archive of torch's with another pickle in it."""
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename.endswith("data.pkl") else old.read(member))


def test_a_damaged_pickle_tells_nothing_and_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    original = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(3, 5), "list": [torch.ones(2)], "more": MakesFolder(canary)}, original)
    with zipfile.ZipFile(original) as archive:
        whole = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    draw = random.Random(0)

    for _ in range(120):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        rewritten(original, tmp_path / "damaged.pth", bytes(content[: draw.choice((None, len(content) // 2))]))
        stored_tensors(tmp_path / "damaged.pth")

    assert not canary.exists()


def test_a_pickle_that_holds_itself_ends(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pth")
    knot: list[object] = []
    knot += [knot, {"again": knot}]
    stream = io.BytesIO()
    pickle.dump(knot, stream, protocol=2)
    rewritten(tmp_path / "model.pth", tmp_path / "knot.pth", stream.getvalue())

    assert stored_tensors(tmp_path / "knot.pth") == ()


def test_a_model_of_which_nothing_can_be_told_exits_3(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")

    ended = Program(tmp_path, tmp_path / "cache")("inspect", "broken.onnx", "--json", "--no-roofline")

    assert ended.status == 3
    assert ended.result["error"]["code"] == "source.unreadable"

"""A PyTorch file is told what it is, and what it would call, from its bytes; nothing in it runs."""

from __future__ import annotations

import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from convkit.errors import InputError
from convkit.sources.checkpoint import CheckpointKind, read_checkpoint
from sources.hostile import PICKLES, WRAPPINGS, in_legacy_file, in_zip, plain_pickle, text, zip_behind_a_prefix

Form = Callable[[Path], bytes]
every_pickle = pytest.mark.parametrize("payload", PICKLES.values(), ids=PICKLES)
every_wrapping = pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)


@every_pickle
def test_each_hostile_pickle_really_fires_when_it_is_loaded(payload: Form, tmp_path: Path) -> None:
    pickle.loads(payload(tmp_path / "canary"))

    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("wrap", [in_zip, in_legacy_file, WRAPPINGS["tar"], zip_behind_a_prefix])
def test_each_wrapping_is_one_in_which_torch_would_run_it(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    import torch

    file = tmp_path / "model.pth"
    file.write_bytes(wrap(plain_pickle(tmp_path / "canary")))
    try:
        torch.load(file, weights_only=False)
    except TypeError:  # the tar holds the first of three members only
        assert wrap is WRAPPINGS["tar"]

    assert (tmp_path / "canary").is_dir()


@every_pickle
@every_wrapping
def test_a_hostile_pickle_is_told_without_being_run(
    payload: Form, wrapping: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(wrapping(payload(tmp_path / "canary")))

    checkpoint = read_checkpoint(file)

    assert checkpoint.kind is CheckpointKind.PICKLED_MODULE
    assert any("mkdir" in name or "hidden" in name for name in checkpoint.foreign)
    assert not (tmp_path / "canary").exists()


@every_pickle
def test_a_harmless_zip_behind_it_does_not_hide_a_hostile_file(payload: Form, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(zip_behind_a_prefix(payload(tmp_path / "canary")))

    assert read_checkpoint(file).kind is CheckpointKind.PICKLED_MODULE


def test_a_harmless_archive_behind_a_hostile_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(in_zip(plain_pickle(tmp_path / "canary")) + in_zip(pickle.dumps({}, protocol=2)))

    with pytest.raises(InputError, match="two zip archives in one file"):
        read_checkpoint(file)


def test_of_two_members_with_one_name_both_are_read(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", plain_pickle(tmp_path / "canary"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))

    assert read_checkpoint(file).foreign == ("posix.mkdir",)


def test_a_pickle_under_another_name_in_the_archive_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/Other.PKL", plain_pickle(tmp_path / "canary"))

    assert read_checkpoint(file).foreign == ("posix.mkdir",)


def test_a_name_from_the_extension_registry_counts_as_hidden(tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(b"\x80\x02\x82\x07.")  # EXT1 7

    assert read_checkpoint(file).foreign == ("a hidden name",)


def test_a_state_dict_holds_tensors(tmp_path: Path) -> None:
    import torch

    for zipped in (True, False):
        file = tmp_path / "model.pth"
        state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)

        assert read_checkpoint(file).kind is CheckpointKind.TENSORS


def test_tensors_of_every_type_are_tensors(tmp_path: Path) -> None:
    import torch

    types = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    types += [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
    torch.save({str(dtype): torch.zeros(2, dtype=dtype) for dtype in types}, tmp_path / "model.pth")

    assert read_checkpoint(tmp_path / "model.pth").kind is CheckpointKind.TENSORS


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_module_of_torchs_own_classes_names_nothing_foreign(zipped: bool, tmp_path: Path) -> None:
    import torch
    from torch import nn

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.LSTM(4, 4), nn.MultiheadAttention(4, 2))
    torch.save(module, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(tmp_path / "model.pth")

    assert checkpoint.kind is CheckpointKind.TORCH_MODULE
    assert checkpoint.foreign == ()
    assert "torch.nn.modules.conv.Conv2d" in checkpoint.module_classes


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.nn.modules.module", "register_module_forward_hook"),
        ("torch.nn.modules.module", "torch.os.system"),
        ("torch.nn.modules.utils", "_ntuple"),
        ("torch.nn.modules.linear.torch.os", "System"),
        ("torch.nn.modules", "os.System"),
        ("torch.nn.modulesX.linear", "Linear"),
    ],
)
def test_what_is_no_class_of_torchs_own_modules_is_foreign(module: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(b"\x80\x04" + text(module) + text(name) + b"\x93.")

    assert read_checkpoint(file).kind is CheckpointKind.PICKLED_MODULE


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_and_exported_programs_are_told_from_checkpoints(tmp_path: Path) -> None:
    import torch

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    torch.jit.save(torch.jit.trace(Twice(), torch.ones(2)), tmp_path / "script.pt")
    torch.export.save(torch.export.export(Twice(), (torch.ones(2),)), tmp_path / "program.pt2")

    assert read_checkpoint(tmp_path / "script.pt").kind is CheckpointKind.TORCHSCRIPT
    assert read_checkpoint(tmp_path / "program.pt2").kind is CheckpointKind.EXPORTED


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"not a model at all", b"PK\x03\x04", b"\x80\x04\x8d" + b"\xff" * 8, b"\x80\x02}"],
    ids=["empty", "one byte", "text", "a zip's first bytes", "an absurd length", "a pickle cut short"],
)
def test_a_file_that_torch_never_wrote_is_refused_with_a_hint(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(data)

    with pytest.raises(InputError, match=r"model\.pth is no file that torch\.save writes"):
        read_checkpoint(file)


def test_a_damaged_file_is_read_or_refused_and_never_anything_else(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save(module, tmp_path / name, _use_new_zipfile_serialization=zipped)
    chance = random.Random(7)
    whole = [(tmp_path / name).read_bytes() for name in ("zip", "legacy")]
    file, refused = tmp_path / "damaged", 0
    for _ in range(1000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 3, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        file.write_bytes(data)
        try:
            read_checkpoint(file)
        except InputError:
            refused += 1

    assert refused > 0

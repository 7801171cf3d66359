"""Code that lies beside a PyTorch model runs under trust only, and then as its author ran it."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from convkit.errors import InputError, StepError, TrustError
from convkit.pipeline.artifact import digest_file
from convkit.request import make_request
from convkit.sources.torch_module import load_module
from sources.hostile import PICKLES, WRAPPINGS, in_zip, plain_pickle, zip_behind_a_prefix
from sources.torch_models import (
    LOADER,
    NETWORK,
    network,
    opened,
    state_dict_folder,
    whole_module_folder,
    write_folder,
)

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")

CANARY = """
import os
os.mkdir({canary!r})
"""

LOADS_WHOLE = """
def load_model():
    return torch.load("model.pth")
"""


def canary_folder(tmp_path: Path) -> Path:
    """A state dict whose model.py makes the folder `canary` when it is imported."""
    return state_dict_folder(tmp_path / "net", code=CANARY.format(canary=str(tmp_path / "canary")) + NETWORK + LOADER)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def relocated(archive: bytes, old: bytes, new: bytes) -> bytes:
    """The archive with a string of its data.pkl replaced."""
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(archive)) as source, ZipFile(buffer, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            target.writestr(member.filename, content.replace(old, new) if member.filename.endswith(".pkl") else content)
    return buffer.getvalue()


def answers(module: torch.nn.Module) -> torch.Tensor:
    return module(torch.arange(8.0).reshape(2, 4))


def test_model_py_is_not_even_imported_without_trust(tmp_path: Path) -> None:
    folder = canary_folder(tmp_path)

    with pytest.raises(TrustError) as refused:
        opened(folder)

    assert "load_model()" in refused.value.message
    assert f"convkit convert {folder} --trust" in refused.value.hint
    assert digest_file(folder / "model.py") in refused.value.hint
    assert not (tmp_path / "canary").exists()


def test_model_py_runs_under_trust(tmp_path: Path) -> None:
    module = load_module(opened(canary_folder(tmp_path), trust=["yes"]).source)

    assert (tmp_path / "canary").is_dir()
    assert torch.equal(answers(module), answers(network()))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4:UserWarning")
@pytest.mark.parametrize("payload", PICKLES.values(), ids=PICKLES)
@pytest.mark.parametrize("wrapping", [*WRAPPINGS.values(), zip_behind_a_prefix], ids=[*WRAPPINGS, "before a zip"])
def test_no_hostile_pickle_fires_without_trust_whatever_stands_around_it(
    payload: Callable[[Path], bytes], wrapping: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "net", {"network.py": NETWORK})
    (folder / "model.pth").write_bytes(wrapping(payload(tmp_path / "canary")))

    with pytest.raises(TrustError):
        opened(folder)
    with pytest.raises(InputError, match=r"model\.pth cannot be loaded"):
        load_module(opened(folder, model_def=f"{folder / 'network.py'}:Net").source)

    assert not (tmp_path / "canary").exists()


def test_a_refused_pickle_names_what_it_would_have_called(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {})
    (folder / "model.pth").write_bytes(in_zip(plain_pickle(tmp_path / "canary")))

    with pytest.raises(TrustError, match=r"posix\.mkdir"):
        opened(folder)


def test_a_whole_module_of_torchs_own_classes_loads_without_trust(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {})
    torch.save(network().layers, folder / "model.pth")

    assert torch.equal(answers(load_module(opened(folder).source)), answers(network()))


def test_the_digest_of_the_very_file_is_enough(tmp_path: Path) -> None:
    folder = canary_folder(tmp_path)

    load_module(opened(folder, trust=[digest_file(folder / "model.py")]).source)

    assert (tmp_path / "canary").is_dir()


def test_a_file_that_has_changed_since_its_digest_was_given_is_refused(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net")
    trust = [digest_file(folder / "model.py")]
    (folder / "model.py").write_text(NETWORK + LOADER + "\n# one byte more\n", encoding="utf-8")

    with pytest.raises(TrustError, match="its digest is not the one that was trusted"):
        opened(folder, trust=trust)


def test_the_digest_of_model_py_does_not_cover_a_pickle_that_it_would_load(tmp_path: Path) -> None:
    folder = state_dict_folder(
        tmp_path / "net", code=NETWORK + "\ndef load_model():\n    return torch.load('model.pth')\n"
    )
    trust = [digest_file(folder / "model.py")]
    opened(folder, trust=trust)
    (folder / "model.pth").write_bytes(in_zip(plain_pickle(tmp_path / "canary")))

    with pytest.raises(TrustError, match=r"model\.pth runs code when it is loaded.*posix\.mkdir"):
        opened(folder, trust=trust)


def test_the_digest_of_model_py_does_not_cover_what_it_imports_from_its_folder(tmp_path: Path) -> None:
    code = "from parts.blocks import block\n" + NETWORK + LOADER
    extra = {"parts/__init__.py": "", "parts/blocks.py": "from . import deeper\nblock = 1\n", "parts/deeper.py": ""}
    folder = state_dict_folder(tmp_path / "net", code=code, extra=extra)
    needed = ["model.py", *extra]

    with pytest.raises(TrustError) as refused:
        opened(folder, trust=[digest_file(folder / "model.py")])

    assert all(name in refused.value.message for name in extra)
    assert all(digest_file(folder / name) in refused.value.hint for name in needed)
    load_module(opened(folder, trust=[digest_file(folder / name) for name in needed]).source)


def test_under_trust_by_digest_a_module_planted_beside_it_is_not_imported(tmp_path: Path) -> None:
    code = "try:\n    __import__('planted')\nexcept ImportError:\n    pass\n" + NETWORK + LOADER
    extra = {"planted.py": CANARY.format(canary=str(tmp_path / "canary"))}
    folder = state_dict_folder(tmp_path / "net", code=code, extra=extra)

    load_module(opened(folder, trust=[digest_file(folder / "model.py")]).source)

    assert not (tmp_path / "canary").exists()


def test_under_full_trust_any_module_beside_it_is_imported(tmp_path: Path) -> None:
    code = "__import__('beside_it')\n" + NETWORK + LOADER
    extra = {"beside_it.py": CANARY.format(canary=str(tmp_path / "canary"))}

    load_module(opened(state_dict_folder(tmp_path / "net", code=code, extra=extra), trust=["yes"]).source)

    assert (tmp_path / "canary").is_dir()


def test_the_environment_grants_trust_with_convkit_trust_1_and_with_nothing_else() -> None:
    arguments = {"model": "net"}

    assert make_request(arguments, environment={"CONVKIT_TRUST": "1"}).trust == ("yes",)
    assert make_request(arguments, environment={"CONVKIT_TRUST": "0"}).trust == ()
    assert make_request(arguments, environment={"CONVKIT_TRUST": "yes"}).trust == ()


def test_requirements_are_never_installed_but_named_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    def no_process(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a process was started: {args}")

    code = "import a_module_that_nobody_has\n" + NETWORK + LOADER
    folder = state_dict_folder(tmp_path / "net", code=code, extra={"requirements.txt": "a-module-that-nobody-has\n"})
    monkeypatch.setattr(subprocess, "Popen", no_process)

    with pytest.raises(StepError, match=r"importing model\.py raised ModuleNotFoundError.*model\.py, line 1") as failed:
        load_module(opened(folder, trust=["yes"]).source)

    assert "pip install a_module_that_nobody_has" in failed.value.hint
    assert f"pip install -r {folder / 'requirements.txt'}" in failed.value.hint


def test_code_runs_in_the_models_folder_imports_from_it_and_writes_nothing_there(tmp_path: Path) -> None:
    code = """
    import os, torch
    from torch import nn
    from helper import width
    ROWS = int(open("rows.txt").read())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, ROWS))

        def forward(self, x):
            from late import nothing  # imported when it runs, not when it is loaded
            return self.layers(x) + nothing

    def load_model():
        net = Net()
        net.load_state_dict(torch.load("model.pth"))
        return net
    """
    extra = {"helper.py": "width = 8\n", "late.py": "nothing = 0\n", "rows.txt": "3"}
    folder = state_dict_folder(tmp_path / "net", code=code, extra=extra)
    here, before = Path.cwd(), listing(folder)

    module = load_module(opened(folder, trust=["yes"]).source)

    assert torch.equal(answers(module), answers(network()))
    assert listing(folder) == before
    assert Path.cwd() == here


def test_torch_load_inside_load_model_takes_whole_pickles_as_it_did(tmp_path: Path) -> None:
    folder = whole_module_folder(tmp_path / "net", module="model")
    (folder / "model.py").write_text(
        NETWORK + "\ndef load_model():\n    return torch.load('model.pth')\n", encoding="utf-8"
    )

    module = load_module(opened(folder, trust=["yes"]).source)

    assert torch.equal(answers(module), answers(network()))
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        torch.load(folder / "model.pth")  # outside it is torch's own again


@pytest.mark.parametrize("module", ["model", "__main__"])
def test_a_whole_module_finds_its_class_in_model_py_wherever_it_was_saved(module: str, tmp_path: Path) -> None:
    folder = whole_module_folder(tmp_path / "net", module=module)

    with pytest.raises(TrustError, match=rf"{module}\.Net"):
        opened(folder)
    loaded = load_module(opened(folder, trust=["yes"]).source)

    assert torch.equal(answers(loaded), answers(network()))
    assert type(loaded).__module__ == module or module == "__main__"


def test_a_whole_module_without_its_class_says_what_is_missing(tmp_path: Path) -> None:
    folder = whole_module_folder(tmp_path / "net", module="left_behind")
    (folder / "model.py").unlink()

    with pytest.raises(InputError, match=r"model\.pth cannot be loaded: No module named 'left_behind'") as failed:
        load_module(opened(folder, trust=["yes"]).source)

    assert "put left_behind.py beside it" in failed.value.hint


def test_a_model_is_loaded_on_the_cpu_and_in_evaluation_mode(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", code=NETWORK + LOADER.replace("return net", "return net.train()"))

    module = load_module(opened(folder, trust=["yes"]).source)

    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_weights_saved_on_a_gpu_load_on_the_cpu(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {"network.py": NETWORK})
    torch.save(network().state_dict(), tmp_path / "on_cpu.pth")
    on_gpu = relocated((tmp_path / "on_cpu.pth").read_bytes(), b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    (folder / "model.pth").write_bytes(on_gpu)

    module = load_module(opened(folder, model_def=f"{folder / 'network.py'}:Net").source)

    assert torch.equal(answers(module), answers(network()))
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(folder / "model.pth")


def test_what_load_model_returns_must_be_a_module(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", code=NETWORK + "\ndef load_model():\n    return {'no': 'module'}\n")

    with pytest.raises(InputError, match=r"loading gave a dict, not a torch\.nn\.Module"):
        load_module(opened(folder, trust=["yes"]).source)


def test_an_error_in_load_model_is_told_with_its_line(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", code="def load_model():\n    raise ValueError('no such thing')\n")

    with pytest.raises(StepError, match=r"load_model\(\) raised ValueError: no such thing \(model\.py, line 2\)"):
        load_module(opened(folder, trust=["yes"]).source)


def test_a_syntax_error_in_model_py_is_told_with_its_line(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", code="def load_model(:\n    pass\n")

    with pytest.raises(InputError, match=r"model\.py.*line 1"):
        opened(folder, trust=["yes"])


def test_the_file_that_the_commands_own_output_goes_to_is_no_part_of_the_model(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net")
    before = opened(folder, trust=["yes"]).source.digest
    standard_error = os.dup(2)
    try:
        with (folder / "log.txt").open("w") as log:
            os.dup2(log.fileno(), 2)
            log.write("some lines already")
            log.flush()
            during = opened(folder, trust=["yes"]).source.digest
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)

    assert during == before


def test_another_file_that_load_model_may_read_makes_it_another_source(tmp_path: Path) -> None:
    folder = state_dict_folder(tmp_path / "net", extra={"scale.json": "1"})
    before = opened(folder, trust=["yes"]).source
    (folder / "scale.json").write_text("2", encoding="utf-8")

    assert opened(folder, trust=["yes"]).source.digest != before.digest

"""The weights in what training scripts save: nested, prefixed, beside an optimizer and an average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from convkit.errors import InputError
from convkit.pipeline import events
from convkit.sources.torch_module import load_module
from sources.torch_models import NETWORK, defined, network, opened, write_folder

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(events, "warn", lambda code, message: said.append(message))
    return said


def other() -> torch.nn.Module:
    torch.manual_seed(1)
    net: torch.nn.Module = defined(NETWORK, "elsewhere").Net()
    return net


def loaded(folder: Path, content: Any, **options: Any) -> torch.nn.Module:
    write_folder(folder, {"net.py": NETWORK})
    torch.save(content, folder / "model.pth")
    return load_module(opened(folder, model_def=f"{folder / 'net.py'}:Net", **options).source)


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    x = torch.arange(8.0).reshape(2, 4)
    return torch.equal(one(x), two(x))


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def trained() -> dict[str, Any]:
    """What a training script saves: an optimizer that has run, the epoch, options."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return {"optimizer": optimizer.state_dict(), "epoch": 3, "args": {"lr": 0.1, "layers": [1, 2]}}


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "weights"])
def test_weights_are_found_beside_an_optimizer_and_named(key: str, tmp_path: Path, warned: list[str]) -> None:
    made = loaded(tmp_path / "net", {**trained(), key: network().state_dict()})

    assert same(made, network())
    assert warned == [f"model.pth: the weights are those under '{key}'"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.encoder."])
def test_what_a_wrapper_puts_before_every_key_is_taken_off(prefix: str, tmp_path: Path) -> None:
    assert same(loaded(tmp_path / "net", prefixed(prefix, network().state_dict())), network())


def test_a_wrapped_network_with_the_losss_own_weights_is_taken_without_them(tmp_path: Path) -> None:
    state = {**prefixed("model.", network().state_dict()), "criterion.weight": torch.ones(3)}

    assert same(loaded(tmp_path / "net", {"state_dict": state}), network())


def test_torchs_average_of_a_model_is_taken_without_its_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network())
    averaged.update_parameters(network())

    assert same(loaded(tmp_path / "net", averaged.state_dict()), network())


def test_of_a_model_and_its_average_the_model_is_taken_and_the_other_named(tmp_path: Path, warned: list[str]) -> None:
    content = {"model": network().state_dict(), "model_ema": {"module": other().state_dict(), "decay": 0.99}}

    assert same(loaded(tmp_path / "one", content), network())
    assert warned == [
        "model.pth: the weights are those under 'model'; model_ema.module would fit, too: --state-key model_ema.module"
    ]
    assert same(loaded(tmp_path / "two", content, state_key="model_ema.module"), other())


def test_an_average_that_stands_alone_is_taken(tmp_path: Path) -> None:
    assert same(loaded(tmp_path / "net", {"ema_state_dict": other().state_dict(), **trained()}), other())


def test_two_networks_that_fit_are_not_chosen_between(tmp_path: Path) -> None:
    content = {"student": network().state_dict(), "best": other().state_dict()}

    with pytest.raises(InputError, match="several state dicts that fit: student, best") as refused:
        loaded(tmp_path / "net", content)

    assert refused.value.code == "source.state-key"
    assert refused.value.hint == "choose one: --state-key student"


def test_a_key_that_holds_no_weights_is_told_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--state-key ema: model\.pth holds no weights there") as refused:
        loaded(tmp_path / "net", {"model": network().state_dict()}, state_key="ema")

    assert refused.value.hint == "it holds them under: model"


def test_nested_weights_that_do_not_fit_are_told_with_their_keys(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not fit net\.py:Net.*layers\.0\.weight") as refused:
        loaded(tmp_path / "net", {"model": {"a": torch.ones(1)}, "epoch": 1})

    assert refused.value.code == "source.state-dict-mismatch"


def test_a_module_that_lies_whole_in_a_dict_is_taken_from_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", {})
    torch.save({"epoch": 1, "model": network().layers}, folder / "model.pth")

    assert same(load_module(opened(folder).source), network())


def test_a_checkpoint_with_objects_of_the_scripts_own_loads_under_trust(tmp_path: Path) -> None:
    import argparse

    content = {"model": network().state_dict(), "args": argparse.Namespace(lr=0.1)}
    with pytest.raises(InputError, match="cannot be loaded") as refused:
        loaded(tmp_path / "net", content)
    assert "--trust" in refused.value.hint

    source = opened(tmp_path / "net", model_def=f"{tmp_path / 'net' / 'net.py'}:Net", trust=["yes"])
    assert same(load_module(source.source), network())

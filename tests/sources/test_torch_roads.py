"""Where torch.export cannot follow a module, the older exporter is tried, and what is in the way is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from convkit.errors import InputError, StepError
from convkit.pipeline import events
from convkit.sources.torch_export import DYNAMO, SCRIPTED, TRACED
from sources.test_torch import HEAD, ROW, checked, exported, folder_of, tensor
from sources.torch_models import defined, write_folder

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")

X, Y = [tensor("x", "float", ROW)], [tensor("y", "float", ROW)]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told, as it is told."""
    said: list[str] = []
    monkeypatch.setattr(events, "warn", lambda code, message: said.append(f"{code}: {message}"))
    return said


def test_a_network_that_decides_by_its_data_is_scripted_and_keeps_both_branches(
    tmp_path: Path, warned: list[str]
) -> None:
    body = "    def forward(self, x):\n        if x.sum() > 0:\n            return x * 2\n        return x - 1\n"
    made = exported(folder_of(tmp_path / "net", body, X, Y))
    checked(made)

    assert made.exporter == SCRIPTED
    [said] = warned
    assert "export.older-exporter" in said
    assert "data-dependent" in said
    assert "net.py, line 6" in said
    session = onnxruntime.InferenceSession(made.model.path)
    for sign, wanted in ((1, 2.0), (-1, -2.0)):
        [found] = session.run(None, {"x": np.full((2, 3), sign, np.float32)})
        np.testing.assert_allclose(found, np.full((2, 3), wanted))


def test_a_network_that_only_a_trace_can_follow_is_traced(tmp_path: Path, warned: list[str]) -> None:
    body = (
        "    def forward(self, x):\n"
        "        if not torch.jit.is_tracing():\n"
        "            [].pop() if torch.compiler.is_exporting() else None\n"
        "        return x * 2\n"
    )
    made = exported(folder_of(tmp_path / "net", body, X, Y))
    checked(made)

    assert made.exporter == TRACED
    assert "pop from empty list" in warned[0]


def test_what_both_exporters_cannot_follow_is_told_with_module_file_and_line(tmp_path: Path) -> None:
    body = (
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.part = Part()\n"
        "    def forward(self, x):\n"
        "        return self.part(x)\n"
        "\n"
        "class Part(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x * torch.tensor(__import__('json').loads(str(x.tolist())))\n"
    )
    folder = folder_of(tmp_path / "net", body, X, Y)

    with pytest.raises(StepError, match=r"in part \(Part\), net\.py, line 13") as failed:
        exported(folder)

    assert "no trace, since forward() decides by its data at net.py, line 13" in failed.value.message
    assert failed.value.code == "export.failed"


def test_an_operator_without_a_counterpart_is_told_with_its_name_module_and_line(tmp_path: Path) -> None:
    body = "    def forward(self, x):\n        return torch.special.bessel_j0(x)\n"
    folder = folder_of(tmp_path / "net", body, X, Y)

    with pytest.raises(StepError, match=r"operator prims\.bessel_j0\.default") as failed:
        exported(folder)

    assert "net.py, line 6" in failed.value.message
    assert "the older exporter, traced" in failed.value.message


def test_a_network_that_draws_random_numbers_is_refused_with_the_line(tmp_path: Path) -> None:
    body = "    def forward(self, x):\n        return x + torch.rand_like(x)\n"
    folder = folder_of(tmp_path / "net", body, X, Y)

    with pytest.raises(InputError, match=r"random numbers \(RandomUniformLike, net\.py, line 6\)") as refused:
        exported(folder)

    assert refused.value.code == "source.random"


NESTED = """
    def forward(self, pair: tuple, batch: dict, scale=None, *, bias):
        left, right = pair
        assert isinstance(pair, tuple)
        return ((batch["ids"] * 2, (left - right,)), [batch["mask"] + bias])
"""


def test_inputs_go_into_tuples_and_dicts_and_nested_outputs_are_taken_apart(tmp_path: Path) -> None:
    names = ("batch.ids", "batch.mask", "pair.1", "pair.0", "bias")
    inputs = [tensor(name, "float", ROW) for name in names]
    outputs = [tensor(name, "float", ROW) for name in ("doubled", "difference", "shifted")]
    made = exported(folder_of(tmp_path / "net", NESTED, inputs, outputs))
    checked(made)

    case, answer = next(iter(made.samples)), next(iter(made.references))
    assert made.exporter == DYNAMO
    assert [spec.name for spec in made.model.interface.inputs] == list(names)
    np.testing.assert_allclose(answer["doubled"], case["batch.ids"] * 2)
    np.testing.assert_allclose(answer["difference"], case["pair.0"] - case["pair.1"], rtol=1e-6)
    np.testing.assert_allclose(answer["shifted"], case["batch.mask"] + case["bias"], rtol=1e-6)


def test_a_list_of_tensors_keeps_its_order(tmp_path: Path) -> None:
    body = "    def forward(self, many):\n        return many[0] - 2 * many[1] + 0 * many[2]\n"
    inputs = [tensor(f"many.{number}", "float", ROW) for number in (2, 0, 1)]
    made = exported(folder_of(tmp_path / "net", body, inputs, Y))
    checked(made)

    case, answer = next(iter(made.samples)), next(iter(made.references))
    np.testing.assert_allclose(answer["y"], case["many.0"] - 2 * case["many.1"], rtol=1e-5)


def test_whatever_a_forward_takes_by_keyword_is_given_by_keyword(tmp_path: Path) -> None:
    body = "    def forward(self, **given):\n        return given['a'] - 2 * given['b']\n"
    made = exported(folder_of(tmp_path / "net", body, [tensor("b", "float", ROW), tensor("a", "float", ROW)], Y))
    checked(made)

    case, answer = next(iter(made.samples)), next(iter(made.references))
    np.testing.assert_allclose(answer["y"], case["a"] - 2 * case["b"], rtol=1e-5)


SHARED = """
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("passing", torch.ones(3), persistent=False)

    def forward(self, x):
        return self.second(self.first(x - self.mean)) * self.passing
"""


def test_weights_that_two_layers_share_are_written_once_and_buffers_come_along(tmp_path: Path) -> None:
    made = exported(folder_of(tmp_path / "net", SHARED, X, Y))
    proto = checked(made)

    assert made.parameters == 9 + 3 + 3
    assert sum(list(tensor.dims) == [3, 3] for tensor in proto.graph.initializer) == 1


def test_a_module_that_was_saved_for_training_is_exported_for_inference(tmp_path: Path) -> None:
    body = HEAD + "    def forward(self, x):\n        return nn.functional.dropout(x, 0.5, self.training)\n"
    folder = write_folder(tmp_path / "net", {"net.py": body})
    (folder / "config.txt").write_text(json.dumps({"batch_size": 0, "input": X, "output": Y}), encoding="utf-8")
    torch.save(defined(body, "elsewhere").Net().train().state_dict(), folder / "model.pth")

    case = exported(folder)
    np.testing.assert_array_equal(next(iter(case.references))["y"], next(iter(case.samples))["x"])

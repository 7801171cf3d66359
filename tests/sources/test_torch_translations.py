"""Operators of torch's own that its exporter alone does not write, and sums that it would leave out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from convkit.sources.torch_export import DYNAMO
from sources.test_torch import ROW, checked, exported, folder_of, tensor

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")

X, Y = [tensor("x", "float", ROW)], [tensor("y", "float", ROW)]


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["torch._check_tensor_all(x < 1000)", "return x + 1"], [2.0, 3.0, 4.0]),
        (["z = torch.complex(x, x)", "return torch.view_as_real(z.unsqueeze(-1) * z.unsqueeze(-2))[:, 0, :, 1]"], None),
    ],
    ids=["a check on a tensor", "a complex tensor with one dimension more"],
)
def test_torchs_exporter_writes_it(lines: list[str], answer: list[float] | None, tmp_path: Path) -> None:
    body = "    def forward(self, x):\n" + "".join(f"        {line}\n" for line in lines)
    made = exported(folder_of(tmp_path / "net", body, X, Y))
    checked(made)

    assert made.exporter == DYNAMO
    [found] = onnxruntime.InferenceSession(made.model.path).run(None, {"x": np.array([[1, 2, 3]], np.float32)})
    np.testing.assert_allclose(found[0], answer or [2.0, 4.0, 6.0])


@pytest.mark.parametrize("small", ["1e-8", "1e-12"])
def test_a_small_number_that_keeps_a_divisor_from_0_stays(small: str, tmp_path: Path) -> None:
    body = f"    def forward(self, x):\n        return x / (x.abs().amax(-1, keepdim=True) + {small})\n"
    made = exported(folder_of(tmp_path / "net", body, X, Y))
    checked(made)

    [found] = onnxruntime.InferenceSession(made.model.path).run(None, {"x": np.zeros((2, 3), np.float32)})
    assert (found == 0).all()


def test_what_is_split_by_the_batch_is_cut_at_any_batch(tmp_path: Path) -> None:
    body = (
        "    def forward(self, x):\n"
        "        first, second, third = torch.cat([x, 2 * x, 3 * x]).split(x.shape[0])\n"
        "        return first + second * third\n"
    )
    made = exported(folder_of(tmp_path / "net", body, X, Y))
    checked(made)

    assert made.exporter == DYNAMO
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    [found] = onnxruntime.InferenceSession(made.model.path).run(None, {"x": rows})
    np.testing.assert_allclose(found, rows + 6 * rows * rows)

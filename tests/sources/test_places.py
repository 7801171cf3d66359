"""What a runtime does not take is said with the line of the user's code that it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from convkit.errors import StepError
from convkit.sources.places import naming_places
from convkit.targets.trt_api import Flavour
from convkit.targets.trt_findings import refuse
from convkit.targets.trt_preflight import apply_rules
from sources.test_torch import HEAD, ROW, exported, folder_of, tensor

pytestmark = pytest.mark.usefixtures("imports_leave_no_trace")

BODY = """\
    def __init__(self):
        super().__init__()
        self.part = Part()

    def forward(self, x):
        return self.part(x)


class Part(nn.Module):
    def forward(self, x):
        index = torch.zeros_like(x, dtype=torch.int64)
        return x.scatter_reduce(1, index, 2 * x, "amax")
"""


def test_an_operator_that_tensorrt_does_not_take_is_named_with_module_and_line(tmp_path: Path) -> None:
    x, y = [tensor("x", "float", ROW)], [tensor("y", "float", ROW)]
    made = exported(folder_of(tmp_path / "net", BODY, x, y))
    found = apply_rules(made.model, ()).findings
    line = (HEAD + BODY).splitlines().index('        return x.scatter_reduce(1, index, 2 * x, "amax")') + 1

    with pytest.raises(StepError) as raised, naming_places(made.places):
        refuse(found, Flavour.TENSORRT)

    assert f"(ScatterElements, in part (Part), net.py, line {line}): TensorRT does not scatter" in raised.value.message
    assert str(raised.value) == raised.value.message


def test_what_names_no_node_stays_as_it_is() -> None:
    with pytest.raises(StepError, match=r"^disk full$"), naming_places({"disk": "net.py, line 1"}):
        raise StepError("disk full", hint="", code="step.failed")


def test_a_place_holds_no_path_of_this_machine(tmp_path: Path) -> None:
    x, y = [tensor("x", "float", ROW)], [tensor("y", "float", ROW)]
    made = exported(folder_of(tmp_path / "net", BODY, x, y))

    assert made.places
    assert not any(str(tmp_path) in place for place in made.places.values())

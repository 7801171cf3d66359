"""What is taken is not found fault with: onnx's own cases that the real parser takes, and networks of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from targets.tensorrt_networks import SYMMETRIC, conv_network, quantized

from convkit.graph.model import Model, save_model
from convkit.pipeline.artifact import gather
from convkit.sources.unchecked import take_unchecked
from convkit.spec.options import ExportOptions
from convkit.spec.tensor import Interface
from convkit.targets.finding import Finding, Weight
from convkit.targets.trt_options import TensorRTOptions
from convkit.targets.trt_parse import parse_rtx
from convkit.targets.trt_preflight import apply_rules
from convkit.targets.trt_profiles import profiles_for
from preflight.measure_operators import cases, parse, with_constants

FALSE_ALARMS = {"test_clip_default_int8_min"}
"""Cases that the parser takes and a rule refuses: Clip of int8 is taken with a lower bound alone."""
FOUND_SHARE = 0.97
"""Of onnx's cases that the parser refuses, the least that the rules alone must find."""


def errors(model: Model) -> list[Finding]:
    """What the rules alone refuse, of what a parser could have seen."""
    found = apply_rules(model, profiles_for(model.interface, TensorRTOptions())).findings
    return [finding for finding in found if finding.severity is Weight.ERROR]


def test_of_what_the_parser_takes_the_rules_refuse_nothing_and_of_what_it_refuses_they_find_nearly_all() -> None:
    false, found, missed = set(), 0, []
    for case in cases():
        later = [index for index, value in enumerate(case.values) if index and isinstance(value, np.ndarray)]
        later = [index for index in later if case.values[index].dtype.kind != "O"]
        for model in [case.model, *([with_constants(case, later)] if later else [])]:
            taken, _ = parse(model)
            refused = errors(save_model(onnx.ModelProto.FromString(model), Interface(inputs=(), outputs=())))
            if taken and any(not finding.beyond_parser for finding in refused):
                false.add(case.name)
            elif not taken and refused:
                found += 1
            elif not taken:
                missed.append(case.name)

    print(f"\nof onnx's cases that the parser refuses, the rules find {found} of {found + len(missed)}")
    assert false <= FALSE_ALARMS
    assert found / (found + len(missed)) >= FOUND_SHARE, missed


def test_networks_that_are_taken_are_not_found_fault_with(tmp_path: Path) -> None:
    symmetric = quantized(conv_network(), tmp_path, per_channel=True, extra_options=SYMMETRIC)
    for proto in (conv_network(), conv_network(batch=4), symmetric):
        onnx.save(proto, str(tmp_path / "network.onnx"))
        model = taken(tmp_path / "network.onnx")

        assert parse_rtx(model).findings == ()
        assert errors(model) == []


def taken(path: Path) -> Model:
    files = gather(path.parent, [path.name])
    return take_unchecked(files, file=path.name, metadata=None, options=ExportOptions())


@pytest.mark.rtx
def test_modules_of_torch_are_not_found_fault_with(tmp_path: Path) -> None:
    from preflight.modules import exported

    for path in exported(tmp_path):
        model = taken(path)

        assert parse_rtx(model).findings == (), path.name
        assert errors(model) == [], path.name

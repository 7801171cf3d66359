"""Finding the node at fault."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from convkit.graph.model import Model, Tensors, save_model, save_tensors
from convkit.graph.present import interface_of
from convkit.measure.bisect import Bisection, bisect
from convkit.spec.options import CheckOptions
from tests.compare.random_graphs import RandomGraph, plant_fault


def saved(proto: onnx.ModelProto) -> Model:
    return save_model(proto, interface_of(proto))


def images(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return save_tensors([{"image": rng.normal(size=(rows, 4, 6, 6)).astype(np.float32)} for rows in (1, 3)])


def test_of_fifty_planted_faults_at_least_48_are_named_in_about_log2_n_runs() -> None:
    missed = []
    for seed in range(50):
        model = RandomGraph(seed).model
        spoilt, node = plant_fault(model, np.random.default_rng(seed))

        found = bisect(saved(model), saved(spoilt), samples=images(seed), options=CheckOptions())

        assert 10 <= len(model.graph.node) <= 60
        assert found.runs <= math.ceil(math.log2(found.tensors)) + 2
        if found.found is None or found.found.node != node:
            missed.append((seed, node, found.found and found.found.node))
    assert len(missed) <= 2, missed

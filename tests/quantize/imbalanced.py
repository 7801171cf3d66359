"""Small networks whose channels differ in range by orders of magnitude, and what INT8 makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from convkit.graph.model import Model, load_model, save_model
from convkit.graph.present import interface_of
from convkit.graph.quant_profile import QuantProfile
from convkit.pipeline.artifact import Artifact, gather, new_folder
from convkit.quantize.calibrate import collect_ranges
from convkit.quantize.ranges import Ranges
from convkit.quantize.static import quantize_static
from convkit.spec.options import CalibrationMethod

Feeds = Mapping[str, np.ndarray]


def tensor(name: str, values: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def uneven(channels: int, *, decades: float = 2.0, seed: int = 0) -> np.ndarray:
    """Factors that lie so many powers of ten apart."""
    factors: np.ndarray = 10 ** np.linspace(-decades / 2, decades / 2, channels)
    return np.random.default_rng(seed).permutation(factors).astype(np.float32)


def saved(proto: onnx.ModelProto) -> Model:
    onnx.checker.check_model(proto, full_check=True)
    return save_model(proto, interface_of(proto))


def kept_data(feeds: Feeds) -> Artifact:
    folder = new_folder("data")
    np.savez(folder / "data.npz", **feeds)
    return gather(folder)


def ranges_of(model: Model, feeds: Feeds) -> Ranges:
    return collect_ranges(model, data=kept_data(feeds), samples=len(next(iter(feeds.values()))))


def answers(model: Model, feeds: Feeds) -> np.ndarray:
    """All outputs, as one vector of float64."""
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    return np.concatenate([array.ravel() for array in session.run(None, dict(feeds))]).astype(np.float64)


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / max(((expected - found) ** 2).sum(), 1e-30)))


def int8_db(model: Model, profile: QuantProfile, feeds: Feeds) -> float:
    """How exact the model's answers are in INT8, by min-max."""
    quantized = quantize_static(
        model, ranges=ranges_of(model, feeds), profile=profile, method=CalibrationMethod.MINMAX
    ).model
    return sqnr_db(answers(model, feeds), answers(quantized, feeds))


def require_same_numbers(model: Model, repaired: Model, feeds: Feeds) -> None:
    """The graph as it was, with other weights, which give the same numbers within the rounding of float32."""
    onnx.checker.check_model(repaired.path, full_check=True)
    assert repaired.interface == model.interface
    expected = answers(model, feeds)
    np.testing.assert_allclose(answers(repaired, feeds), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    before, after = (
        [(each.op_type, list(each.output)) for each in load_model(m).graph.node] for m in (model, repaired)
    )
    assert [each for each in before if each[0] not in ("Constant", "Identity", "Transpose")] == [
        each for each in after if each[0] not in ("Constant", "Identity", "Transpose")
    ]


def constants(model: Model) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in load_model(model).graph.initializer}

"""What convkit writes into config.pbtxt, read and served by a real Triton 24.10."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from convkit.serving.triton import ServingOptions, Warmup, WarmupInput, render, wire_bytes
from convkit.spec.tensor import DType, Interface
from triton_server import models
from triton_server.client import PROTOCOLS, Protocol, infer
from triton_server.models import ONNX_TYPES, RELU, interface, tensor
from triton_server.server import ServerFailedError, TritonServer, validate_config

pytestmark = pytest.mark.triton

SAMPLE = np.linspace(-3, 3, 12, dtype=np.float32).reshape(4, 3)

SCALED = interface(
    [tensor("x", DType.FLOAT32, "n", 2), tensor("scale", DType.FLOAT32)],
    [tensor("y", DType.FLOAT32, "n", 2), tensor("echo", DType.FLOAT32)],
)
"""y = x · scale, where scale is a scalar; no batch."""

SUMMED = interface(
    [tensor("x", DType.FLOAT32, "batch", 3), tensor("offset", DType.FLOAT32, "batch")],
    [tensor("sum", DType.FLOAT32, "batch")],
    max_batch_size=4,
)
"""One number for each sample goes in and comes out: Triton's dims would be empty."""


def scaled() -> object:
    return models.graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"]), helper.make_node("Identity", ["scale"], ["echo"])], SCALED
    )


def summed() -> object:
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["rows"], keepdims=0),
        helper.make_node("Add", ["rows", "offset"], ["sum"]),
    ]
    model = models.graph(nodes, SUMMED)
    model.graph.initializer.append(helper.make_tensor("axes", DType.INT64.onnx, [1], [1]))
    return model


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server that was told to prefer `configs/cpu.pbtxt`."""
    folder = tmp_path_factory.mktemp("repository")
    models.write(folder, "scaled", scaled(), SCALED)
    models.write(folder, "summed", summed(), SUMMED)
    models.write_plan(folder, "plan", models.relu(), RELU)
    with TritonServer(folder, config_name="cpu") as running:
        yield running


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_scalar_is_served_as_a_tensor_of_one_element(server: TritonServer, protocol: Protocol) -> None:
    x = SAMPLE[:2, :2]

    answer = infer(server, protocol, "scaled", {"x": x, "scale": np.array([3], np.float32)})

    np.testing.assert_array_equal(answer["y"], x * 3)
    np.testing.assert_array_equal(answer["echo"], np.array([3], np.float32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_number_for_each_sample_is_served_in_a_dimension_of_its_own(
    server: TritonServer, protocol: Protocol
) -> None:
    offset = np.arange(4, dtype=np.float32).reshape(4, 1)

    answer = infer(server, protocol, "summed", {"x": SAMPLE, "offset": offset})

    np.testing.assert_allclose(answer["sum"].reshape(-1), SAMPLE.sum(axis=1) + offset.reshape(-1), rtol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_engines_repository_is_served_without_a_gpu_from_the_onnx_model_it_keeps(
    server: TritonServer, protocol: Protocol
) -> None:
    answer = infer(server, protocol, "plan", {"x:0": SAMPLE})

    np.testing.assert_array_equal(answer["y:0"], SAMPLE.clip(min=0))


def test_an_engines_main_configuration_passes_the_servers_checks(tmp_path: Path) -> None:
    options = ServingOptions(gpus=(0,), instances=2, preferred_batch_sizes=(4, 8), version_policy=(1,))
    models.write_plan(tmp_path, "plan", models.relu(), RELU, options=options)

    assert validate_config(tmp_path, "plan") is None


def test_the_validation_names_what_the_server_has_against_a_configuration(tmp_path: Path) -> None:
    models.write_plan(tmp_path, "plan", models.relu(), RELU)
    path = tmp_path / "plan" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_queue_delay_microseconds: 100", "preferred_batch_size: 16"))

    reason = validate_config(tmp_path, "plan")

    assert reason is not None
    assert "dynamic batching preferred size must be <= max batch size" in reason


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TritonServer, Path]]:
    """A server that loads what it is told to, and the repository to write into."""
    folder = tmp_path_factory.mktemp("loaded")
    with TritonServer(folder, model_control="explicit", extra_args=["--disable-auto-complete-config"]) as running:
        yield running, folder


OPTIONS = {
    "plain": ServingOptions(),
    "all_versions": ServingOptions(version_policy="all"),
    "listed_version": ServingOptions(version_policy=(1,)),
    "two_instances": ServingOptions(instances=2),
    "preferred": ServingOptions(preferred_batch_sizes=(2, 8), max_queue_delay_us=0),
    "no_batcher": ServingOptions(dynamic_batching=False),
    "threads": ServingOptions(intra_op_threads=1, inter_op_threads=2),
    "graph_none": ServingOptions(graph_optimization="none"),
    "graph_basic": ServingOptions(graph_optimization="basic"),
    "graph_extended": ServingOptions(graph_optimization="extended"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_accepted_and_the_model_answers(loader: tuple[TritonServer, Path], name: str) -> None:
    server, folder = loader
    models.write(folder, name, models.relu(), RELU, options=OPTIONS[name])

    server.load(name)

    answer = infer(server, "http", name, {"x:0": SAMPLE})
    np.testing.assert_array_equal(answer["y:0"], SAMPLE.clip(min=0))
    server.unload(name)


def test_the_server_sees_the_configuration_that_was_written(loader: tuple[TritonServer, Path]) -> None:
    import tritonclient.grpc

    server, folder = loader
    written = models.write(folder, "seen", models.relu(), RELU, options=OPTIONS["preferred"])
    server.load("seen")

    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        seen = client.get_model_config("seen").config

    for field in ("name", "max_batch_size", "input", "output", "dynamic_batching", "version_policy", "backend"):
        assert getattr(seen, field) == getattr(written, field), field


WARM_VALUES = {DType.BOOL: [True, False, True], DType.STRING: ["", "größer", "x" * 300]}


def warm_model(folder: Path, name: str, *, batched: bool) -> Interface:
    """Write a model that takes every type, with one warm-up of real data for each."""
    lead: tuple[int | str, ...] = ("batch",) if batched else ()
    face = interface(
        [tensor(f"in_{each.value}", each, *lead, 3) for each in ONNX_TYPES],
        [tensor(f"out_{each.value}", each, *lead, 3) for each in ONNX_TYPES],
        max_batch_size=4 if batched else 0,
    )
    (folder / name / "warmup").mkdir(parents=True)
    inputs = {}
    for each in ONNX_TYPES:
        values = np.array(WARM_VALUES.get(each, [1, 2, 3]), dtype=np.dtype(each.numpy))
        (folder / name / "warmup" / each.value).write_bytes(wire_bytes(values))
        inputs[f"in_{each.value}"] = WarmupInput(dtype=each, dims=(3,), file=each.value)
    nodes = [helper.make_node("Identity", [f"in_{each.value}"], [f"out_{each.value}"]) for each in ONNX_TYPES]
    warmups = [Warmup(name="sample", batch_size=4 if batched else 1, inputs=inputs)]
    models.write(folder, name, models.graph(nodes, face), face, warmups=warmups)
    return face


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "unbatched"])
def test_a_warm_up_with_real_data_of_every_type_runs(loader: tuple[TritonServer, Path], batched: bool) -> None:
    server, folder = loader
    name = f"warm_{batched}"
    warm_model(folder, name, batched=batched)

    server.load(name)

    assert executions(server, name) == 1


def test_a_warm_up_whose_data_are_missing_is_refused_by_the_server(loader: tuple[TritonServer, Path]) -> None:
    server, folder = loader
    warm_model(folder, "cold", batched=True)
    (folder / "cold" / "warmup" / "string").unlink()

    with pytest.raises(ServerFailedError, match="warmup/string"):
        server.load("cold")


def test_a_scalar_can_be_warmed_up(loader: tuple[TritonServer, Path]) -> None:
    server, folder = loader
    (folder / "scalar" / "warmup").mkdir(parents=True)
    (folder / "scalar" / "warmup" / "x").write_bytes(wire_bytes(SAMPLE[:2, :2]))
    (folder / "scalar" / "warmup" / "scale").write_bytes(wire_bytes(np.array(2, np.float32)))
    inputs = {
        "x": WarmupInput(dtype=DType.FLOAT32, dims=(2, 2), file="x"),
        "scale": WarmupInput(dtype=DType.FLOAT32, dims=(), file="scale"),
    }
    models.write(folder, "scalar", scaled(), SCALED, warmups=[Warmup(name="sample", inputs=inputs)])

    server.load("scalar")

    assert executions(server, "scalar") == 1


def executions(server: TritonServer, name: str) -> int:
    """Count how often the server has run a model."""
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(server.http_url) as client:
        statistics = client.get_inference_statistics(name)
    return int(statistics["model_stats"][0]["execution_count"])


@pytest.mark.parametrize("fault", ["doubled_input", "batcher_without_batch"])
def test_the_server_says_nothing_to_faults_that_only_convkit_finds(
    loader: tuple[TritonServer, Path], fault: str
) -> None:
    server, folder = loader
    unbatched = Interface(inputs=RELU.inputs, outputs=RELU.outputs)
    config = models.write(folder, fault, models.relu(), RELU if fault == "doubled_input" else unbatched)
    if fault == "doubled_input":
        config.input.append(config.input[0])
    else:
        config.dynamic_batching.SetInParent()
    (folder / fault / "config.pbtxt").write_text(render(config))

    server.load(fault)

    assert server.is_ready(fault)

"""`--accelerator`: what ONNX Runtime hands a graph to in Triton, and what a real Triton 24.10 says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from triton_server.client import infer
from triton_server.server import TritonServer, validate_config

import convkit
from convkit.errors import UsageError
from convkit.serving.triton import parse
from targets.tensorrt_networks import conv_network, network

pytest.importorskip("tensorrt_rtx")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Made:
    """A model that was converted: its folder, its configuration, and what was warned of."""

    def __init__(
        self, proto: onnx.ModelProto, folder: Path, cache: Path, precision: str = "none", **onnxruntime: Any
    ) -> None:
        path = folder / "net.onnx"
        onnx.save(proto, path)
        self.report = convkit.convert(
            path,
            output=folder / "models",
            cache=cache,
            measure={"mode": "none"},
            quantize={"precision": precision, "allow_random": precision == "int8"},
            onnxruntime=onnxruntime,
        )
        self.repository = folder / "models"
        self.folder = self.repository / "net"
        self.config: Any = parse((self.folder / "config.pbtxt").read_text(encoding="utf-8"))
        self.warnings = {warning.code: warning.message for warning in self.report.warnings}

    @property
    def parameters(self) -> dict[str, str]:
        (accelerator,) = self.config.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        return dict(accelerator.parameters)


@pytest.mark.triton
@pytest.mark.parametrize(("precision", "mode"), [("none", "FP32"), ("fp16", "FP16"), ("int8", "INT8")])
def test_tensorrt_is_told_precision_cache_and_shapes_and_the_server_takes_it(
    precision: str, mode: str, tmp_path: Path, cache: Path
) -> None:
    made = Made(conv_network(), tmp_path, cache, precision, accelerator="tensorrt")

    parameters = made.parameters
    assert parameters.pop("trt_engine_cache_path").startswith("/var/tmp/convkit-")
    assert parameters == {
        "precision_mode": mode,
        "trt_engine_cache_enable": "1",
        "trt_profile_min_shapes": "x:1x3x16x16",
        "trt_profile_opt_shapes": "x:8x3x16x16",
        "trt_profile_max_shapes": "x:8x3x16x16",
    }
    (group,) = made.config.instance_group
    assert group.kind == group.KIND_GPU
    assert [warmup.batch_size for warmup in made.config.model_warmup] == [1, 8]
    assert validate_config(made.repository, "net") is None
    assert validate_config(made.repository, "net", config_name="cpu") is None


def test_its_int8_is_what_tensorrt_reads(tmp_path: Path, cache: Path) -> None:
    made = Made(conv_network(), tmp_path, cache, "int8", accelerator="tensorrt")

    graph = onnx.load(made.folder / "1" / "model.onnx").graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    for node in quantizers:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    weights = [
        constants[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    ]
    assert weights
    assert {array.dtype for array in weights} == {np.dtype(np.int8)}


@pytest.mark.triton
def test_on_a_machine_without_a_gpu_the_same_repository_answers_and_is_warmed_up(tmp_path: Path, cache: Path) -> None:
    made = Made(conv_network(), tmp_path, cache, accelerator="tensorrt")
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)

    with TritonServer(made.repository, config_name="cpu") as server:
        answer = infer(server, "http", "net", {"x": images})

    assert answer["y"].shape == (3, 10)
    on_cpu: Any = parse((made.folder / "configs" / "cpu.pbtxt").read_text(encoding="utf-8"))
    assert not on_cpu.optimization.HasField("execution_accelerators")


def test_what_the_recipe_says_of_the_engine_is_passed_on(tmp_path: Path, cache: Path) -> None:
    profiles = [
        {"x": {"min": [1, 3, 16, 16], "opt": [1, 3, 16, 16], "max": [1, 3, 16, 16]}},
        {"x": {"min": [2, 3, 16, 16], "opt": [8, 3, 16, 16], "max": [16, 3, 16, 16]}},
    ]
    table = {
        "engine_cache": "/engines",
        "timing_cache": True,
        "profiles": profiles,
        "workspace": "1GiB",
        "builder_optimization_level": 5,
    }

    made = Made(conv_network(), tmp_path, cache, accelerator="tensorrt", **table)

    parameters = made.parameters
    assert parameters["trt_profile_max_shapes"] == "x:1x3x16x16,x:16x3x16x16"
    assert parameters["max_workspace_size_bytes"] == str(2**30)
    assert parameters["trt_builder_optimization_level"] == "5"
    assert parameters["trt_engine_cache_path"].startswith("/engines/convkit-")
    assert parameters["trt_timing_cache_enable"] == "1"
    assert "the first of several profiles alone" in made.warnings["tensorrt.one-profile"]


def test_other_weights_get_another_folder_for_their_engine(tmp_path: Path, cache: Path) -> None:
    retrained = conv_network()
    weights = numpy_helper.to_array(retrained.graph.initializer[0])
    retrained.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights + 1, retrained.graph.initializer[0].name))
    folders = [tmp_path / name for name in ("first", "again", "retrained")]
    for folder in folders:
        folder.mkdir()

    first, again, other = (
        Made(proto, folder, cache, accelerator="tensorrt").parameters["trt_engine_cache_path"]
        for proto, folder in zip((conv_network(), conv_network(), retrained), folders, strict=True)
    )

    assert first == again
    assert first != other


def test_a_name_that_a_profile_cannot_hold_leaves_the_profiles_out(tmp_path: Path, cache: Path) -> None:
    node = helper.make_node("Relu", ["input_1:0"], ["y"], name="relu")
    proto = network([node], {"input_1:0": ["batch", 4]}, {"y": ["batch", 4]})

    made = Made(proto, tmp_path, cache, accelerator="tensorrt")

    assert not [name for name in made.parameters if name.startswith("trt_profile")]
    assert "'input_1:0'" in made.warnings["tensorrt.no-profiles"]


def test_a_graph_that_tensorrt_takes_in_part_is_served_without_profiles(tmp_path: Path, cache: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Det", ["r"], ["d"], name="determinant"),
        helper.make_node("Relu", ["d"], ["y"], name="last"),
    ]
    proto = network(nodes, {"x": ["batch", 3, 4, 4]}, {"y": ["batch", 3]})

    made = Made(proto, tmp_path, cache, accelerator="tensorrt")

    assert not [name for name in made.parameters if name.startswith("trt_profile")]
    assert "Det" in made.warnings["tensorrt.split"]
    assert "tensorrt.no-profiles" in made.warnings


@pytest.mark.triton
def test_cuda_is_nothing_but_instances_on_a_gpu(tmp_path: Path, cache: Path) -> None:
    made = Made(conv_network(), tmp_path, cache, "fp16", accelerator="cuda")

    assert not made.config.HasField("optimization")
    assert made.config.instance_group[0].kind == made.config.instance_group[0].KIND_GPU
    assert (made.folder / "configs" / "cpu.pbtxt").exists()
    assert validate_config(made.repository, "net") is None


@pytest.mark.triton
def test_openvino_runs_on_the_cpu(tmp_path: Path, cache: Path) -> None:
    made = Made(conv_network(), tmp_path, cache, "int8", accelerator="openvino")

    (accelerator,) = made.config.optimization.execution_accelerators.cpu_execution_accelerator
    assert (accelerator.name, dict(accelerator.parameters)) == ("openvino", {})
    assert made.config.instance_group[0].kind == made.config.instance_group[0].KIND_CPU
    assert not (made.folder / "configs").exists()
    assert validate_config(made.repository, "net") is None


@pytest.mark.parametrize(
    ("accelerator", "options", "said"),
    [
        ("tensorrt", {"to": "tensorrt"}, "it is ONNX Runtime"),
        ("tensorrt", {"triton": {"kind": "cpu"}}, "works on a GPU"),
        ("openvino", {"triton": {"kind": "gpu"}}, "works on a CPU"),
        ("tensorrt", {"triton": {"warmup": False}}, "first caller would wait"),
        ("tensorrt", {"triton": {"version_policy": "all"}}, "by names and not by weights"),
        ("tensorrt", {"onnxruntime": {"engine_cache": "engines"}}, "wherever the server was started"),
        ("tensorrt", {"engine": "now"}, "has no engine"),
        ("tensorrt", {"onnxruntime": {"workspace": "much"}}, "not a size"),
        ("tensorrt", {"gates": {"min_speedup": 2.0}}, "never runs beside"),
        ("tensorrt", {"gates": {"max_latency": 5.0}}, "does not run its engines"),
        ("openvino", {"gates": {"max_latency": 5.0}}, "does not run its engines"),
        *(
            (name, {"quantize": {"precision": precision}}, precision)
            for name, precisions in (
                ("tensorrt", ("dynamic", "bf16", "int8+fp16", "fp8", "int4")),
                ("cuda", ("dynamic", "int8", "int8+fp16", "bf16", "fp8")),
                ("openvino", ("dynamic", "fp16", "int4", "fp8")),
            )
            for precision in precisions
        ),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_runs(
    accelerator: str, options: dict[str, Any], said: str, tmp_path: Path, cache: Path
) -> None:
    onnx.save(conv_network(), tmp_path / "net.onnx")
    table = {"accelerator": accelerator, **options.pop("onnxruntime", {})}

    with pytest.raises(UsageError) as refused:
        convkit.convert(tmp_path / "net.onnx", output=tmp_path / "models", cache=cache, onnxruntime=table, **options)

    assert said in refused.value.message
    assert refused.value.hint
    assert not (tmp_path / "models").exists()

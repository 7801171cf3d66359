"""What convkit says of TensorRT plans, read by a real Triton 24.10, which without a GPU misses its backend only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convkit.errors import InputError, UsageError
from convkit.serving.engine_names import same_but_names, with_names
from convkit.serving.triton import ServingOptions, cpu_config, model_config, parse, render
from convkit.spec.tensor import DType, Interface
from convkit.targets.trt_options import ShapeRange
from convkit.targets.trt_profiles import Profile
from triton_server.models import interface, tensor
from triton_server.server import validate_config

FACE = interface(
    [tensor("image", DType.FLOAT32, "batch", 3, "side", "side"), tensor("scale", DType.FLOAT32, "batch")],
    [tensor("scores", DType.FLOAT32, "batch", 10)],
    max_batch_size=16,
)


def profile(usual: int, most: int, side: int) -> Profile:
    shapes = [(rows, 3, size, size) for rows, size in ((1, 32), (usual, side), (most, 2 * side))]
    numbers = [shape[:1] for shape in shapes]
    return Profile(
        shapes={
            name: ShapeRange(min=low, opt=opt, max=high)
            for name, (low, opt, high) in (("image", shapes), ("scale", numbers))
        }
    )


TWO = (profile(1, 4, 64), profile(8, 16, 224))


def plan_config(
    face: Interface = FACE, options: ServingOptions | None = None, profiles: tuple[Profile, ...] = TWO, **more: Any
) -> Any:
    return model_config(
        name="plan",
        interface=face,
        backend="tensorrt",
        filename="model.plan",
        gpu=True,
        options=options,
        profiles=profiles,
        **more,
    )


def refused_by_triton(config: Any, folder: Path, *, config_name: str | None = None) -> str | None:
    version = folder / "plan" / "1"
    version.mkdir(parents=True)
    for name in {config.default_model_filename, *config.cc_model_filenames.values()}:
        (version / name).write_bytes(b"a plan")
    (folder / "plan" / "config.pbtxt").write_text(render(config), encoding="utf-8")
    return validate_config(folder, "plan", config_name=config_name)


def test_an_instance_is_offered_every_profile_and_batches_are_the_ones_it_is_fastest_at() -> None:
    config = plan_config(options=ServingOptions(instances=2, gpus=(0, 1)))

    [group] = config.instance_group
    assert (list(group.profile), group.count, list(group.gpus)) == (["0", "1"], 2, [0, 1])
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert not config.HasField("optimization")
    assert not list(plan_config(profiles=TWO[:1]).instance_group[0].profile), "the only one is the default"
    chosen = plan_config(options=ServingOptions(preferred_batch_sizes=(4,)))
    assert list(chosen.dynamic_batching.preferred_batch_size) == [4]


def test_cuda_graphs_are_captured_of_the_usual_shapes_where_the_server_cannot_know_them() -> None:
    cuda = plan_config(options=ServingOptions(cuda_graphs=True)).optimization.cuda

    assert cuda.graphs
    shapes = [
        (each.batch_size, list(each.input["image"].dim), list(each.input["scale"].dim)) for each in cuda.graph_spec
    ]
    assert shapes == [(1, [3, 64, 64], []), (1, [3, 224, 224], []), (8, [3, 224, 224], [])]
    fixed = interface([tensor("x", DType.FLOAT32, "n", 3)], [tensor("y", DType.FLOAT32, "n", 3)], max_batch_size=8)
    of_rows = Profile(shapes={"x": ShapeRange(min=(1, 3), opt=(8, 3), max=(8, 3))})
    assert not plan_config(fixed, ServingOptions(cuda_graphs=True), (of_rows,)).optimization.cuda.graph_spec


def test_cuda_graphs_of_another_runtime_are_refused() -> None:
    with pytest.raises(UsageError, match="cuda_graphs is for TensorRT engines"):
        model_config(
            name="net",
            interface=FACE,
            backend="onnxruntime",
            filename="model.onnx",
            gpu=False,
            options=ServingOptions(cuda_graphs=True),
        )


def test_a_shape_tensor_is_marked_and_has_no_batch_in_front() -> None:
    face = interface(
        [tensor("x", DType.FLOAT32, "rows", 6), tensor("shape", DType.INT32, 2)],
        [tensor("y", DType.FLOAT32, "height", "width")],
    )

    config = plan_config(face, profiles=(), shape_tensors=("shape",))

    assert [each.is_shape_tensor for each in config.input] == [False, True]
    assert not any(each.is_shape_tensor for each in cpu_config(config).input), "ONNX Runtime has none"
    with pytest.raises(InputError) as refused:
        plan_config(shape_tensors=("scale",))
    assert refused.value.code == "triton.shape-tensor"


@pytest.mark.triton
def test_triton_takes_every_field_of_a_plan(tmp_path: Path) -> None:
    options = ServingOptions(instances=2, cuda_graphs=True, version_policy=(1, 3))
    names = {"8.9": "model.plan", "9.0": "model_sm90.plan"}
    config = parse(with_names(render(plan_config(options=options)).encode(), names).decode())
    assert dict(config.cc_model_filenames) == names
    assert config.input[1].HasField("reshape"), "a number for each sample"

    assert refused_by_triton(config, tmp_path) is None


@pytest.mark.triton
def test_triton_takes_a_plan_with_a_shape_tensor(tmp_path: Path) -> None:
    face = interface(
        [tensor("x", DType.FLOAT32, "rows", 6), tensor("shape", DType.INT32, 2)],
        [tensor("y", DType.FLOAT32, "height", "width")],
    )

    assert refused_by_triton(plan_config(face, profiles=(), shape_tensors=("shape",)), tmp_path) is None


@pytest.mark.triton
def test_triton_would_refuse_a_graph_above_the_largest_batch_or_an_unknown_kind(tmp_path: Path) -> None:
    config = plan_config()
    config.dynamic_batching.preferred_batch_size.append(17)

    assert "preferred" in (refused_by_triton(config, tmp_path) or "")


def test_names_of_plans_are_no_difference_between_configurations() -> None:
    one = render(plan_config()).encode()
    other = with_names(one, {"8.9": "model.plan", "9.0": "model_sm90.plan"})

    assert one != other
    assert same_but_names(other, one)
    assert not same_but_names(other, render(plan_config(options=ServingOptions(instances=2))).encode())
    assert with_names(one, {"8.9": "model.plan"}) == one, "a single one has the default name"

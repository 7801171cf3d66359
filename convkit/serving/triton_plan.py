"""What a configuration says of a TensorRT plan alone: its profiles, CUDA graphs, shape tensors.

model_config.proto and https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/\
model_configuration.html
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from convkit.errors import InputError
from convkit.serving.triton_text import ModelConfig
from convkit.spec.tensor import Interface
from convkit.targets.trt_profiles import Profile


def describe_plan(
    config: ModelConfig,
    interface: Interface,
    profiles: Sequence[Profile],
    *,
    cuda_graphs: bool,
    shape_tensors: Collection[str] = (),
) -> None:
    """Set the fields of a plan in a configuration that is otherwise complete.

    Args:
        config: is changed.
        interface: what the plan takes, with the batch in front.
        profiles: the shapes that it is built for; empty where they are fixed.
        cuda_graphs: whether the server captures CUDA graphs of it.
        shape_tensors: inputs and outputs whose values are shapes.

    Raises:
        InputError: a shape tensor in a model with a batch dimension.
    """
    _offer_profiles(config, profiles)
    _prefer_batches(config, interface, profiles)
    _mark_shape_tensors(config, shape_tensors)
    if cuda_graphs:
        config.optimization.cuda.graphs = True
        _specify_graphs(config, interface, profiles)


def _offer_profiles(config: ModelConfig, profiles: Sequence[Profile]) -> None:
    """Let every instance choose among all profiles: else it knows the first alone."""
    if len(profiles) > 1:
        for group in config.instance_group:
            group.profile.extend(str(number) for number in range(len(profiles)))


def _prefer_batches(config: ModelConfig, interface: Interface, profiles: Sequence[Profile]) -> None:
    """Send off at once what the engine is fastest at, unless the recipe has batch sizes of its own."""
    if not config.HasField("dynamic_batching") or config.dynamic_batching.preferred_batch_size:
        return
    batched = [spec.name for spec in interface.inputs if spec.dims and isinstance(spec.dims[0], str)]
    fastest = {profile.shapes[name].opt[0] for profile in profiles for name in batched[:1]}
    sizes = sorted(size for size in fastest if 1 < size <= config.max_batch_size)
    config.dynamic_batching.preferred_batch_size.extend(sizes)


def _mark_shape_tensors(config: ModelConfig, names: Collection[str]) -> None:
    for tensor in (*config.input, *config.output):
        if tensor.name in names:
            if config.max_batch_size:
                raise InputError(
                    f"'{tensor.name}' holds a shape, which has no batch in front, and max_batch_size is "
                    f"{config.max_batch_size}",
                    hint="set batch_size to 0 in config.txt (--max-batch-size 0)",
                    code="triton.shape-tensor",
                )
            tensor.is_shape_tensor = True


def _specify_graphs(config: ModelConfig, interface: Interface, profiles: Sequence[Profile]) -> None:
    """Name the shapes of which graphs are captured, where the server cannot know them: the profiles' usual ones.

    Of a model whose batch alone is dynamic the server captures its own choice of batch sizes.
    """
    batched = config.max_batch_size > 0
    inner = [dim for spec in interface.inputs for dim in (spec.dims[1:] if batched else spec.dims)]
    if not any(isinstance(dim, str) for dim in inner):
        return
    for profile in profiles:
        usual = {
            spec.name: profile.shapes[spec.name].opt if spec.name in profile.shapes else _fixed(spec.dims)
            for spec in interface.inputs
        }
        rows = next(iter(usual.values()))[0] if batched else 0
        for batch in sorted({1, min(rows, config.max_batch_size)} if batched else {0}):
            if batched and not _takes(profile, batch):
                continue
            graph = config.optimization.cuda.graph_spec.add(batch_size=batch)
            for name, shape in usual.items():
                graph.input[name].dim.extend(shape[1:] if batched else shape)


def _fixed(dims: tuple[int | str, ...]) -> tuple[int, ...]:
    return tuple(dim for dim in dims if isinstance(dim, int))


def _takes(profile: Profile, batch: int) -> bool:
    return all(shapes.min[0] <= batch <= shapes.max[0] for shapes in profile.shapes.values())

"""Which classes of transformers there are, and a tiny one of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

TEXT_TYPES = ("MASKED_LM", "TEXT_ENCODING")
"""The tasks by which a type of model is a text encoder."""
TEXT_TASKS = ("MASKED_LM", "TEXT_ENCODING", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "QUESTION_ANSWERING")
VISION_TASKS = (
    "IMAGE",
    "IMAGE_CLASSIFICATION",
    "BACKBONE",
    "SEMANTIC_SEGMENTATION",
    "INSTANCE_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION",
    "OBJECT_DETECTION",
    "DEPTH_ESTIMATION",
    "IMAGE_TO_IMAGE",
    "MASKED_IMAGE_MODELING",
    "VIDEO_CLASSIFICATION",
    "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "KEYPOINT_DETECTION",
)
MOST_PARAMETERS = 40_000_000
"""Of a network that could not be made tiny; what has more counts as not to be had tiny."""


class Tensor(NamedTuple):
    """An input or an output, as config.txt has them."""

    name: str
    data_type: str
    dims: list[int]
    more: Mapping[str, Any] = MappingProxyType({})

    def entry(self) -> dict[str, Any]:
        return {"name": self.name, "node_name": self.name, "data_type": self.data_type, "dims": self.dims, **self.more}


class Tiny(NamedTuple):
    """A network that runs on inputs of these shapes."""

    module: Any
    inputs: list[Tensor]
    outputs: list[Tensor]
    drawn_again: bool = False
    """Its weights are not those that its class draws: see `_best_gain`."""


class NotTinyError(Exception):
    """No small network of this class can be made, or none that runs on the inputs known here."""


def class_names() -> list[str]:
    """Return the names of all classes, sorted."""
    from transformers.models.auto import modeling_auto as auto

    def mapping(task: str) -> dict[str, Any]:
        found: dict[str, Any] = getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES")
        return found

    encoders = {kind for task in TEXT_TYPES for kind in mapping(task)}
    names = {kind: auto.MODEL_MAPPING_NAMES[kind] for kind in encoders if kind in auto.MODEL_MAPPING_NAMES}
    found = set(_flat(names.values()))
    for task in TEXT_TASKS:
        found |= set(_flat(name for kind, name in mapping(task).items() if kind in encoders))
    for task in VISION_TASKS:
        found |= set(_flat(mapping(task).values()))
    return sorted(found)


def _flat(names: Any) -> Iterator[str]:
    for name in names:
        yield from (name,) if isinstance(name, str) else name


def make(name: str) -> Tiny:
    """Make a tiny network of a class, with weights drawn from a fixed seed.

    Raises:
        NotTinyError: nothing that was tried gives one.
    """
    import torch
    import transformers

    kind = getattr(transformers, name, None)
    if kind is None or getattr(kind, "config_class", None) is None:
        raise NotTinyError("transformers has no such class with a configuration of its own")
    reasons = []
    for shrink in (_everything, _depth_and_width_of_parts, _depth_alone):
        try:
            config = shrink(kind.config_class())
            if name.endswith("Backbone"):
                config.out_indices = [1]
            if name.endswith("EncoderModel"):
                config.is_encoder_decoder = False
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in kind(config).parameters())
            _refuse_large(size)
            torch.manual_seed(0)
            tiny = _with_interface(kind(config).eval())
            gain = _best_gain(kind, config, tiny.inputs)
            module = _drawn(kind, config, gain)  # one that has run may have hooks
            return tiny._replace(module=module, drawn_again=gain > 0)
        except Exception as error:  # noqa: BLE001 - whatever a configuration that makes no sense runs into
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}")
    raise NotTinyError("; ".join(dict.fromkeys(reasons)))


def _refuse_large(parameters: int) -> None:
    if parameters > MOST_PARAMETERS:
        raise NotTinyError(f"{parameters} parameters")


_LAYERS = re.compile(
    r"(num_|n_)?(hidden_|encoder_|decoder_|bottleneck_)?(layers?|blocks|depth)$|.*_(layers|blocks)$|layers$"
)
_WIDTH = {
    "hidden_size": 32, "d_model": 32, "embed_dim": 32, "dim": 32, "n_embd": 32, "hidden_dim": 64, "embedding_size": 32,
    "emb_dim": 32, "projection_dim": 32, "encoder_hidden_dim": 32, "intermediate_size": 64, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "d_ff": 64, "ffn_dim": 64, "dim_feedforward": 64, "n_inner": 64, "d_inner": 64,
    "num_attention_heads": 2, "num_key_value_heads": 2, "n_head": 2, "n_heads": 2, "num_heads": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "attention_heads": 2,
    "head_dim": 16, "d_kv": 16, "d_head": 16,
    "fusion_hidden_size": 32, "reassemble_hidden_size": 32, "mask_feature_size": 32, "feature_size": 32,
    "decoder_hidden_size": 32, "head_hidden_size": 16, "auxiliary_channels": 16, "auxiliary_in_channels": 0,
    "d_latents": 32, "num_latents": 16, "decoder_intermediate_size": 64, "decoder_num_attention_heads": 2,
    "bottleneck_hidden": 0, "num_cross_attention_heads": 1, "num_self_attention_heads": 2, "pred_hidden_size": 32,
    "pred_num_attention_heads": 2, "pooler_hidden_size": 32, "encoder_hidden_size": 32,
    "cross_attention_hidden_size": 32,
}  # fmt: skip
_NEEDED = {"vocab_size": 128, "pad_token_id": 1, "mask_token_id": 4}
_DEPTHS = ("depths", "layer_depths", "num_blocks", "stage_num_blocks", "depth")
_SMALL = {
    "vocab_size": 128, "num_queries": 10, "num_labels": 3, "mlp_ratio": 2, "num_frames": 4, "frames_per_clip": 4,
    "num_self_attends_per_block": 2, "entity_vocab_size": 64,
}  # fmt: skip


def _everything(config: Any) -> Any:
    return _shrunk(config, width=True)


def _depth_and_width_of_parts(config: Any) -> Any:
    for name in _PARTS:
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "to_dict"):
            _shrunk(part, width=True)
    return _shrunk(config, width=False)


def _depth_alone(config: Any) -> Any:
    return _shrunk(config, width=False)


_PARTS = ("vision_config", "text_config", "backbone_config", "encoder", "decoder", "audio_config")


def _shrunk(config: Any, *, width: bool) -> Any:
    for name, value in list(vars(config).items()):
        if getattr(value, "model_type", "") == "timm_backbone":
            setattr(config, name, _residual(getattr(value, "out_indices", None)))
        elif hasattr(value, "to_dict"):
            _shrunk(value, width=width)
        elif name in _NEEDED and value is None:
            setattr(config, name, _NEEDED[name])
        elif isinstance(value, bool) or value is None:
            continue
        elif name == "depth_coefficient":
            setattr(config, name, 0.1)
        elif isinstance(value, int):
            if _LAYERS.match(name) and value > 2:
                setattr(config, name, value if value == len(_stages(config)) else 2)
            elif width and _WIDTH.get(name, 0) and value > _WIDTH[name]:
                setattr(config, name, _WIDTH[name])
            elif name in _SMALL and value > _SMALL[name]:
                setattr(config, name, _SMALL[name])
            elif name.endswith("_token_id") and value >= 128:
                setattr(config, name, 1)
        elif name == "hidden_sizes" and isinstance(value, tuple):
            setattr(config, name, list(value))  # as in a file
        elif name in _DEPTHS and isinstance(value, list | tuple) and all(isinstance(item, int) for item in value):
            setattr(config, name, type(value)(min(item, 2) for item in value))
    _keep_taps(config)
    for name, value in (("use_cache", False), ("return_loss", False), ("use_pretrained_backbone", False)):
        if hasattr(config, name):
            setattr(config, name, value)
    if getattr(config, "default_language", "") is None and getattr(config, "languages", ()):
        config.default_language = config.languages[0]
    return config


def _stages(config: Any) -> tuple[int, ...]:
    """Return what a configuration says of each of its stages, of which none can be left out alone."""
    found = next((getattr(config, name) for name in (*_DEPTHS, "hidden_sizes") if hasattr(config, name)), ())
    return tuple(found) if isinstance(found, list | tuple) else ()


def _keep_taps(config: Any) -> None:
    """Let the layers that others read be among those that are left: as many of them, and the last ones."""
    layers = getattr(config, "num_hidden_layers", None)
    for name in ("backbone_out_indices", "out_indices"):
        taps = getattr(config, name, None)
        if not isinstance(layers, int) or _stages(config) or not taps or len(taps) < 2:
            continue
        config.num_hidden_layers = layers = max(layers, len(taps))
        if name == "out_indices":
            config.stage_names = ["stem", *(f"stage{number}" for number in range(1, layers + 1))]
        last = layers + (name == "out_indices")
        setattr(config, name, list(range(last - len(taps), last)))


def _residual(out: Any) -> Any:
    """Return what stands for a backbone of timm, which is not installed: transformers' own of the same build."""
    from transformers import ResNetConfig

    sizes, depths = [16, 32, 64, 64], [1, 1, 1, 1]
    return ResNetConfig(embedding_size=16, hidden_sizes=sizes, depths=depths, out_indices=list(out or [4]))


def _with_interface(module: Any) -> Tiny:
    """Find inputs on which the module runs, and see from two sizes which dimensions of its outputs are free."""
    reasons = []
    for inputs in _candidates(module):
        try:
            outputs = _outputs(module, inputs)
            return Tiny(module, inputs, outputs)
        except Exception as error:  # noqa: BLE001 - the next candidate may do
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    raise NotTinyError(reasons[0] if reasons else "its inputs are not known here")


def _candidates(module: Any) -> Iterator[list[Tensor]]:
    takes = inspect.signature(module.forward).parameters
    config = module.config
    text = getattr(config, "text_config", config)
    vocabulary = getattr(text, "vocab_size", None) or 128
    ids = {"range": [min(5, vocabulary - 1), min(vocabulary, 120) - 1], **_sizes(24, 40)}
    images = list(_images(config, takes))
    texts = []
    if "input_ids" in takes:
        mask = [Tensor("attention_mask", "long", [-1, -1], {"range": [0, 1], **_sizes(24, 40)})]
        words = [Tensor("input_ids", "long", [-1, -1], ids)]
        if "decoder_input_ids" in takes and getattr(config, "is_encoder_decoder", False):
            words.append(Tensor("decoder_input_ids", "long", [-1, -1], ids))
        ones = [tensor._replace(more={**tensor.more, "range": [1, 1]}) for tensor in mask]
        texts = [words + mask, words + ones, words] if "attention_mask" in takes else [words]
    if texts and images:
        yield from ([*words, *image] for words in texts for image in images)
    yield from texts
    yield from images


def _sizes(usual: int, other: int) -> dict[str, Any]:
    return {"min_dims": [1, usual], "opt_dims": [1, usual], "max_dims": [8, other]}


def _images(config: Any, takes: Any) -> Iterator[list[Tensor]]:
    name = next((name for name in ("pixel_values", "pixel_values_videos") if name in takes), None)
    if name is None:
        return
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "num_channels", 3)
    declared = getattr(vision, "image_size", None) or getattr(vision, "crop_size", None)
    if isinstance(declared, list | tuple) and len(set(declared)) > 1:
        yield [Tensor(name, "float", [-1, channels, *declared])]
    declared = declared[0] if isinstance(declared, list | tuple) else declared
    for size in dict.fromkeys(
        size for size in (declared if declared and declared <= 256 else None, 64, 224, declared, 384) if size
    ):
        frames = getattr(vision, "num_frames", None) or getattr(vision, "frames_per_clip", None)
        if frames:
            yield [Tensor(name, "float", [-1, frames, channels, size, size])]
        image = Tensor(name, "float", [-1, channels, size, size])
        patch = getattr(vision, "patch_size", None)
        if "noise" in takes and isinstance(patch, int):  # drawn within, where it is not given
            yield [image, Tensor("noise", "float", [-1, (size // patch) ** 2])]
        yield [image]
    for size in dict.fromkeys((64, declared or 64)):
        yield [Tensor(name, "float", [-1, 2, channels, size, size])]


def _outputs(module: Any, inputs: list[Tensor]) -> list[Tensor]:
    first, second, _ = (_run(module, inputs, number) for number in (0, 1, 2))
    if len(first) != len(second) or not first:
        raise NotTinyError("it has another number of outputs for another size")
    _require_defined(module, inputs, first)
    types = {"float32": "float", "int64": "long", "bool": "bool", "int32": "int", "float64": "double"}
    outputs = []
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        if one.is_floating_point() and not (one.isfinite().all() and two.isfinite().all()):
            raise NotTinyError("its outputs are not finite")
        dims = [-1 if a != b else a for a, b in zip(one.shape, two.shape, strict=True)]
        outputs.append(Tensor(f"output_{number}", types[str(one.dtype).removeprefix("torch.")], dims))
    return outputs


def _require_defined(module: Any, inputs: list[Tensor], answers: list[Any]) -> None:
    """Hold transformers' two implementations of attention against each other.

    They differ where the answer is not defined: a token of a causal network whose every predecessor is masked.
    """
    usual = getattr(module.config, "_attn_implementation", None)
    if usual != "sdpa" or not any(tensor.name == "attention_mask" for tensor in inputs):
        return
    module.set_attn_implementation("eager")
    try:
        others = _run(module, inputs, 0)
    finally:
        module.set_attn_implementation(usual)
    for one, other in zip(answers, others, strict=True):
        if one.is_floating_point() and not one.allclose(other, rtol=1e-2, atol=1e-3):
            raise NotTinyError("its answers on these inputs depend on the implementation of attention")


_GAINS = (1.0, 2.0)
_SETTLED = 0.3


def _drawn(kind: Any, config: Any, gain: float) -> Any:
    """Make a network; with a gain, draw its weights anew, so that no layer lets what it gets fade.

    1 keeps the variance (LeCun et al., 1998), 2 does for a convolution in front of a ReLU (He et al., 2015).
    """
    import torch

    torch.manual_seed(0)
    module = kind(config).eval()
    with torch.no_grad():
        for parameter in module.parameters() if gain else ():
            if parameter.dim() > 1:
                parameter.normal_(std=((gain if parameter.dim() > 2 else 1) / parameter[0].numel()) ** 0.5)
    return module


def _best_gain(kind: Any, config: Any, inputs: list[Tensor]) -> float:
    """Return the gain with which rounding decides least; 0, for the weights as they are drawn, where it decides little.

    As they are drawn, weights may let an image fade on its way, so that it is chosen among scores that are all alike.
    """
    usual = _unsettled(_drawn(kind, config, 0.0), inputs)
    if usual < _SETTLED:
        return 0.0
    found = {0.0: usual, **{gain: _unsettled(_drawn(kind, config, gain), inputs) for gain in _GAINS}}
    return min(found, key=lambda gain: found[gain])


def _unsettled(module: Any, inputs: list[Tensor]) -> float:
    """Return how far a network of images is from its own answers in float64, in times of convkit's tolerance."""
    if all(tensor.data_type != "float" for tensor in inputs):
        return 0.0
    try:
        usual, exact = _run(module, inputs, 0), _run(module.double(), inputs, 0)
    except RuntimeError:  # it has float32 written into it
        return 0.0
    pairs = [(one.double(), other.double()) for one, other in zip(usual, exact, strict=True)]
    return max(float(((one - other).abs() / (1e-4 + 1e-3 * other.abs())).max()) for one, other in pairs)


def _run(module: Any, inputs: list[Tensor], number: int) -> list[Any]:
    import torch

    from convkit.sources.torch_call import leaves

    torch.manual_seed(number)
    given = {}
    for tensor in inputs:
        usual = tensor.more["max_dims" if number == 1 else "opt_dims"] if "opt_dims" in tensor.more else tensor.dims
        shape = [(2, 3, 1)[number] if axis == 0 else size for axis, size in enumerate(usual)]
        if tensor.data_type == "float":
            given[tensor.name] = torch.randn(shape).to(next(module.parameters()).dtype)
        else:
            low, high = tensor.more["range"]
            given[tensor.name] = torch.randint(low, high + 1, shape)
    with torch.inference_mode():
        return leaves(module(**given))

"""What is wrong with a config.pbtxt, seen without a server.

Several of these a Triton server accepts in silence (doubled names, dynamic batching without a batch, a model without
outputs); a warm-up above the largest batch can end it; the rest it refuses as it loads the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from convkit.serving.triton_text import ModelConfig, proto, type_name


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a configuration: what, where, and how to mend it."""

    code: str
    message: str
    hint: str


def lint(config: ModelConfig, *, folder: str | None = None) -> list[Finding]:
    """Return everything that is wrong with a configuration; an empty list where nothing is.

    Args:
        config: the configuration.
        folder: the name of the model's folder in the repository, which has to be the model's name.
    """
    return [
        *_name(config, folder),
        *_tensor_names("input", config.input),
        *_tensor_names("output", config.output),
        *(fault for tensor in (*config.input, *config.output) for fault in _tensor(config, tensor)),
        *_batching(config),
        *(fault for warmup in config.model_warmup for fault in _warmup(config, warmup)),
    ]


def _name(config: ModelConfig, folder: str | None) -> Iterator[Finding]:
    if folder is not None and config.name not in ("", folder):
        yield Finding(
            code="triton.name-mismatch",
            message=f"the configuration is for '{config.name}' and lies in the folder '{folder}'",
            hint="a model's folder has the model's name: rename one of them",
        )


def _tensor_names(role: str, tensors: Iterable[Any]) -> Iterator[Finding]:
    counts = Counter(tensor.name for tensor in tensors)
    if not counts:
        yield Finding(
            code=f"triton.no-{role}",
            message=f"there is no {role}",
            hint=f"list the model's {role}s: a server started without auto-completion sees no others",
        )
    for name, count in counts.items():
        if count > 1:
            yield Finding(
                code="triton.duplicate-tensor",
                message=f"{role} '{name}' is listed {count} times",
                hint="list each tensor once",
            )


def _tensor(config: ModelConfig, tensor: Any) -> Iterator[Finding]:
    if not tensor.dims or any(dim == 0 or dim < -1 for dim in tensor.dims):
        yield Finding(
            code="triton.bad-dims",
            message=f"'{tensor.name}' has the dims {list(tensor.dims)}",
            hint="at least one dimension, each 1 or more, or -1 where it varies",
        )
    if tensor.data_type == proto().TYPE_INVALID:
        yield Finding(
            code="triton.no-data-type",
            message=f"'{tensor.name}' has no data_type",
            hint="say TYPE_FP32, TYPE_INT64, …",
        )
    if tensor.data_type == proto().TYPE_BF16 and config.backend == "onnxruntime":
        yield Finding(
            code="triton.bfloat16",
            message=f"'{tensor.name}' is TYPE_BF16, which Triton's onnxruntime backend cannot carry",
            hint="let the model take and give float32 and work in bfloat16 inside",
        )
    if tensor.HasField("reshape") and not tensor.reshape.shape and config.max_batch_size == 0:
        yield Finding(
            code="triton.empty-reshape",
            message=f"'{tensor.name}' has an empty reshape, which only a model with a batch may have",
            hint="give a scalar the dims [1] and no reshape",
        )


def _batching(config: ModelConfig) -> Iterator[Finding]:
    if not config.HasField("dynamic_batching"):
        return
    if config.max_batch_size == 0:
        yield Finding(
            code="triton.batching-without-batch",
            message="dynamic_batching is on and max_batch_size is 0, so that nothing can be batched",
            hint="set max_batch_size, or leave dynamic_batching out",
        )
        return
    wrong = [size for size in config.dynamic_batching.preferred_batch_size if not 1 <= size <= config.max_batch_size]
    if wrong:
        yield Finding(
            code="triton.preferred-batch-too-large",
            message=f"preferred_batch_size has {wrong}, outside of 1 to {config.max_batch_size}",
            hint="keep preferred batch sizes at or below max_batch_size",
        )


def _warmup(config: ModelConfig, warmup: Any) -> Iterator[Finding]:
    where = f"model_warmup '{warmup.name}'"
    largest = max(1, config.max_batch_size)
    if warmup.batch_size > largest:
        yield Finding(
            code="triton.warmup-batch-too-large",
            message=f"{where} has the batch_size {warmup.batch_size}, and the largest is {largest}",
            hint=f"keep it at or below {largest}: a larger one can end the server",
        )
    expected = {tensor.name: tensor for tensor in config.input}
    if set(warmup.inputs) != set(expected):
        yield Finding(
            code="triton.warmup-inputs",
            message=f"{where} sends {sorted(warmup.inputs)}, and the model takes {sorted(expected)}",
            hint="a warm-up sends every input of the model, by its name",
        )
    for name in sorted(set(warmup.inputs) & set(expected)):
        yield from _warmup_input(where, name, warmup.inputs[name], expected[name])


def _warmup_input(where: str, name: str, sent: Any, expected: Any) -> Iterator[Finding]:
    if sent.data_type != expected.data_type:
        yield Finding(
            code="triton.warmup-type",
            message=f"{where} sends '{name}' as {type_name(sent.data_type)}, "
            f"and the model takes {type_name(expected.data_type)}",
            hint="send the input's own data_type",
        )
    if not _fits(list(sent.dims), list(expected.dims)):
        yield Finding(
            code="triton.warmup-dims",
            message=f"{where} sends '{name}' with the dims {list(sent.dims)}, "
            f"and the model takes {list(expected.dims)}",
            hint="send fixed dims that fit the input's, without the batch dimension",
        )


def _fits(sent: list[int], expected: list[int]) -> bool:
    """Tell whether a warm-up's shape is fixed and is one that the input takes."""
    pairs = zip(sent, expected, strict=False)
    return len(sent) == len(expected) and all(have >= 1 and want in (-1, have) for have, want in pairs)

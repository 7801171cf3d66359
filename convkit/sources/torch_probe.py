"""What a traced TorchScript module takes and gives, told by running it on inputs of its example's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convkit.errors import InputError
from convkit.graph.present import BATCH, DEFAULT_MAX_BATCH
from convkit.pipeline.step import step
from convkit.sources.outline import Call, Stored
from convkit.sources.torch_call import array_of, leaves
from convkit.sources.torch_module import TorchSource, load_module
from convkit.spec.tensor import DType, Interface, TensorSpec


@step(version=1, stage="source", title="Try the TorchScript module", needs="torch")
def probe_script(source: TorchSource, *, call: Call) -> Interface:
    """Return the interface of a TorchScript module whose file keeps the shapes of the example that it was traced with.

    The first dimension is a free batch where all examples have one in common, and one more row in each gives one more
    row in every output. All else is as it was traced.

    Raises:
        InputError: the module fails on inputs of these shapes, or gives what is no tensor.
    """
    import torch

    module = load_module(source)
    with torch.inference_mode():
        try:
            outputs = leaves(module(*_inputs(call, 0)))
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{source.checkpoint} fails on inputs of its example's shapes: {' '.join(str(error).split())[:400]}",
                hint="write its inputs into a config.txt",
                code="source.forward-failed",
            ) from error
        batched = _is_batched(module, call, [tuple(output.shape) for output in outputs])
    inputs = tuple(
        _spec(name, example.dims, example.dtype or DType.FLOAT32, batched)
        for name, example in zip(call.names, call.examples, strict=True)
    )
    named = ("output",) if len(outputs) == 1 else tuple(f"output_{number}" for number in range(len(outputs)))
    return Interface(
        inputs=inputs,
        outputs=tuple(
            _spec(name, tuple(output.shape), DType(array_of(output).dtype.name), batched)
            for name, output in zip(named, outputs, strict=True)
        ),
        max_batch_size=DEFAULT_MAX_BATCH if batched else 0,
    )


def _spec(name: str, dims: Sequence[int], dtype: DType, batched: bool) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, dims=(BATCH, *dims[1:]) if batched else tuple(dims))


def _is_batched(module: Any, call: Call, given: list[tuple[int, ...]]) -> bool:
    rows = {example.dims[:1] for example in call.examples} | {shape[:1] for shape in given}
    if len(rows) != 1 or () in rows:
        return False
    ((size,),) = rows
    try:
        more = [tuple(output.shape) for output in leaves(module(*_inputs(call, 1)))]
    except (RuntimeError, TypeError, ValueError):
        return False
    return more == [(size + 1, *shape[1:]) for shape in given]


def _inputs(call: Call, more: int) -> list[Any]:
    """Return inputs of the example's shapes, with so many more rows: zeros, which every embedding has."""
    import torch

    def zeros(example: Stored) -> torch.Tensor:
        dims = (example.dims[0] + more, *example.dims[1:]) if more else example.dims
        return torch.zeros(dims, dtype=getattr(torch, (example.dtype or DType.FLOAT32).value))

    return [zeros(example) for example in call.examples]

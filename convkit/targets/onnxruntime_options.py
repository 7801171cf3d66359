"""The recipe's table `[onnxruntime]`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from convkit.targets.trt_options import ShapeRange, parse_size


class AcceleratorName(StrEnum):
    """What ONNX Runtime hands a model's graph to, inside Triton's onnxruntime backend."""

    TENSORRT = "tensorrt"
    CUDA = "cuda"
    OPENVINO = "openvino"


class OnnxRuntimeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[onnxruntime]`: what ONNX Runtime hands the graph to in Triton. All keys but the first are for ``tensorrt``."""

    accelerator: AcceleratorName | None = None
    """Engines that the server builds as it loads the model (``tensorrt``), a GPU without them (``cuda``), OpenVINO on
    the CPU (``openvino``); None: ONNX Runtime's own kernels on the CPU."""
    engine_cache: str = "/var/tmp"  # noqa: S108 - where the server runs; the folder made in it is named by a digest
    """A folder of the server's, which exists there and may be written, best on a volume: each model's engines lie in
    ``convkit-DIGEST`` in it, so that a restarted server builds none."""
    timing_cache: bool = False
    """Keep TensorRT's timings there too: another engine of the same model is then built sooner. Empty the folder where
    Triton is replaced by another release."""
    profiles: tuple[dict[str, ShapeRange], ...] = ()
    """Optimization profiles: tables from an input's wire name to its `min`, `opt` and `max` shape. Empty: one profile,
    from config.txt's min_dims, opt_dims, max_dims and batch size."""
    workspace: str | int | None = None
    """The most scratch memory that a layer may take on the GPU: bytes, or a text such as ``4GiB``. None: ONNX Runtime's
    default."""
    builder_optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    """From 0, built soonest, to 5, searched longest. None: TensorRT's default, 3."""

    @property
    def workspace_bytes(self) -> int | None:
        """Return the workspace limit in bytes.

        Raises:
            UsageError: the text is no size.
        """
        return None if self.workspace is None else parse_size(self.workspace)

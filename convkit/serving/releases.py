"""What each Triton release can read: its ONNX Runtime, the ONNX versions that one takes, and its TensorRT.

Which ONNX Runtime a release carries is in Triton's own table "ONNX Runtime Versions"
(docs/introduction/compatibility.md in triton-inference-server/server). What each ONNX Runtime takes was measured: a
model of one operator, stamped with every IR version and every opset in turn, was loaded by the published package of
that version; https://onnxruntime.ai/docs/reference/compatibility.html says why (each supports the ONNX that it was
built with). TensorRT versions are those of NVIDIA's support matrix, where they are known.
"""

from __future__ import annotations

import re

import msgspec

from convkit.errors import UsageError


class TritonRelease(msgspec.Struct, frozen=True, kw_only=True):
    """One release of the Triton Inference Server."""

    name: str
    """The year and the month, as in the container's tag: `24.10`."""
    onnxruntime: str
    ir_version: int
    """The highest IR version of an ONNX file that it reads."""
    opset: int
    """The highest opset of the domain `ai.onnx` that it reads."""
    tensorrt: str | None = None
    """The TensorRT that loads engines there; None where convkit does not know it."""


_RELEASES = (
    TritonRelease(name="24.10", onnxruntime="1.19.2", ir_version=10, opset=21),
    TritonRelease(name="24.12", onnxruntime="1.20.1", ir_version=10, opset=21),
    TritonRelease(name="25.03", onnxruntime="1.21.0", ir_version=10, opset=22),
    TritonRelease(name="25.05", onnxruntime="1.22.0", ir_version=10, opset=22),
    TritonRelease(name="25.09", onnxruntime="1.23.0", ir_version=11, opset=23),
    TritonRelease(name="25.10", onnxruntime="1.23.1", ir_version=11, opset=23),
    TritonRelease(name="25.11", onnxruntime="1.23.2", ir_version=11, opset=23),
    TritonRelease(name="26.02", onnxruntime="1.24.1", ir_version=13, opset=25),
    TritonRelease(name="26.03", onnxruntime="1.24.2", ir_version=13, opset=25),
    TritonRelease(name="26.04", onnxruntime="1.24.4", ir_version=13, opset=25, tensorrt="10.16"),
    TritonRelease(name="26.06", onnxruntime="1.24.4", ir_version=13, opset=25, tensorrt="11.0.0.114"),
    TritonRelease(name="26.07", onnxruntime="1.27.0", ir_version=13, opset=26, tensorrt="11.1.0.106"),
    TritonRelease(name="26.08", onnxruntime="1.28.0", ir_version=13, opset=26),
)

OLDEST = _RELEASES[0]
"""What convkit writes for when nobody says otherwise: every later release reads it too."""


def release(text: str) -> TritonRelease:
    """Return what the Triton release of that name can read.

    A release between two known ones, or after the last, gets the older one's numbers: it reads at least that much.
    An unknown release's TensorRT is None, since an engine is bound to the exact version.

    Raises:
        UsageError: the text names no release, or one before 24.10.
    """
    if not re.fullmatch(r"[0-9]{2}\.(0[1-9]|1[0-2])", text):
        raise UsageError(f"'{text}' is not a Triton release", hint=_KNOWN, code="triton.unknown-release")
    older = [known for known in _RELEASES if known.name <= text]
    if not older:
        raise UsageError(f"Triton {text} is older than convkit writes for", hint=_KNOWN, code="triton.release-too-old")
    if older[-1].name == text:
        return older[-1]
    return msgspec.structs.replace(older[-1], name=text, tensorrt=None)


def of_onnxruntime(version: str) -> TritonRelease | None:
    """Return the release whose ONNX Runtime reads at most what that version reads; None: older than all known ones."""
    wanted = [int(number) for number in re.findall(r"\d+", version)[:3]]
    older = [known for known in _RELEASES if [int(number) for number in known.onnxruntime.split(".")] <= wanted]
    return older[-1] if older else None


def newest() -> TritonRelease:
    """Return the newest release that convkit knows."""
    return _RELEASES[-1]


_KNOWN = "a release is a year and a month; convkit knows " + ", ".join(known.name for known in _RELEASES)

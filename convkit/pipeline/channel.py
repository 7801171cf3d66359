"""Messages between the runner and a worker: JSON with its length before it, on a socket of their own."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

from convkit.pipeline.events import Event
from convkit.pipeline.extensions import Extension


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="warm-up"):
    """Import these modules while nothing else is asked."""

    modules: tuple[str, ...]


class Call(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="call"):
    """Run a step with these arguments (JSON builtins), its files under `scratch`."""

    step: str
    arguments: dict[str, Any]
    scratch: str
    run_seconds: float | None = None
    """How long one run of a model may take; see `convkit.pipeline.patience`."""
    extensions: tuple[Extension, ...] = ()
    """What the worker loads beside its libraries."""


class Returned(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="returned"):
    """A step's result as JSON builtins, and what it cost."""

    result: Any
    seconds: float
    peak_bytes: int


class Raised(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="raised"):
    """A step's error. `error` names a class of `convkit.errors`, or is empty for any other exception."""

    error: str
    message: str
    hint: str
    code: str
    stage: str | None
    is_stuck: bool = False
    """The step goes on all the same: nothing but the end of the process ends it."""


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="happened"):
    """An event from within a step."""

    event: Event


Request = WarmUp | Call
Reply = Returned | Raised | Happened

_LENGTH = struct.Struct("<Q")


def send(channel: socket.socket, message: Request | Reply) -> None:
    """Send one message whole."""
    data = msgspec.json.encode(message)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> bytes | None:
    """Return the next message's JSON, or None when the other side is gone."""
    head = _exactly(channel, _LENGTH.size)
    return None if head is None else _exactly(channel, _LENGTH.unpack(head)[0])


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = channel.recv(min(size - len(parts), 1 << 20))
        except ConnectionResetError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)

"""Models and data that are named by URL, brought to this machine before anything else is done."""

from __future__ import annotations

from pathlib import PurePosixPath

import msgspec

from convkit.pipeline.cache import Cache
from convkit.pipeline.events import Observer
from convkit.pipeline.remote import fetch, is_url, name_in
from convkit.request import Request

_BESIDE_A_MODEL = ("config.txt", "*.py", "*.data")
"""What belongs to a model that is one file: its metadata, its code (which runs under trust alone), ONNX weights."""
_PLAIN_STEMS = ("model", "saved_model")


def fetched(request: Request, cache: Cache, observer: Observer) -> Request:
    """Return the request with every URL replaced by where its content lies on this machine.

    Raises:
        InputError: there is nothing at a URL, or it may not be read.
        MissingError: a package or the network is missing.
    """

    def here(text: str | None, *, beside: tuple[str, ...] = ()) -> str | None:
        return str(fetch(text, cache, observer, beside=beside)) if text and is_url(text) else text

    if is_url(request.model):
        request = msgspec.structs.replace(
            request,
            name=request.name or _name(request.model),
            model=here(request.model, beside=_BESIDE_A_MODEL),
        )
    return msgspec.structs.replace(
        request,
        config=here(request.config),
        locked=here(request.locked),
        export=msgspec.structs.replace(request.export, samples=here(request.export.samples)),
        quantize=msgspec.structs.replace(request.quantize, data=here(request.quantize.data)),
        accuracy=msgspec.structs.replace(request.accuracy, data=here(request.accuracy.data)),
    )


def _name(url: str) -> str:
    """Return what the model at a URL is called: as a local one, by its folder for a folder or a file ``model.*``."""
    last = PurePosixPath(name_in(url))
    if last.suffix in (".pth", ".pt", ".onnx", ".pb"):
        return name_in(url.rstrip("/").rpartition("/")[0]) if last.stem in _PLAIN_STEMS else last.stem
    return last.name

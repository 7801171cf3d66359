"""A disk that fails, or is full, is no bug of convkit's, wherever it is noticed."""

from __future__ import annotations

import errno
import json
import os

import pytest
import typer

from convkit.cli import app
from convkit.errors import ExitStatus


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, "disk.failed"), (errno.ESTALE, "disk.failed"), (errno.ENOSPC, "disk.full")]
)
def test_it_is_something_missing_here(
    number: int, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(arguments: list[str]) -> typer.Typer:
        raise OSError(number, os.strerror(number), "/data/model.onnx")

    monkeypatch.setattr(app, "_application", broken)

    assert app.run(["cache", "info", "--json"]) == ExitStatus.MISSING
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert "/data/model.onnx" in error["message"]
    assert error["hint"]

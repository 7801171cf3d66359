"""The client of a model is written where it is converted, and goes along with the engine to where that is served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from deferred.machines import L4, Container, Machine
from deferred.test_deferred import built


def test_the_client_of_a_pending_engine_lies_beside_the_built_one(
    repository: Path, on: Callable[[Machine], Container]
) -> None:
    pending = repository / "scaled" / "pending" / "1"
    text = (pending / "client.py").read_text()

    built(on(L4), repository)

    records = repository / "scaled" / "1" / "convkit"
    assert (records / "client.py").read_text() == text
    assert "/v2/models/scaled/infer" in json.loads((records / "report.json").read_bytes())["client"]["curl"]
    assert (records / "samples" / "0000.npz").is_file()
    assert "  client.py\n" in (records / "SHA256SUMS").read_text()
    assert on(L4).command("check", repository, "--json").exit_status == 0

"""The steps of these tests leave traces outside their scratch space, which isolated workers cannot."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _free_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVKIT_ISOLATION", "off")

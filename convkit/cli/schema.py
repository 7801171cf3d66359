"""`convkit schema`."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer


class Document(Enum):
    """What has a schema."""

    RECIPE = "recipe"
    CONFIG = "config"
    REPORT = "report"
    RESULT = "result"
    PREFLIGHT = "preflight"
    INSPECTION = "inspection"
    CHECKUP = "checkup"
    SERVING = "serving"


def command(
    document: Annotated[Document, typer.Argument(help="A recipe, config.txt, report.json, or what --json prints.")],
) -> None:
    """Print the JSON Schema of what convkit reads or writes."""
    import msgspec

    from convkit.schema import schema

    text = msgspec.json.format(msgspec.json.encode(schema(document.value)), indent=2)
    sys.stdout.write(text.decode() + "\n")

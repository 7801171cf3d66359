"""Options that several commands take, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

CustomOps = Annotated[
    list[str] | None,
    typer.Option(metavar="LIB.so|FILE.py", help="Operators of your own, for ONNX Runtime or PyTorch; repeatable."),
]

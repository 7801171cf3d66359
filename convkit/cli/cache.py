"""`convkit cache`."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from convkit.errors import UsageError
from convkit.pipeline.cache import Cache
from convkit.pipeline.home import default_root
from convkit.report.units import size as shown_size
from convkit.spec.size import parse_size

application = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


@application.command()
def info(as_json: _Json = False) -> None:
    """Say where the cache is and how much it holds."""
    import msgspec

    from convkit.pipeline.keeping import cache_info

    found = cache_info(Cache(default_root()))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    sys.stdout.write(f"folder     {found.root}\nsteps      {found.steps}\nartifacts  {found.artifacts}\n")
    sys.stdout.write(f"size       {shown_size(found.bytes)}\n")


@application.command("list")
def list_(as_json: _Json = False) -> None:
    """List what is remembered, the last used first."""
    import msgspec

    from convkit.pipeline.keeping import cache_list

    remembered = cache_list(Cache(default_root()))
    if as_json:
        sys.stdout.write(msgspec.json.encode({"schema": "convkit.cache-list/1", "steps": remembered}).decode() + "\n")
        return
    for entry in remembered:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        sys.stdout.write(f"{when}  {entry.seconds:7.1f} s  {shown_size(entry.bytes):>10}  {entry.step}\n")


@application.command()
def clear() -> None:
    """Forget everything."""
    from convkit.pipeline.keeping import cache_clear

    sys.stdout.write(f"freed {shown_size(cache_clear(Cache(default_root())))}\n")


@application.command()
def prune(
    max_size: Annotated[str, typer.Option("--max-size", help="Keep at most so much, such as 10GB: the last used.")],
) -> None:
    """Forget what was used longest ago."""
    from convkit.pipeline.keeping import cache_prune

    limit = parse_size(max_size)
    if limit is None:
        raise UsageError(f"--max-size {max_size}: it is no size", hint="for example 500MB or 10GiB", code="usage.size")
    sys.stdout.write(f"freed {shown_size(cache_prune(Cache(default_root()), limit))}\n")

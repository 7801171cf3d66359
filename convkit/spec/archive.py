"""Zip archives that users bring: told from those that unpack to more than anybody has room for."""

from __future__ import annotations

from collections.abc import Sequence
from zipfile import ZipInfo

_LARGE = 1 << 30
_DENSEST = 100
"""Unpacked bytes for each packed one, beyond which a large archive is no data: trained weights hardly shrink at all."""


def refuse_bomb(members: Sequence[ZipInfo], size: int) -> None:
    """Refuse an archive of `size` bytes whose members share bytes, or unpack to more than they can be worth.

    Raises:
        ValueError: says which of the two.
    """
    packed = sum(member.compress_size for member in members)
    unpacked = sum(member.file_size for member in members)
    if packed > size:
        raise ValueError(f"its members are said to take {packed} bytes, and the whole archive has {size}")
    if unpacked > _LARGE and unpacked > _DENSEST * size:
        raise ValueError(f"its {size} bytes would unpack to {unpacked / 2**30:.0f} GiB")

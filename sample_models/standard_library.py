"""Where the sample models that read Python find it: the sources of the standard library."""

import sysconfig
from pathlib import Path

PACKAGES = (
    "asyncio",
    "concurrent",
    "email",
    "http",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "unittest",
    "xml",
)


def library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def sources(packages: tuple[str, ...] = PACKAGES) -> list[Path]:
    """The modules at the top of the standard library, and those in some of its packages, sorted by path."""
    root = library()
    return sorted([*root.glob("*.py"), *(file for name in packages for file in (root / name).glob("**/*.py"))])

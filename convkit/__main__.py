"""The program `convkit`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; nothing is imported for ``--version`` but the number."""
    if sys.argv[1:] == ["--version"]:
        from convkit import __version__

        sys.stdout.write(f"convkit {__version__}\n")
        return
    from convkit.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""`python -m fuzz [KIND ...]`: mutated input, by default ten thousand of each kind.

Of the kind `convert`, through the whole of a conversion, one case where others have a hundred.
FUZZ_SEED, FUZZ_COUNT and FUZZ_KEEP stand for --seed, --count and --keep.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fuzz.harness import as_json, case, fuzz, summary
from fuzz.kinds import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or 1))
    parser.add_argument("--count", type=int, default=int(os.environ.get("FUZZ_COUNT") or 10_000))
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run this one case again")
    parser.add_argument("--keep", type=Path, default=os.environ.get("FUZZ_KEEP") or None, metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="one line for each kind")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.kinds or KINDS:
        count = max(1, arguments.count // KINDS[name].share)
        outcome = fuzz(name, seed=arguments.seed, count=count, only=arguments.only)
        print(as_json(outcome) if arguments.json else summary(name, outcome), flush=True)
        for finding in outcome.findings:
            failed |= not finding.native
            if not arguments.json:
                print(f"  python -m fuzz {name} --seed {finding.seed} --only {finding.number}: {finding.what}")
            if arguments.keep and finding.number >= 0:
                _keep(name, finding.seed, finding.number, Path(arguments.keep))
    return int(failed)


def _keep(name: str, seed: int, number: int, folder: Path) -> None:
    """Write the input of a finding."""
    import tempfile

    kind = KINDS[name]()
    with tempfile.TemporaryDirectory() as corpus:
        kind.prepare(Path(corpus))
        file, data = case(name, kind, seed, number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{seed}-{number}-{file}").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())

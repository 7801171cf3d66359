"""What the training scripts write beside a model: config.txt, and the README's figures."""

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def tensor(name: str, data_type: str, dims: list[int], **more: object) -> dict[str, object]:
    """An entry of config.txt; `more` may have another `node_name` than `name`, a `range`, and dims of a profile."""
    return {"name": name, "data_type": data_type, "dims": dims, "node_name": name, **more}


def write_config(
    folder: Path, *, batch_size: int, inputs: list[dict[str, object]], outputs: list[dict[str, object]]
) -> None:
    config = {"batch_size": batch_size, "input": inputs, "output": outputs}
    (folder / "config.txt").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def record_accuracy(folder: Path, rights: dict[str, NDArray[np.bool_]]) -> None:
    """Print the share of rights under each title, and put it into the README's line `TITLE: ...`."""
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    for title, right in rights.items():
        line = f"{title}: {right.mean():.4f} ({right.sum()} of {right.size})"
        text, replaced = re.subn(rf"^{title}: .*$", line, text, flags=re.MULTILINE)
        if replaced != 1:
            raise ValueError(f"{readme}: expected one line '{title}: ...', found {replaced}")
        print(line)
    readme.write_text(text, encoding="utf-8")

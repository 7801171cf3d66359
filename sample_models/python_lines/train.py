"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.python_lines.train
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sample_models.python_lines.lines import KINDS, TAGS, Lines, split
from sample_models.python_lines.model import PythonLines, load_model

FOLDER = Path(__file__).parent
EPOCHS = 6
BATCH = 64
CALIBRATION_SAMPLES = 160
HELD_OUT_SAMPLES = 800


def train(data: Lines) -> PythonLines:
    """AdamW with a one-cycle learning rate, on the sum of both outputs' losses."""
    rng = np.random.default_rng(0)
    model = PythonLines().train()
    steps_per_epoch = len(data.kinds) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=EPOCHS * steps_per_epoch)
    for _ in range(EPOCHS):
        order = rng.permutation(len(data.kinds))[: steps_per_epoch * BATCH]
        for chosen in np.split(order, steps_per_epoch):
            longest = int(data.mask[chosen].sum(axis=1).max())
            tokens, mask, tag = (torch.from_numpy(a[chosen, :longest]) for a in (data.tokens, data.mask, data.tags))
            kinds, tags = model(tokens, mask)
            loss = cross_entropy(kinds, torch.from_numpy(data.kinds[chosen]))
            loss = loss + cross_entropy(tags.flatten(0, 1), tag.flatten(), ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def write_config(folder: Path) -> None:
    """Write config.txt: batch and length are free, characters are ASCII, lines have up to 128 of them."""
    lengths = {"min_dims": [1, 8], "opt_dims": [1, 64], "max_dims": [8, 128]}

    def tensor(name: str, data_type: str, dims: list[int], **more: object) -> dict[str, object]:
        return {"name": name, "data_type": data_type, "dims": dims, "node_name": name, **more}

    config = {
        "batch_size": 8,
        "input": [
            tensor("tokens", "int64", [-1, -1], range=[32, 126], **lengths),
            tensor("mask", "int64", [-1, -1], range=[0, 1], **lengths),
        ],
        "output": [tensor("kind", "float", [-1, len(KINDS)]), tensor("tags", "float", [-1, -1, len(TAGS)])],
    }
    (folder / "config.txt").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def write_data(folder: Path, training: Lines, held_out: Lines) -> None:
    """Write calibration.npz, heldout.npz (`labels` are kinds) and heldout_tags.npz (the tag of each character)."""
    tokens, mask = training.tokens[:CALIBRATION_SAMPLES], training.mask[:CALIBRATION_SAMPLES]
    np.savez_compressed(folder / "calibration.npz", tokens=tokens, mask=mask)
    np.savez_compressed(folder / "heldout.npz", tokens=held_out.tokens, mask=held_out.mask, labels=held_out.kinds)
    np.savez_compressed(folder / "heldout_tags.npz", labels=held_out.tags)


def record_accuracy(folder: Path, held_out: Lines) -> None:
    """Print the accuracy of both outputs and put it into the README's lines `Held-out accuracy: ...`."""
    with torch.inference_mode():
        kinds, tags = load_model()(torch.from_numpy(held_out.tokens), torch.from_numpy(held_out.mask))
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8")
    shown = held_out.mask > 0
    rights = {
        "Held-out accuracy": kinds.numpy().argmax(axis=1) == held_out.kinds,
        "Held-out accuracy of tags": tags.numpy().argmax(axis=2)[shown] == held_out.tags[shown],
    }
    for title, right in rights.items():
        line = f"{title}: {right.mean():.4f} ({right.sum()} of {right.size})"
        text, replaced = re.subn(rf"^{title}: .*$", line, text, flags=re.MULTILINE)
        if replaced != 1:
            raise ValueError(f"{readme}: expected one line '{title}: ...', found {replaced}")
        print(line)
    readme.write_text(text, encoding="utf-8")


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, on any number of cores
    torch.use_deterministic_algorithms(True)
    training, held_out = split(train=32_000, held_out=HELD_OUT_SAMPLES)
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    write_config(FOLDER)
    write_data(FOLDER, training, held_out)
    record_accuracy(FOLDER, held_out)


if __name__ == "__main__":
    main()

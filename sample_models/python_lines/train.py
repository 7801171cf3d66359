"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.python_lines.train
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from sample_models import torch_training, writing
from sample_models.python_lines.lines import KINDS, TAGS, Lines, split
from sample_models.python_lines.model import PythonLines, load_model

FOLDER = Path(__file__).parent
EPOCHS = 6
BATCH = 64
CALIBRATION_SAMPLES = 160
HELD_OUT_SAMPLES = 800


def train(data: Lines) -> PythonLines:
    """AdamW with a one-cycle learning rate, on the sum of both outputs' losses."""
    model = PythonLines().train()

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        longest = int(data.mask[rows].sum(axis=1).max())
        tokens, mask, tag = (torch.from_numpy(a[rows, :longest]) for a in (data.tokens, data.mask, data.tags))
        kinds, tags = model(tokens, mask)
        loss = cross_entropy(kinds, torch.from_numpy(data.kinds[rows]))
        return loss + cross_entropy(tags.flatten(0, 1), tag.flatten(), ignore_index=-1)

    torch_training.fit(
        model,
        loss_of,
        samples=len(data.kinds),
        size=BATCH,
        epochs=EPOCHS,
        rng=np.random.default_rng(0),
        optimizer=torch.optim.AdamW(model.parameters(), weight_decay=1e-2),
        max_lr=3e-3,
        clip=1.0,
    )
    return model


def write_config(folder: Path) -> None:
    """Write config.txt: batch and length are free, characters are ASCII, lines have up to 128 of them."""
    lengths = {"min_dims": [1, 8], "opt_dims": [1, 64], "max_dims": [8, 128]}

    writing.write_config(
        folder,
        batch_size=8,
        inputs=[
            writing.tensor("tokens", "int64", [-1, -1], range=[32, 126], **lengths),
            writing.tensor("mask", "int64", [-1, -1], range=[0, 1], **lengths),
        ],
        outputs=[
            writing.tensor("kind", "float", [-1, len(KINDS)]),
            writing.tensor("tags", "float", [-1, -1, len(TAGS)]),
        ],
    )


def write_data(folder: Path, training: Lines, held_out: Lines) -> None:
    """Write calibration.npz, heldout.npz (`labels` are kinds) and heldout_tags.npz (the tag of each character)."""
    tokens, mask = training.tokens[:CALIBRATION_SAMPLES], training.mask[:CALIBRATION_SAMPLES]
    np.savez_compressed(folder / "calibration.npz", tokens=tokens, mask=mask)
    np.savez_compressed(folder / "heldout.npz", tokens=held_out.tokens, mask=held_out.mask, labels=held_out.kinds)
    np.savez_compressed(folder / "heldout_tags.npz", labels=held_out.tags)


def record_accuracy(folder: Path, held_out: Lines) -> None:
    """Print the accuracy of both outputs and put it into the README."""
    with torch.inference_mode():
        kinds, tags = load_model()(torch.from_numpy(held_out.tokens), torch.from_numpy(held_out.mask))
    shown = held_out.mask > 0
    rights = {
        "Held-out accuracy": kinds.numpy().argmax(axis=1) == held_out.kinds,
        "Held-out accuracy of tags": tags.numpy().argmax(axis=2)[shown] == held_out.tags[shown],
    }
    writing.record_accuracy(folder, rights)


def main() -> None:
    torch_training.repeatable()
    training, held_out = split(train=32_000, held_out=HELD_OUT_SAMPLES)
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    write_config(FOLDER)
    write_data(FOLDER, training, held_out)
    record_accuracy(FOLDER, held_out)


if __name__ == "__main__":
    main()

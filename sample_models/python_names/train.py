"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracies.

From the repository's root: python -m sample_models.python_names.train
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from sample_models import torch_training, writing
from sample_models.python_names.model import FEATURES, MODULES, NAMES, PACKAGES, PythonNames, load_model
from sample_models.python_names.names import Pairs, all_pairs

FOLDER = Path(__file__).parent
EPOCHS = 40
BATCH = 256
CALIBRATION_SAMPLES = 512
HELD_OUT_SAMPLES = 2000
TASKS = ("uses", "defines")


def tensors(data: Pairs) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in data.inputs.items()}


def train(data: Pairs) -> PythonNames:
    """AdamW with a one-cycle learning rate, on the sum of both tasks' losses."""
    model = PythonNames().train()

    def loss_of(rows: NDArray[np.int64]) -> torch.Tensor:
        chosen = data.rows(rows)
        uses, defines = model(**tensors(chosen))
        used, defined = torch.from_numpy(chosen.uses), torch.from_numpy(chosen.defines)
        return cross_entropy(uses, used) + cross_entropy(defines, defined)

    torch_training.fit(
        model,
        loss_of,
        samples=len(data.module),
        size=BATCH,
        epochs=EPOCHS,
        rng=np.random.default_rng(0),
        optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.5),
        max_lr=1e-2,
    )
    return model


def by_name_alone(training: Pairs, held_out: Pairs, task: str) -> NDArray[np.bool_]:
    """Where one is right who answers for each name what is true of most training rows of it."""
    yes, rows = (
        np.bincount(training.name[:, 0], weights, minlength=NAMES) for weights in (getattr(training, task), None)
    )
    return (2 * yes > rows)[held_out.name[:, 0]] == getattr(held_out, task)


def write_config(folder: Path) -> None:
    """Write config.txt: a free batch, and the ids' ranges, beyond which the embeddings have no row."""

    def ids(name: str, number: int) -> dict[str, object]:
        return writing.tensor(name, "int64", [-1, 1], range=[0, number - 1])

    writing.write_config(
        folder,
        batch_size=64,
        inputs=[
            ids("module", MODULES),
            ids("package", PACKAGES),
            ids("name", NAMES),
            writing.tensor("features", "float", [-1, FEATURES]),
        ],
        outputs=[writing.tensor(task, "float", [-1, 2]) for task in TASKS],
    )


def write_data(folder: Path, training: Pairs, held_out: Pairs) -> None:
    """Write calibration.npz, and heldout.npz with the labels of both tasks: `labels` (of `uses`), `labels_defines`."""
    np.savez_compressed(folder / "calibration.npz", **training.rows(slice(CALIBRATION_SAMPLES)).inputs)
    labels = {"labels": held_out.uses, "labels_defines": held_out.defines}
    np.savez_compressed(folder / "heldout.npz", **held_out.inputs, **labels)


def main() -> None:
    torch_training.repeatable()
    every = all_pairs()
    held_out, training = every.rows(slice(HELD_OUT_SAMPLES)), every.rows(slice(HELD_OUT_SAMPLES, None))
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    write_config(FOLDER)
    write_data(FOLDER, training, held_out)
    with torch.inference_mode():
        uses, defines = (logits.numpy().argmax(axis=1) for logits in load_model()(**tensors(held_out)))
    rights = {"Held-out accuracy": uses == held_out.uses, "Held-out accuracy of defines": defines == held_out.defines}
    for task in TASKS:
        rights[f"By the name alone, {task}"] = by_name_alone(training, held_out, task)
    writing.record_accuracy(FOLDER, rights)


if __name__ == "__main__":
    main()

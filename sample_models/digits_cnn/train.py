"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.digits_cnn.train
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sample_models import digits, torch_training
from sample_models.digits_cnn.model import DigitsCNN, load_model

FOLDER = Path(__file__).parent
EPOCHS = 30
BATCH = 64


def train(data: digits.Digits) -> DigitsCNN:
    """Adam with a one-cycle learning rate, on images moved by up to one pixel."""
    rng = np.random.default_rng(0)
    model = DigitsCNN().train()
    loss_function = nn.CrossEntropyLoss()

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(digits.shifted(data.images[rows], rng)).unsqueeze(1)
        return loss_function(model(images), torch.from_numpy(data.labels[rows]))

    torch_training.fit(
        model,
        loss_of,
        samples=len(data.labels),
        size=BATCH,
        epochs=EPOCHS,
        rng=rng,
        optimizer=torch.optim.AdamW(model.parameters(), weight_decay=1e-2),
        max_lr=5e-3,
    )
    return model


def main() -> None:
    torch_training.repeatable()
    training, held_out = digits.split()
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    digits.write_config(FOLDER, batch_size=8, image_dims=[-1, 1, 8, 8], output="logits")
    digits.write_data(FOLDER, training, held_out, channel_axis=1)
    with torch.inference_mode():
        logits = load_model()(torch.from_numpy(held_out.images).unsqueeze(1))
    digits.record_accuracy(FOLDER, logits.numpy(), held_out)


if __name__ == "__main__":
    main()

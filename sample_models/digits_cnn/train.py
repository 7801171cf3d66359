"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.digits_cnn.train
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from sample_models import digits
from sample_models.digits_cnn.model import DigitsCNN, load_model

FOLDER = Path(__file__).parent
EPOCHS = 30
BATCH = 64


def train(data: digits.Digits) -> DigitsCNN:
    """Adam with a one-cycle learning rate, on images moved by up to one pixel."""
    rng = np.random.default_rng(0)
    model = DigitsCNN().train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    steps_per_epoch = len(data.labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=EPOCHS * steps_per_epoch)
    loss_function = nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        order = rng.permutation(len(data.labels))[: steps_per_epoch * BATCH]
        for chosen in np.split(order, steps_per_epoch):
            images = torch.from_numpy(digits.shifted(data.images[chosen], rng)).unsqueeze(1)
            loss = loss_function(model(images), torch.from_numpy(data.labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, on any number of cores
    torch.use_deterministic_algorithms(True)
    training, held_out = digits.split()
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    digits.write_config(FOLDER, batch_size=8, image_dims=[-1, 1, 8, 8], output="logits")
    digits.write_data(FOLDER, training, held_out, channel_axis=1)
    with torch.inference_mode():
        logits = load_model()(torch.from_numpy(held_out.images).unsqueeze(1))
    digits.record_accuracy(FOLDER, logits.numpy(), held_out)


if __name__ == "__main__":
    main()

"""Train the network of model.py and write model.pth, config.txt, the data and the README's accuracy.

From the repository's root: python -m sample_models.digits_mobile.train
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sample_models import digits, torch_training
from sample_models.digits_mobile.model import DigitsMobile, InvertedResidual, load_model

FOLDER = Path(__file__).parent
EPOCHS = 20
BATCH = 64
SPREAD = 1.25
"""Standard deviation of the logarithm of BatchNorm's first scales."""
NOISE = 0.05


def enlarged(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images [n, 8, 8] as [n, 32, 32], bilinear, in the 256 grey values of a byte."""
    large = interpolate(torch.from_numpy(images).unsqueeze(1), size=(32, 32), mode="bilinear").squeeze(1)
    return (large.mul(255).round() / 255).numpy()


def spread_scales(model: DigitsMobile, spread: float) -> None:
    """Draw the scales of every BatchNorm between convolutions log-normally, and divide them out behind it.

    The network computes what it did: a depthwise convolution's own BatchNorm undoes the scales of the one before, and
    the projection's weights are divided by those of the depthwise one. From then on channels' ranges differ by orders
    of magnitude, as those of MobileNets trained at length do, and training lives with that.
    """
    for block in model.modules():
        if isinstance(block, InvertedResidual):
            expand, depthwise, project = block.expand[1], block.depthwise[1], block.project[0]
            with torch.no_grad():
                expand.weight.copy_(_log_normal(expand.weight, spread))
                scales = _log_normal(depthwise.weight, spread)
                depthwise.weight.copy_(scales)
                project.weight.div_(scales.reshape(1, -1, 1, 1))


def _log_normal(like: Tensor, spread: float) -> Tensor:
    return torch.exp(torch.randn_like(like) * spread)


def train(data: digits.Digits) -> DigitsMobile:
    """Adam with a one-cycle learning rate, no weight decay, on noisy images moved by up to one pixel of 8x8."""
    rng = np.random.default_rng(0)
    model = DigitsMobile().train()
    spread_scales(model, SPREAD)
    loss_function = nn.CrossEntropyLoss()

    def loss_of(rows: NDArray[np.int64]) -> Tensor:
        images = enlarged(digits.shifted(data.images[rows], rng))
        noisy = (images + rng.normal(0, NOISE, images.shape)).clip(0, 1).astype(np.float32)
        return loss_function(model(torch.from_numpy(noisy).unsqueeze(1)), torch.from_numpy(data.labels[rows]))

    torch_training.fit(
        model,
        loss_of,
        samples=len(data.labels),
        size=BATCH,
        epochs=EPOCHS,
        rng=rng,
        optimizer=torch.optim.Adam(model.parameters()),
        max_lr=5e-3,
    )
    return model


def main() -> None:
    torch_training.repeatable()
    training, held_out = digits.split()
    torch.save(train(training).state_dict(), FOLDER / "model.pth")
    training, held_out = (digits.Digits(enlarged(part.images), part.labels) for part in (training, held_out))
    digits.write_config(FOLDER, batch_size=8, image_dims=[-1, 1, 32, 32], output="logits")
    digits.write_data(FOLDER, training, held_out, channel_axis=1)
    with torch.inference_mode():
        logits = load_model()(torch.from_numpy(held_out.images).unsqueeze(1))
    digits.record_accuracy(FOLDER, logits.numpy(), held_out)


if __name__ == "__main__":
    main()

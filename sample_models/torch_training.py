"""How the sample models in PyTorch are trained: the same weights every time on the same kind of machine."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sample_models import batches


def repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, on any number of cores
    torch.use_deterministic_algorithms(True)


def fit(
    model: nn.Module,
    loss_of: Callable[[NDArray[np.int64]], Tensor],
    *,
    samples: int,
    size: int,
    epochs: int,
    rng: np.random.Generator,
    optimizer: torch.optim.Optimizer,
    max_lr: float,
    clip: float | None = None,
) -> None:
    """Lower `loss_of(rows)` over shuffled batches, the learning rate in one cycle that peaks at `max_lr`.

    `clip` bounds the norm of all gradients.
    """
    steps = epochs * batches.steps_per_epoch(samples, size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=steps)
    for rows in batches.shuffled(samples, size=size, epochs=epochs, rng=rng):
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()

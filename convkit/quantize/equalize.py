"""Cross-layer equalization: the scales of channels moved from one layer's weights to the next one's.

Nagel, van Baalen, Blankevoort and Welling (2019), "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.1; for pairs of layers and for whatever else holds the same channels, such as residual sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.graph.model import Model
from convkit.pipeline.step import step
from convkit.quantize.channels import Joint
from convkit.quantize.passing import Place
from convkit.quantize.ranges import Ranges, RangeTable, open_ranges
from convkit.quantize.rescale import Rescaled, Rescaling

if TYPE_CHECKING:
    from convkit.quantize.constants import Array

PASSES = 20
"""At most so many rounds over all joints: each changes what its neighbours see."""
SETTLED = 0.05
"""A round that changes no scale by a larger part than this is the last one."""
LARGEST = 1e4
"""No scale of a channel is further than this from those of the others: what is next to nothing stays so."""

HEADROOM = 2.0
"""The bound of a Relu6 stays so many times above what calibration saw of a channel, where it was."""
REACHED = 1 - 1e-6
"""The part of a bound from which on a channel has reached it."""


@step(version=1, stage="quantize", title="Equalize the channels", needs="onnx")
def equalize(model: Model, *, ranges: Ranges | None = None) -> Model:
    """Scale the channels between layers so that those of one tensor are alike in range.

    The model computes what it did, within the rounding of float32; around a Relu6 as long as no channel goes beyond
    twice of what calibration saw: there the bound stays one number, channels that came near it keep their scale, and
    the others stay below it. Tensors keep their names, but hold other numbers: ranges must be collected
    anew. Where nothing can be done the model itself is returned.

    Args:
        model: the simplified floating point graph, batch norms folded into the layers before them.
        ranges: what calibration saw of its activations: they are balanced as well as the weights. Without, weights
            alone are, and layers around a Relu6 stay as they are.

    Raises:
        InputError: a weight's external data cannot be read.
    """
    rescaling = Rescaling(model)
    joints, rescaled = rescaling.joints, rescaling.rescaled
    table = None if ranges is None else open_ranges(ranges)
    channels = [_Channels(joint, table) for joint in joints.behind_products()]
    for _ in range(PASSES):
        moved = [each.equalize(rescaled) for each in channels if each.is_free]
        if max(moved, default=0.0) < SETTLED:
            break
    return rescaling.finished()


class _Channels:
    """The channels of one joint, and the scales they have been given so far."""

    def __init__(self, joint: Joint, table: RangeTable | None) -> None:
        import numpy as np

        self.joint = joint
        self.scales = np.ones(joint.channels)
        self.seen = None if table is None else observed(joint, table)
        """The largest magnitude of each channel in calibration."""
        self.least = _least_scales(joint, table)
        """What a bound leaves of a channel's scale."""
        self.held = self.least == 1
        """Channels that came near a bound, or may have."""
        self.is_free = not self.held.all()

    def equalize(self, rescaled: Rescaled) -> float:
        """Take one step: s_i = sqrt(r1_i r2_i) / r2_i; return the largest change of a scale, as a part of it."""
        import numpy as np

        written, read = rescaled.largest(self.joint.writers), rescaled.largest(self.joint.readers)
        if self.seen is not None and self.seen.any() and written.any():
            now = self.seen / self.scales
            written = np.maximum(now / now.max(), written / written.max())
        alive = (written > 0) & (read > 0) & np.isfinite(written) & np.isfinite(read)
        if not alive.any():
            return 0.0
        wanted = self.scales.copy()
        wanted[alive] *= np.sqrt(written[alive] / read[alive])
        wanted = self._allowed(wanted, alive)
        step = wanted / self.scales
        rescaled.scale(self.joint, step)
        self.scales = wanted
        return float(np.abs(np.log(step)).max())

    def _allowed(self, wanted: Array, alive: Array) -> Array:
        """Return the scales that are wanted as far as bounds and float32 let them, those of dead channels left at 1."""
        import numpy as np

        anchor = self.held & alive if (self.held & alive).any() else alive
        wanted = wanted / np.exp(np.log(wanted[anchor]).mean())  # a factor that all share changes nothing
        wanted = np.where(alive, np.clip(wanted, 1 / LARGEST, LARGEST), 1.0)
        return np.where(self.held, 1.0, np.maximum(wanted, self.least))


def _least_scales(joint: Joint, table: RangeTable | None) -> Array:
    """Return for each channel the smallest scale at which a Relu6 still leaves it `HEADROOM`; 1 at most."""
    import numpy as np

    least = np.zeros(joint.channels)
    for name, bound in joint.bounds.items():
        if table is None or name not in table or bound <= 0:
            return np.ones(joint.channels)
        by_channel = table.channel_max_abs(name) if joint.tensors[name] == Place(1) else None
        reached = (table.max_abs(name) if by_channel is None else by_channel) / bound
        least = np.maximum(least, np.where(reached < REACHED, np.minimum(reached * HEADROOM, 1.0), 1.0))
    return least


def observed(joint: Joint, table: RangeTable) -> Array | None:
    """Return the largest magnitude (float64) of each channel of a joint, where calibration looked at channels."""
    import numpy as np

    rows = [table.channel_max_abs(name) for name, place in joint.tensors.items() if place.inner == 1]
    fitting = [row for row in rows if row is not None and len(row) == joint.channels]
    return np.maximum.reduce(fitting).astype(np.float64) if fitting else None

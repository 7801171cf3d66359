"""Col2Im (torch.nn.Fold) by operators that every runtime has.

Blocks that lie side by side are put in their places by Reshape and Transpose. Blocks that overlap, or that leave gaps,
are added up by a transposed convolution whose filters are 1 at a single place of the block each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from convkit.graph.facts import Facts, Placed
from convkit.graph.mend_edit import Edit, Lines, drop_unused_weights

if TYPE_CHECKING:
    import onnx

_MOST_DIMS = 8
"""Of a tensor, in TensorRT."""
_MOST_IN_FILTERS = 1 << 20
"""Numbers in the filters, one filter for each place of a block, beyond which overlapping blocks are left."""


class Folding(NamedTuple):
    """What a Col2Im node does. Each tuple holds a number for every spatial dimension."""

    image: tuple[int, ...]
    block: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    """Padding at the beginning, in elements."""
    after: tuple[int, ...]
    channels: int | None

    @property
    def reach(self) -> tuple[int, ...]:
        """Return how many elements a block spans along each dimension."""
        return tuple(d * (b - 1) + 1 for d, b in zip(self.dilations, self.block, strict=True))

    @property
    def grid(self) -> tuple[int, ...]:
        """Return how many blocks there are along each dimension."""
        padded = (sum(each) for each in zip(self.image, self.before, self.after, strict=True))
        return tuple((p - r) // s + 1 for p, r, s in zip(padded, self.reach, self.strides, strict=True))

    @property
    def tiles(self) -> bool:
        """Tell whether the blocks cover the image, each place once."""
        covered = tuple(g * b for g, b in zip(self.grid, self.block, strict=True))
        plain = not any((*self.before, *self.after)) and set(self.dilations) == {1}
        return plain and self.strides == self.block and covered == self.image

    @property
    def uncovered(self) -> tuple[int, ...]:
        """Return how many elements at the end of the padded image no block reaches, along each dimension."""
        sizes = zip(self.image, self.before, self.after, self.grid, self.strides, self.reach, strict=True)
        return tuple(i + p + q - ((g - 1) * s + r) for i, p, q, g, s, r in sizes)


def read_folding(node: Placed, facts: Facts) -> Folding | None:
    """Read a Col2Im node; None where it cannot be written otherwise: shapes unknown, or too many dimensions."""
    image, block = facts.value(node.input(1)), facts.value(node.input(2))
    if image is None or block is None or facts.type_name(node.input(0)) not in ("float", "float16", "bfloat16"):
        return None
    spatial = int(image.size)
    pads = tuple(node.attribute("pads", [0] * 2 * spatial))
    columns = facts.dims.get(node.input(0), (None, None, None))[1]
    size = math.prod(block.tolist())
    found = Folding(
        image=tuple(image.tolist()),
        block=tuple(block.tolist()),
        strides=tuple(node.attribute("strides", [1] * spatial)),
        dilations=tuple(node.attribute("dilations", [1] * spatial)),
        before=pads[:spatial],
        after=pads[spatial:],
        channels=columns // size if isinstance(columns, int) else None,
    )
    if found.tiles:
        return found if 2 + 2 * spatial <= _MOST_DIMS else None
    fits = spatial in (2, 3) and size * math.prod(found.reach) <= _MOST_IN_FILTERS and min(found.grid) > 0
    return found if fits and found.channels is not None else None


def fold_by_others(proto: onnx.ModelProto, nodes: frozenset[str]) -> onnx.ModelProto:
    """Write Col2Im as Reshape and Transpose, or as a transposed convolution."""
    edit = Edit(proto)
    for node in edit.named(nodes):
        folding = read_folding(node, edit.facts)
        if node.operator != "Col2Im" or folding is None:
            continue
        lines = Lines(edit, node.name)
        if folding.tiles:
            _put(lines, node, folding)
        else:
            _add_up(lines, node, folding)
        edit.replace(node, lines.nodes)
    drop_unused_weights(edit.proto)
    return edit.proto


def _put(lines: Lines, node: Placed, folding: Folding) -> None:
    """[n, c·b₁·b₂, g₁·g₂] to [n, c, g₁·b₁, g₂·b₂]."""
    spatial = len(folding.image)
    split = lines.add("Reshape", node.input(0), lines.ints(0, -1, *folding.block, *folding.grid))
    order = [place for each in range(spatial) for place in (2 + spatial + each, 2 + each)]
    turned = lines.add("Transpose", split, perm=[0, 1, *order])
    lines.add("Reshape", turned, lines.ints(0, -1, *folding.image), output=node.output(0))


def _add_up(lines: Lines, node: Placed, folding: Folding) -> None:
    """Every channel as an image of its own, whose channels are the places of the block; the padding is cut off.

    Dilation is written into the filters: TensorRT-RTX 1.7 builds no transposed convolution with strides and dilations.
    """
    import numpy as np
    from onnx import helper

    size = math.prod(folding.block)
    kind = helper.tensor_dtype_to_np_dtype(lines.edit.facts.types[node.input(0)])
    filters = np.zeros((size, 1, *folding.reach), dtype=np.float32)
    spread = tuple(slice(None, None, step) for step in folding.dilations)
    filters[(slice(None), slice(None), *spread)] = np.eye(size, dtype=np.float32).reshape(size, 1, *folding.block)
    grids = lines.add("Reshape", node.input(0), lines.ints(-1, size, *folding.grid))
    image = lines.add(
        "ConvTranspose",
        grids,
        lines.edit.weight(filters.astype(kind), f"{node.name}__filters"),
        strides=list(folding.strides),
        kernel_shape=list(folding.reach),
    )
    if any(folding.uncovered):
        missing = [0, 0, *(0 for _ in folding.image), 0, 0, *folding.uncovered]
        image = lines.add("Pad", image, lines.ints(*missing))
    if any((*folding.before, *folding.after)):
        starts, axes = folding.before, range(2, 2 + len(folding.image))
        ends = [low + size for low, size in zip(folding.before, folding.image, strict=True)]
        image = lines.add("Slice", image, lines.ints(*starts), lines.ints(*ends), lines.ints(*axes))
    lines.add("Reshape", image, lines.ints(-1, folding.channels or 1, *folding.image), output=node.output(0))

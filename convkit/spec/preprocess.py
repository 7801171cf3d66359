"""From raw samples to what a model takes: described once, for calibration, evaluation and checks alike."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import msgspec

from convkit.errors import UsageError

_Pixels = Annotated[int, msgspec.Meta(ge=1)]
_Size = _Pixels | tuple[_Pixels, ...]  # not two of them: msgspec misreads a fixed length in a union


class Colour(Enum):
    """The channels of an image, in their order."""

    RGB = "rgb"
    BGR = "bgr"
    GREY = "grey"


class Layout(Enum):
    """Where the channels of a batch of images stand."""

    NCHW = "nchw"
    NHWC = "nhwc"


class Interpolation(Enum):
    """How pixels are found where an image is resized; each as Pillow does it, which smooths where it shrinks."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class PreprocessOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[preprocess]`: from raw samples to what the model takes.

    Images are decoded, brought to `colour`, resized, cropped, scaled, normalized (``(pixel * scale - mean) / std``, for
    each channel) and laid out, in this order.
    """

    function: str | None = None
    """``FILE.py:function`` or ``module:function``, in place of everything below: is called with one raw sample (a line
    of text, a JSON object, the row of a ``.npz``, what the data's own function yields, an image as uint8 RGB
    [height, width, 3]) and returns a dict of arrays, named like the inputs, without the batch."""
    resize: _Size | None = None
    """A number: the length of the shorter side, the other one in proportion. Two: height and width. Left out together
    with `crop`, images are resized to the model's own height and width, where those are fixed."""
    crop: _Size | None = None
    """Height and width (one number for both) of what is kept, around the centre."""
    colour: Colour | None = None
    """By default grey for an input of one channel, else RGB."""
    layout: Layout | None = None
    """By default read off the input's dims: where the 1, 3 or 4 stands."""
    interpolation: Interpolation = Interpolation.BILINEAR
    scale: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """What pixels (0 to 255) are multiplied with; by default 1/255 for an input of floats and 1 for one of integers."""
    mean: tuple[float, ...] = ()
    """Subtracted from the scaled pixels: a number for each channel, in the order of `colour`, or one for all."""
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = ()
    """What they are then divided by."""

    def require_function(self) -> None:
        """Refuse what the function would make useless.

        Raises:
            UsageError: names it.
        """
        others = [name for name in self.__struct_fields__[1:] if getattr(self, name) != _DEFAULTS[name]]
        if self.function is not None and others:
            raise UsageError(
                f"a function makes the arrays by itself, and {', '.join(others)} would not be heeded",
                hint="leave one of them out",
                code="preprocess.function",
            )

    def require_pair(self, name: str) -> None:
        """Refuse a size that is not one number or two.

        Raises:
            UsageError: says how many there are.
        """
        size = getattr(self, name)
        if isinstance(size, tuple) and len(size) != 2:
            raise UsageError(
                f"it has {len(size)} numbers",
                hint="give one number, or two: [height, width]",
                code="preprocess.size",
            )

    def require_channels(self, name: str) -> None:
        """Refuse another number of channels than the colour has.

        Raises:
            UsageError: says both.
        """
        count, channels = len(getattr(self, name)), 1 if self.colour is Colour.GREY else 3
        if count not in (0, 1, channels) and (self.colour is not None or count != 1):
            raise UsageError(
                f"it has {count} numbers, and an image {channels} channel{'s' * (channels > 1)}",
                hint="give a number for each channel, or one for all",
                code="preprocess.channels",
            )


_DEFAULTS = dict(zip(PreprocessOptions.__struct_fields__, PreprocessOptions.__struct_defaults__, strict=True))

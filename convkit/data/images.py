"""Images to arrays, as `[preprocess]` describes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from convkit.errors import InputError
from convkit.graph.model import numpy_dtype
from convkit.spec.preprocess import Colour, Interpolation, Layout, PreprocessOptions
from convkit.spec.tensor import Interface, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"},
)
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's words for more than 8 bits a channel."""

MOST_PIXELS = 1 << 27
"""Of an image once it is resized: 400 MB in RGB. One that is long and narrow grows large where its short side does."""


class ImageForm(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's input takes of an image."""

    input: str
    dtype: np.dtype[Any]
    colour: Colour
    layout: Layout | None
    """None: the input has no axis for channels."""
    height: int | None
    width: int | None
    """None: any."""


def form_of(interface: Interface, options: PreprocessOptions) -> ImageForm:
    """Read off the model's input what its images are.

    Raises:
        InputError: it has several inputs, or one that images do not fit; the layout cannot be told.
    """
    if len(interface.inputs) != 1:
        names = ", ".join(spec.name for spec in interface.inputs)
        raise InputError(
            f"a folder of images feeds one input, and the model has {len(interface.inputs)}: {names}",
            hint="make the arrays of every input with [preprocess] function, or with --calibration-data "
            "FILE.py:function",
            code="data.image-input",
        )
    (spec,) = interface.inputs
    dims = spec.dims[1:]
    layout = _layout(dims, options.layout) if len(dims) == 3 else None
    channels = dims[0 if layout is Layout.NCHW else -1] if layout is not None else 1
    colour = options.colour or (Colour.GREY if channels == 1 else Colour.RGB)
    if len(dims) not in (2, 3) or (len(dims) == 3 and layout is None):
        unclear = ": its dims do not tell the layout" if len(dims) == 3 else ""
        raise _not_of_images(spec, unclear)
    if channels != (1 if colour is Colour.GREY else 3) and isinstance(channels, int):
        raise _not_of_images(spec, f" in {colour.value}")
    high, wide = dims[1:] if layout is Layout.NCHW else dims[:2]
    return ImageForm(
        input=spec.name,
        dtype=numpy_dtype(spec.dtype),
        colour=colour,
        layout=layout,
        height=high if isinstance(high, int) else None,
        width=wide if isinstance(wide, int) else None,
    )


def _layout(dims: tuple[int | str, ...], asked: Layout | None) -> Layout | None:
    first, last = (dims[at] in (1, 3) for at in (0, -1))
    return asked or (None if first == last else Layout.NCHW if first else Layout.NHWC)


def _not_of_images(spec: TensorSpec, why: str) -> InputError:
    return InputError(
        f"the input {spec} is none that images fit{why}",
        hint='say in the recipe how they are laid out: [preprocess] layout = "nchw" or "nhwc", colour = "grey"; or '
        "make the arrays yourself, with [preprocess] function",
        code="data.image-input",
    )


def image_array(path: Path, form: ImageForm, options: PreprocessOptions) -> np.ndarray:
    """Return an image as one row of the input.

    Raises:
        InputError: it cannot be read, would be huge once resized, or is smaller than what is to be cropped from it.
    """
    import numpy as np

    image = open_image(path, form.colour)
    image = _resized(image, form, options, path)
    image = _cropped(image, options, path)
    pixels = np.asarray(image)
    if form.colour is Colour.BGR:
        pixels = pixels[..., ::-1]
    array = _scaled(pixels.reshape(*pixels.shape[:2], -1), form, options, path)
    if form.layout is None:
        return array[..., 0]
    return np.ascontiguousarray(array.transpose(2, 0, 1)) if form.layout is Layout.NCHW else array


def open_image(path: Path, colour: Colour = Colour.RGB) -> Image:
    """Decode an image to 8 bits a channel: one channel for grey, else three in the order RGB.

    Raises:
        InputError: it is damaged, none that Pillow knows, or has more than 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in _DEEP:
                raise ValueError(f"its channels have more than 8 bits ({image.mode})")  # noqa: TRY301 - told as any
            return image.convert("L" if colour is Colour.GREY else "RGB")
    except Exception as error:  # decoders raise what they like
        raise InputError(
            f"{path} cannot be read as an image: {str(error) or type(error).__name__}",
            hint="take it out of the folder, or save it again as an 8-bit PNG or JPEG",
            code="data.image",
        ) from error


def _resized(image: Image, form: ImageForm, options: PreprocessOptions, path: Path) -> Image:
    from PIL import Image as pillow  # noqa: N813 - a module of the name of its class

    wide, high = image.size
    match options.resize:
        case int(short):
            size = (short, short * high // wide) if wide <= high else (short * wide // high, short)
        case (int(height), int(width)):
            size = (width, height)
        case _:
            whole = options.crop is None
            size = ((form.width or wide), (form.height or high)) if whole else (wide, high)
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(
            f"{path} has {high} x {wide} pixels, and would have {size[1]} x {size[0]} once it is resized",
            hint="give both sides, [preprocess] resize = [height, width], or take it out of the folder",
            code="data.image-size",
        )
    how = {
        Interpolation.NEAREST: pillow.Resampling.NEAREST,
        Interpolation.BILINEAR: pillow.Resampling.BILINEAR,
        Interpolation.BICUBIC: pillow.Resampling.BICUBIC,
        Interpolation.LANCZOS: pillow.Resampling.LANCZOS,
    }[options.interpolation]
    return image if size == image.size else image.resize(size, how)


def _cropped(image: Image, options: PreprocessOptions, path: Path) -> Image:
    if options.crop is None:
        return image
    height, width = (options.crop, options.crop) if isinstance(options.crop, int) else options.crop
    wide, high = image.size
    if wide < width or high < height:
        raise InputError(
            f"{path} has {high} x {wide} pixels once it is resized, and {height} x {width} are to be cropped from it",
            hint="resize to more first ([preprocess] resize), or crop less",
            code="data.image-size",
        )
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _scaled(pixels: np.ndarray, form: ImageForm, options: PreprocessOptions, path: Path) -> np.ndarray:
    """Return ``(pixels * scale - mean) / std`` in the input's type, rounded where that is one of integers."""
    import numpy as np

    integers = form.dtype.kind in "iu"
    scale = options.scale or (1.0 if integers else 1 / 255)
    values = pixels * scale
    for numbers, apply in ((options.mean, np.subtract), (options.std, np.divide)):
        if len(numbers) not in (0, 1, pixels.shape[-1]):
            raise InputError(
                f"[preprocess] gives {len(numbers)} numbers for mean or std, and images in {form.colour.value} have "
                f"{pixels.shape[-1]} channels",
                hint="give a number for each channel, or one for all",
                code="preprocess.channels",
            )
        if numbers:
            values = apply(values, np.array(numbers))
    if integers:
        values, bounds = np.rint(values), np.iinfo(form.dtype)
        if values.min() < bounds.min or values.max() > bounds.max:
            raise InputError(
                f"{path} has values from {values.min():g} to {values.max():g}, which {form.dtype} does not hold",
                hint="bring them into its range with scale and mean in [preprocess]",
                code="data.image-range",
            )
    result: np.ndarray = values.astype(form.dtype)
    return result

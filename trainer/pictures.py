"""One picture: it is checked by its header, decoded, and brought to the declared colour and size.

Pillow is imported only where it is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from trainer.decoded import Shape
from trainer.image_source import MODES, MOST_ENCODED, MOST_PIXELS, reading, too_large, too_long
from trainer.table_files import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = Literal["grey", "rgb"]
FORMATS = ("JPEG", "PNG")
OTHER_MODES = {
    "1": "black and white",
    "P": "of a palette",
    "PA": "of a palette with transparency",
    "LA": "grey with transparency",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
}
"""Modes that `colour` converts."""


def pixels_of(
    where: str,
    given: bytes | np.ndarray,
    colour: Colour | None,
    resize: tuple[int, ...] | None,
    shape: Shape | None,
) -> np.ndarray:
    """The pixels of an image as (height, width, channels), converted and resized where that is declared.

    An image of another shape than `shape` is refused before it is decoded.
    """
    from PIL.Image import Resampling, fromarray

    if isinstance(given, np.ndarray):
        picture = fromarray(given[:, :, 0] if given.shape[2] == 1 else given)
    else:
        picture = _opened(where, given, convert=colour is not None)
    mode = {"grey": "L", "rgb": "RGB", None: picture.mode}[colour]
    found = (MODES[mode], *(resize or (picture.height, picture.width)))
    if shape and found != shape:
        raise DataError(_other_shape(where, found, shape))
    with reading(f"{where}:"):
        picture = picture if mode == picture.mode else picture.convert(mode)
        if resize:
            picture = picture.resize((resize[1], resize[0]), Resampling.BILINEAR)
        return np.asarray(picture).reshape(picture.height, picture.width, MODES[mode])


def _opened(where: str, encoded: bytes, *, convert: bool) -> Image:
    """The image by its header, not decoded. What could not be trained on is refused."""
    from PIL import Image

    if not encoded:
        raise DataError(f"{where}: is empty.")
    if len(encoded) > MOST_ENCODED:
        raise DataError(too_long(where, len(encoded)))
    with reading(f"{where}:"):
        try:
            picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        except Image.UnidentifiedImageError:
            raise DataError(f"{where}: is no {' or '.join(FORMATS)}. Save it as one of these.") from None
    if picture.width * picture.height > MOST_PIXELS:
        raise DataError(too_large(where, picture.width, picture.height))
    if getattr(picture, "n_frames", 1) > 1:
        raise DataError(f"{where}: holds several pictures. Save one of them.")
    # Pillow would cut 16 bits of colour to 8 and say nothing; the depth stands in the first chunk of a PNG
    if picture.format == "PNG" and encoded[24] == 16:
        raise DataError(f"{where}: has 16 bits a value. Save it with 8.")
    if picture.mode not in MODES and not (convert and picture.mode in OTHER_MODES):
        kind = OTHER_MODES.get(picture.mode, picture.mode)
        raise DataError(
            f"{where}: is {kind}. Save it as grey or RGB, or declare colour: rgb or grey (--colour)."
        )
    return picture


def _other_shape(where: str, found: Sequence[int], shape: Shape) -> str:
    if found[1:] != shape[1:]:
        return (
            f"{where}: has {found[1]} x {found[2]} pixels (height x width), where {shape[1]} x {shape[2]} "
            f"were expected. Declare resize: [{shape[1]}, {shape[2]}] (--resize {shape[1]} {shape[2]})."
        )
    kinds = {1: "grey", 3: "RGB"}
    return (
        f"{where}: is {kinds[found[0]]}, where {kinds[shape[0]]} was expected. "
        "Declare colour: rgb or grey (--colour), to convert all."
    )

"""Image files as arrays: any format, orientation and depth, at the size that a network takes.

===================  ===========================================================================
in the file          in the array
===================  ===========================================================================
grey, black-white    one channel
colour, palette      red, green and blue; CMYK is converted
16 bits a pixel      v / 257, rounded
transparency         the picture on white
EXIF orientation     applied: what was up is up
several pictures     the first
===================  ===========================================================================

Pillow reads the files; it is in the extra `images`.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nnlab.errors import InputError, MissingPackageError, needs
from nnlab.paths import reading, user_path

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
Fit = Literal["crop", "stretch", "pad"]

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF: height and width change places


class Resize(NamedTuple):
    """A size, and how a picture of another shape gets it.

    Attributes:
        height, width: in pixels.
        fit: "crop" scales until the picture covers the size and cuts off what is over, as much on
            one side as on the other; "stretch" scales each side by itself; "pad" scales until the
            picture fits and fills up with black. Scaling is bilinear over the area of each pixel.
    """

    height: int
    width: int
    fit: Fit = "crop"

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return an image [height, width, channels] of this size, uint8 of 1 or 3 channels.

        Raises:
            InputError: it is not uint8 or has another number of channels.
        """
        with needs("images"):
            from PIL import Image

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise InputError(
                f"an image to resize is {image.dtype} of shape {list(image.shape)}, expected uint8 "
                "[height, width, 1 or 3]."
            )
        return self._array(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))

    def placed(self, height: int, width: int) -> "Placed":
        """Return where the pixels of a picture of this size come to be.

        Raises:
            InputError: `fit` is none.
        """
        ratio, own = self.width / self.height, width / height
        if self.fit == "stretch" or own == ratio:
            return Placed(self.height / height, self.width / width)
        if self.fit == "crop":
            part = (height, ratio * height) if own > ratio else (width / ratio, width)
            down, across = self.height / part[0], self.width / part[1]
            top, left = (height - part[0]) / 2, (width - part[1]) / 2
            return Placed(down, across, -top * down, -left * across)
        if self.fit == "pad":
            high, wide = self.height, self.width
            if own > ratio:
                high = round(height / width * self.width)
            else:
                wide = round(width / height * self.height)
            top, left = round((self.height - high) / 2), round((self.width - wide) / 2)
            return Placed(high / height, wide / width, top, left)
        raise self._no_fit()

    def _no_fit(self) -> InputError:
        return InputError(f"fit is {self.fit!r}, expected one of {', '.join(get_args(Fit))}.")

    def _array(self, picture: Any) -> np.ndarray:
        from PIL import Image, ImageOps

        size, method = (self.width, self.height), Image.Resampling.BILINEAR
        if picture.size != size:
            match self.fit:
                case "crop":
                    picture = ImageOps.fit(picture, size, method)
                case "stretch":
                    picture = picture.resize(size, method)
                case "pad":
                    picture = ImageOps.pad(picture, size, method)
                case _:
                    raise self._no_fit()
        return _channels_last(picture)


class Placed(NamedTuple):
    """Where a picture is after `Resize`: y is at `down` · y + `top`, x at `across` · x + `left`.

    Attributes:
        down, across: scales of height and width.
        top, left: where the picture begins, in pixels; negative where it is cut off.
    """

    down: float
    across: float
    top: float = 0.0
    left: float = 0.0

    def move(self, boxes: np.ndarray) -> np.ndarray:
        """Return where boxes (x1, y1, x2, y2) of the picture, [n, 4], come to be."""
        return boxes * ([self.across, self.down] * 2) + ([self.left, self.top] * 2)

    def move_back(self, boxes: np.ndarray) -> np.ndarray:
        """Return the boxes [n, 4] of the picture that come to be these."""
        return (boxes - [self.left, self.top] * 2) / ([self.across, self.down] * 2)


class Shape(NamedTuple):
    """What the header of a file says: size in pixels, upright, and 1 or 3 channels."""

    height: int
    width: int
    channels: int


def picture_shape(path: str | os.PathLike[str]) -> Shape:
    """Return size and channels of the picture in a file, from its header alone.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    with opened(path) as picture:
        width, height = picture.size
        if picture.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        return Shape(height, width, 1 if picture.mode in _GREY else 3)


def picture_orientation(path: str | os.PathLike[str]) -> int:
    """Return the EXIF orientation of the picture in a file, 1 to 8; 1 is upright, or none is said.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    with opened(path) as picture:
        found = picture.getexif().get(_ORIENTATION, 1)
        return found if found in range(1, 9) else 1


def read_picture(
    path: str | os.PathLike[str], channels: int | None = None, resize: Resize | None = None
) -> np.ndarray:
    """Read the picture in a file.

    Args:
        path: a file of one of the formats of `SUFFIXES`, whatever its name.
        channels: 1 for grey (ITU-R 601-2 luma of a colour picture), 3 for colour; by default as
            the file has them.
        resize: the size to bring it to; by default its own.

    Returns:
        uint8 [height, width, channels].

    Raises:
        InputError: it cannot be read, is no image, is damaged or cut off, or its numbers are
            neither of 8 nor of 16 bits.
    """
    with opened(path) as picture:
        from PIL import ImageOps

        grey = picture.mode in _GREY if channels is None else channels == 1
        if resize is not None:  # a JPEG is decoded at a half, a quarter or an eighth of its size
            largest = 2 * max(resize.height, resize.width)
            picture.draft(None, (largest, largest))
        picture = ImageOps.exif_transpose(picture)
        picture = _eight_bits(picture, path)
        if picture.has_transparency_data:
            picture = _on_white(picture)
        mode = "L" if grey else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        return _channels_last(picture) if resize is None else resize._array(picture)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a picture of Pillow; whatever that raises in the block is one sentence.

    Raises:
        InputError: it cannot be read, or is no image.
    """
    with needs("images"):
        from PIL import Image, UnidentifiedImageError

    path = user_path(path)
    with reading(path):
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected an image.")
        file = path.open("rb")
    with file:
        try:
            yield Image.open(file)
        except InputError:
            raise
        except UnidentifiedImageError as error:
            what = "is no image that Pillow knows" if file.seek(0, os.SEEK_END) else "is empty"
            expected = "expected PNG, JPEG or another format"
            raise InputError(f"{path} {what}; {expected}.") from error
        except Exception as error:  # Pillow's readers have no common base
            reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(f"{path} cannot be read as an image: {reason}.") from error


def _eight_bits(picture: Any, path: Any) -> Any:
    """Return a grey picture of 16 bits, which Pillow may hold as 32, in 8."""
    if picture.mode != "I" and not picture.mode.startswith("I;16"):
        if picture.mode == "F":
            raise InputError(f"{path} holds floating-point pixels, expected 8 or 16 bits.")
        return picture
    from PIL import Image

    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise InputError(
            f"{path} holds pixels from {values.min()} to {values.max()}, expected 8 or 16 bits."
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _on_white(picture: Any) -> Any:
    from PIL import Image

    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _channels_last(picture: Any) -> np.ndarray:
    pixels = np.array(picture)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def reason(error: InputError, path: str | os.PathLike[str]) -> str:
    """Return what the error of reading a picture says of its file, without the file's name.

    Raises:
        MissingPackageError: if that is what the error is.
    """
    if isinstance(error, MissingPackageError):
        raise error
    return str(error).removeprefix(f"{user_path(path)} ").partition(";")[0].rstrip(".")


def is_picture(path: Path) -> bool:
    """Return whether a file has the suffix of a format that can be read."""
    return path.suffix.lower() in SUFFIXES

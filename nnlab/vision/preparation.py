r"""How a network's images are prepared, kept beside its weights so that others can do the same.

A picture x of whole numbers up to 255, at the size of the data set, becomes for each channel

.. math:: z = (x / 255 - \mu) / \sigma,                                        (1)

with a border around it where the network takes larger images than the data set has.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError
from nnlab.vision.pictures import Fit, Resize, read_picture
from nnlab.vision.transforms import margins, pad_to, standardize, standardizer, to_float


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What happens to a picture before a network sees it, in this order.

    Attributes:
        height, width: the size that it is brought to.
        channels: 1 for grey, or 3 for colour; a grey picture then has three equal channels.
        mean, std: one a channel, on the scale of 0 to 1; equation (1).
        fit: how it gets the size (`nnlab.vision.pictures.Resize`).
        border: height and width of the network's images, zeros around the picture; None for none.
        border_first: whether the border is black and added before (1), or zeros after it.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"
    border: tuple[int, int] | None = None
    border_first: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image that the network takes."""
        return (*(self.border or (self.height, self.width)), self.channels)

    @property
    def resize(self) -> Resize:
        """How a picture gets its size."""
        return Resize(self.height, self.width, self.fit)

    def __call__(self, images: np.ndarray) -> jax.Array:
        """Return images as the network takes them, float32 [n, *shape].

        Args:
            images: uint8 [n, height, width, channels], or of 1 channel.

        Raises:
            InputError: they are not uint8, or larger than the border.
        """
        images = self._stored(images)
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        z = standardize(to_float(images), mean, std)  # (1)
        return z if self.border is None else pad_to(z, *self.border)

    def pixels(self, images: np.ndarray | jax.Array) -> np.ndarray:
        """Return the pictures again, uint8 [..., *shape], of images as the network takes them."""
        z = np.asarray(images, np.float64) * self.std + self.mean  # (1) inverted
        return np.rint(255 * z).clip(0, 255).astype(np.uint8)

    def on_host(self, images: np.ndarray) -> np.ndarray:
        """Do the same in NumPy, for the processes that read a stream; to the bit on a CPU."""
        z = standardizer(np.array(self.mean), np.array(self.std))(self._stored(images))  # (1)
        return z if self.border is None else np.pad(z, margins(z.shape, *self.border))

    def _stored(self, images: np.ndarray) -> np.ndarray:
        """Return what (1) is applied to, of the bytes of a data set."""
        if self.border is not None and self.border_first:
            images = np.pad(images, margins(images.shape, *self.border))
        return np.repeat(images, self.channels, axis=-1) if images.shape[-1] == 1 else images

    def read(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Read a picture at the size of the data set, uint8 [height, width, channels].

        Raises:
            InputError: as for `nnlab.vision.pictures.read_picture`.
        """
        return read_picture(path, self.channels, self.resize)

    def as_notes(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> "Preparation":
        """Return what `as_notes` described.

        Raises:
            InputError: it is not whole, or of a later nnlab.
        """
        try:
            values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in notes.items()}
            found = cls(**values)
            if len(found.mean) == len(found.std) == found.channels:
                return found
        except TypeError:
            pass
        raise InputError(
            f"images are to be prepared by {dict(notes)}, expected "
            f"{', '.join(field.name for field in dataclasses.fields(cls))}."
        )

r"""What a layer sees: its maps, the patches that move it most, and what would move it most.

A unit of a convolution is its response y at one place p of its map, and sees of the input x a
window around p, its receptive field.

- `activations`: the maps of a layer.
- `receptive_field`: the window, where dy/dx is not 0 for some of many random inputs.
- `strongest`, `patches`: the windows of a data set in which a unit responds most strongly, at most
  one of an image.
- `maximise`: argmax_x y(x) over inputs between two bounds, by gradient ascent.

What the last one finds differs with the arithmetic. Of a first layer that multiplies, y = x.w, it
is at a bound everywhere, at the upper one where w > 0 and else at the lower one; the wider the
bounds, the larger is y. Of signs it is the same. An adder's y = -|x - w| has its maximum, 0, where
x = w: the filter itself, whatever the bounds, as long as it is within. So an adder layer's filters
are pictures of what it looks for, and those of a layer that multiplies say in which direction to
look. Further up there is no such answer, and the ascent finds a local maximum.

References:
    Erhan et al., Visualizing higher-layer features of a deep network, 2009, for `maximise`. Zeiler
    & Fergus, Visualizing and understanding convolutional networks, ECCV 2014,
    https://arxiv.org/abs/1311.2901, section 3, for the nine strongest patches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nnlab.costs.modules import module_calls
from nnlab.errors import InputError, check_count

_BATCH = 500
_INPUTS = 64  # that the receptive field is found with
_RATE = 0.05  # of Adam, in parts of half the range between the bounds


class Window(NamedTuple):
    """Which part of an image a unit sees: at place p of its map the one from `first + p step`.

    Attributes:
        first, step, size: (rows, columns). A map of one place has a step of 0.
    """

    first: tuple[int, int]
    step: tuple[int, int]
    size: tuple[int, int]

    def at(self, place: tuple[int, int]) -> tuple[int, int]:
        """Return the first row and column; below 0 in the padding."""
        (a, b), (r, s), (i, j) = self.first, self.step, place
        return int(a + i * r), int(b + j * s)


class Strongest(NamedTuple):
    """Where units respond most strongly.

    Attributes:
        values: responses, float32 [units, count], from the strongest on.
        examples: number of the image, int [units, count].
        places: row and column in the map, int [units, count, 2].
    """

    values: np.ndarray
    examples: np.ndarray
    places: np.ndarray


def map_layers(model: nn.Module, variables: Any, images: Any) -> list[str]:
    """Return the names of a model's layers that have a kernel and a map, in order.

    Args:
        model: called as `model.apply(variables, images)` for inference.
        variables, images: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        Paths joined by "/", such as "block/Conv_0".
    """
    calls = module_calls(model, variables, images)
    return ["/".join(call.path) for call in calls if call.terms and jnp.ndim(call.output) == 4]


def activations(model: nn.Module, variables: Any, layer: str) -> Callable[[jax.Array], jax.Array]:
    """Return a function from images to what a layer returns, before normalisation and activation.

    Args:
        model: called as `model.apply(variables, images)` for inference.
        variables: its parameters and statistics.
        layer: its path, joined by "/"; of several calls the first.

    Returns:
        From images [n, height, width, channels] to [n, rows, columns, units]; a layer without
        places has one row and one column. It raises an `InputError` if there is no such layer.
    """
    path = tuple(layer.split("/"))

    def maps(images: jax.Array) -> jax.Array:
        found: Any = model.apply(
            variables,
            images,
            capture_intermediates=lambda module, method: (
                module.path == path and method == "__call__"
            ),
            mutable=["intermediates"],
        )[1]
        for name in ("intermediates", *path):
            found = found.get(name, {})
        if "__call__" not in found:
            names = ", ".join(map_layers(model, variables, images))
            raise InputError(f"there is no layer {layer!r}; expected one such as {names}.")
        values = found["__call__"][0]
        return values if values.ndim == 4 else values.reshape(len(values), 1, 1, -1)

    return maps


def receptive_field(
    key: jax.Array, maps: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]
) -> Window:
    """Find the window of an image that a place of a layer's map depends on.

    It is the smallest box around all pixels whose derivative is not zero for any of 64 images of
    normal noise, and any unit. Windows larger than the image are found as large as that.

    Args:
        key: for the noise.
        maps: as `activations` returns it.
        shape: of an image, (height, width, channels).

    Raises:
        InputError: no derivative is other than zero, as in an adder network that has not been
            trained and whose statistics are those of no data.
    """
    noise, weights = jax.random.split(key)
    images = jax.random.normal(noise, (_INPUTS, *shape))
    _, rows, columns, units = jax.eval_shape(maps, images).shape
    weights = jax.random.normal(weights, (units,))

    @jax.jit
    def seen(place: jax.Array) -> jax.Array:
        slopes = jax.grad(lambda x: (maps(x)[:, place[0], place[1]] @ weights).sum())(images)
        return (slopes != 0).any((0, 3))

    def box(place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.argwhere(np.asarray(seen(jnp.array(place))))
        if not len(pixels):
            raise InputError(
                "the layer has no derivative by its inputs; expected a network whose activations"
                " are not all shut, such as a trained one."
            )
        return pixels.min(0), pixels.max(0) + 1

    middle = rows // 2, columns // 2
    start, end = box(middle)
    before, _ = box((max(0, middle[0] - 1), max(0, middle[1] - 1)))
    step = start - before
    first = start - step * middle
    return Window(*(tuple(map(int, each)) for each in (first, step, end - start)))  # pyright: ignore


def strongest(
    maps: Callable[[jax.Array], jax.Array], images: jax.Array, count: int = 9
) -> Strongest:
    """Find the images, and the places in them, in which each unit responds most strongly.

    Args:
        maps: as `activations` returns it.
        images: [n, height, width, channels], at least `count`.
        count: how many for each unit, each of another image.

    Raises:
        InputError: there are fewer images.
    """
    check_count("count", count)
    if len(images) < count:
        raise InputError(f"{len(images)} images were given, expected at least count = {count}.")

    @jax.jit
    def best(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        values = maps(images)
        _, _, columns, units = values.shape
        values = values.reshape(len(images), -1, units)
        where = values.argmax(1)
        return values.max(1), where // columns, where % columns

    found = [best(images[n : n + _BATCH]) for n in range(0, len(images), _BATCH)]
    values, rows, columns = (np.concatenate(each) for each in zip(*found, strict=True))
    order = np.argsort(-values, axis=0, kind="stable")[:count]
    places = np.stack([rows, columns], -1)
    units = np.arange(values.shape[1])
    return Strongest(values[order, units].T, order.T, places[order, units].transpose(1, 0, 2))


def patches(images: jax.Array, window: Window, found: Strongest) -> np.ndarray:
    """Cut out what units saw, float32 [units, count, height, width, channels]; NaN beside images.

    Args:
        images: those that `strongest` was given.
        window: the layer's receptive field.
        found: as `strongest` returns it.
    """
    height, width = window.size
    cut = np.full((*found.examples.shape, height, width, images.shape[-1]), np.nan, np.float32)
    for unit, number in np.ndindex(found.examples.shape):
        image = np.asarray(images[int(found.examples[unit, number])])
        cut[unit, number] = _window(image, window, found.places[unit, number])
    return cut


def maximise(
    key: jax.Array,
    maps: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
    bounds: tuple[Any, Any],
    steps: int = 300,
) -> tuple[jax.Array, jax.Array]:
    """Find for each unit an image at which it responds strongly, by ascent with Adam.

    Args:
        key: for the small noise around the middle of the bounds in which the ascent starts.
        maps: as `activations` returns it; the unit is that at the middle of its map.
        shape: of an image, (height, width, channels).
        bounds: the lowest and highest value of a pixel, numbers or one a channel.
        steps: of the ascent, whose rate falls to zero as a cosine.

    Returns:
        Images [units, *shape], and the responses to them, [units]. Pixels outside of the receptive
        field are as they were.

    Raises:
        InputError: the lower bound is not below the upper one, or there are no steps.
    """
    check_count("steps", steps)
    low, high = (jnp.broadcast_to(jnp.asarray(b, jnp.float32), shape[-1:]) for b in bounds)
    if not bool((low < high).all()):
        raise InputError(f"bounds are {bounds}, expected a lower one below an upper one.")
    middle, half = (low + high) / 2, (high - low) / 2
    _, rows, columns, units = jax.eval_shape(maps, jnp.zeros((1, *shape))).shape
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, steps))

    def responses(x: jax.Array) -> jax.Array:
        values = maps(middle + half * x)[:, rows // 2, columns // 2]
        return values[jnp.arange(units), jnp.arange(units)]

    @jax.jit
    def ascend(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(carry, _):
            x, state = carry
            slopes = jax.grad(lambda x: -responses(x).sum())(x)
            updates, state = optimizer.update(slopes, state)
            return (jnp.clip(x + updates, -1, 1), state), None

        (x, _), _ = lax.scan(step, (x, optimizer.init(x)), length=steps)
        return middle + half * x, responses(x)

    return ascend(0.05 * jax.random.normal(key, (units, *shape)))


def cut_middle(images: jax.Array, window: Window, rows_columns: tuple[int, int]) -> np.ndarray:
    """Cut the window of the middle place of a map of so many rows and columns out of images.

    Args:
        images: [n, height, width, channels].
        window: the layer's receptive field.
        rows_columns: size of the layer's map.

    Returns:
        float32 [n, *window.size, channels]; NaN beside the images.
    """
    place = rows_columns[0] // 2, rows_columns[1] // 2
    return np.stack([_window(np.asarray(image), window, place) for image in images])


def _window(image: np.ndarray, window: Window, place: Any) -> np.ndarray:
    (top, left), (height, width) = window.at(place), window.size
    wide = [(height, height), (width, width), (0, 0)]
    padded = np.pad(image.astype(np.float32), wide, constant_values=np.nan)
    top, left = top + height, left + width
    return padded[top : top + height, left : left + width]

"""Data sets, random numbers and initial weights, the same in Python and in the page.

All are functions of a seed alone, so that a lesson can be repeated: random words are threefry's
(Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011), as JAX's are, of the key
(seed, stream) and the number of the point.

Points [n, 2] lie in [-3, 3]². Labels of the classes 0, 1, … are floats, as those of a regression,
which lie in [-1, 1], are. `noise` is from 0 to 0.5. Noise moves the point that decides the label,
except for the spiral, whose points it moves, and for the clouds, which it widens.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nnlab.playground.network import Settings, kernel_name

# Streams of random words for one seed.
POINTS, NOISE, SPLIT = 1, 2, 3
WEIGHTS = 100  # and the layer's number
ORDER = 1000  # and the epoch


def words(index: jax.Array, seed: jax.Array, stream: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return two random words for each number in `index`, all uint32: threefry2x32."""
    keys = (seed, stream, seed ^ stream ^ jnp.uint32(0x1BD11BDA))
    a, b = index + keys[0], jnp.zeros_like(index) + keys[1]
    rotations = (13, 15, 26, 6), (17, 29, 16, 24)
    for block in range(5):
        for rotation in rotations[block % 2]:
            a = a + b
            b = a ^ (b << jnp.uint32(rotation) | b >> jnp.uint32(32 - rotation))
        a = a + keys[(block + 1) % 3]
        b = b + keys[(block + 2) % 3] + jnp.uint32(block + 1)
    return a, b


def uniform(index: jax.Array, seed: jax.Array, stream: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return two numbers in [0, 1) for each number in `index`."""
    return tuple((word >> 8).astype(jnp.float32) * 2**-24 for word in words(index, seed, stream))


def normal(index: jax.Array, seed: jax.Array, stream: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return two numbers of N(0, 1) for each number in `index` (Box and Muller, 1958)."""
    u, v = uniform(index, seed, stream)
    radius = jnp.sqrt(-2 * jnp.log(1 - u))
    return radius * jnp.cos(2 * math.pi * v), radius * jnp.sin(2 * math.pi * v)


class Draw(NamedTuple):
    """What a data set is made of: for each point its number, uniform and moved places, [n]."""

    index: jax.Array
    u: jax.Array
    v: jax.Array
    du: jax.Array
    dv: jax.Array
    count: jax.Array
    classes: jax.Array
    noise: jax.Array


def circle(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rings around each other, as many as classes, the innermost a disc."""
    gap = 0.4
    width = (2.5 - gap * (draw.classes - 1)) / draw.classes
    ring = (draw.index % draw.classes.astype(jnp.uint32)).astype(jnp.float32)
    radius = ring * (width + gap) + width * draw.u
    x, y = radius * jnp.cos(2 * math.pi * draw.v), radius * jnp.sin(2 * math.pi * draw.v)
    moved = jnp.sqrt((x + draw.du) ** 2 + (y + draw.dv) ** 2)
    label = jnp.floor((moved + gap / 2) / (width + gap))
    return x, y, jnp.clip(label, 0, draw.classes - 1)


def xor(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two classes by the sign of x y; three or four by the quadrant."""

    def apart(u):
        return (u - 0.5) * 5 + jnp.where(u >= 0.5, 0.15, -0.15)

    x, y = apart(draw.u), apart(draw.v)
    right, up = x + draw.du >= 0, y + draw.dv >= 0
    parity = (right != up).astype(jnp.float32)
    quadrant = 2 * up.astype(jnp.float32) + parity
    return x, y, jnp.where(draw.classes > 2, jnp.minimum(quadrant, draw.classes - 1), parity)


def gauss(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Clouds around the corners of a regular polygon."""
    label = (draw.index % draw.classes.astype(jnp.uint32)).astype(jnp.float32)
    angle = 2 * math.pi * label / draw.classes + math.pi / 4
    spread = 0.35 + 1.2 * draw.noise
    radius = spread * jnp.sqrt(-2 * jnp.log(1 - draw.u))
    x = 1.5 * jnp.cos(angle) + radius * jnp.cos(2 * math.pi * draw.v)
    y = 1.5 * jnp.sin(angle) + radius * jnp.sin(2 * math.pi * draw.v)
    return jnp.clip(x, -3, 3), jnp.clip(y, -3, 3), label


def spiral(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Arms that wind around each other, as many as classes."""
    arms = draw.classes.astype(jnp.uint32)
    label = (draw.index % arms).astype(jnp.float32)
    along = (draw.index // arms).astype(jnp.float32) * draw.classes / draw.count
    angle = 1.75 * 2 * math.pi * along + 2 * math.pi * label / draw.classes
    x = 2.5 * along * jnp.sin(angle) + draw.du / 2
    return x, 2.5 * along * jnp.cos(angle) + draw.dv / 2, label


def plane(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Regression: a slope along the diagonal."""
    x, y = 6 * draw.u - 3, 6 * draw.v - 3
    return x, y, jnp.clip((x + draw.du + y + draw.dv) / 5, -1, 1)


def hills(draw: Draw) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Regression: three hills and three hollows; the nearest decides."""
    x, y = 6 * draw.u - 3, 6 * draw.v - 3
    height = jnp.zeros_like(x)
    for row, cx in enumerate((-2.0, 0.0, 2.0)):
        for column, cy in enumerate((-1.25, 1.25)):
            far = jnp.sqrt((x + draw.du - cx) ** 2 + (y + draw.dv - cy) ** 2)
            here = jnp.maximum(0, 1 - far) * (-1.0) ** (row + column)
            height = jnp.where(jnp.abs(here) > jnp.abs(height), here, height)
    return x, y, height


SETS: dict[str, Callable[[Draw], tuple[jax.Array, jax.Array, jax.Array]]] = {
    each.__name__: each for each in (circle, xor, gauss, spiral, plane, hills)
}


def points(
    name: str,
    index: jax.Array,
    uniform: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    count: jax.Array,
    classes: jax.Array,
    noise: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return points [n, 2] and labels [n].

    Args:
        name: of the set.
        index: the numbers 0 to n - 1, uint32.
        uniform: the two numbers of `POINTS` and the two of `NOISE` for each point.
        count, classes, noise: float32: n, the number of classes, and the noise.
    """
    u, v, du, dv = uniform
    reach = 6 * noise
    draw = Draw(index, u, v, (du - 0.5) * reach, (dv - 0.5) * reach, count, classes, noise)
    x, y, label = SETS[name](draw)
    return jnp.stack([x, y], 1), label


def features(xy: jax.Array) -> jax.Array:
    """Return all of `FEATURES`, [7, n], of points [n, 2]."""
    x, y = (lax.index_in_dim(xy, axis, 1, keepdims=False) for axis in (0, 1))
    return jnp.stack([x, y, x * x, y * y, x * y, jnp.sin(2 * x), jnp.sin(2 * y)])


def order(count: int, seed: int, stream: int) -> np.ndarray:
    """Return the numbers 0 to `count` - 1 in random order: sorted by their random words."""
    word, _ = words(jnp.arange(count, dtype=jnp.uint32), jnp.uint32(seed), jnp.uint32(stream))
    return np.argsort(np.asarray(word), kind="stable")


def start(arithmetic: str, fan_in: int, fan_out: int, number: int, seed: int) -> jax.Array:
    """Return the initial weights [fan_in, fan_out] of a layer.

    As published for adder layers N(0, 1), and Glorot's uniform for latent weights of signs; for all
    others He's uniform.
    """
    index = jnp.arange(fan_in * fan_out, dtype=jnp.uint32)
    stream = jnp.uint32(WEIGHTS + number)
    if kernel_name(arithmetic) == "adder_kernel":
        flat = normal(index, jnp.uint32(seed), stream)[0]
    else:
        fan = fan_in + fan_out if kernel_name(arithmetic) == "binary_kernel" else fan_in
        limit = jnp.float32(math.sqrt(6 / fan))
        flat = (2 * uniform(index, jnp.uint32(seed), stream)[0] - 1) * limit
    return flat.reshape(fan_in, fan_out)


def data(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Return the points [n, 2] and labels [n] of a generated set, those for training first.

    The first `n * share // 100` (at least one) are for training.
    """
    index = jnp.arange(settings.points, dtype=jnp.uint32)
    seed = jnp.uint32(settings.seed)
    drawn = [uniform(index, seed, jnp.uint32(stream)) for stream in (POINTS, NOISE)]
    xy, label = points(
        settings.data,
        index,
        (*drawn[0], *drawn[1]),
        jnp.float32(settings.points),
        jnp.float32(settings.classes),
        jnp.float32(settings.noise / 100),
    )
    first = order(settings.points, settings.seed, SPLIT)
    return np.asarray(xy)[first], np.asarray(label)[first]

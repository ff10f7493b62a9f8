"""Control charts, the usual small example of series in classes.

They are simulated by the equations of UCI's 600 "Synthetic control chart time series": with t from
1 to 60, noise r drawn from -3 to 3 at every step, and all else drawn once a chart,

- normal: 30 + 2 r;
- cyclic: + a sin(2 pi t / T), a and T from 10 to 15;
- increasing and decreasing: ± g t, g from 0.2 to 0.5;
- upward and downward shift: ± x from a step from 20 to 40 on, x from 7.5 to 20.

Reference:
    Alcock & Manolopoulos, Time-series similarity queries employing a feature-based approach, 1999.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError

CLASSES = ("normal", "cyclic", "increasing", "decreasing", "upward shift", "downward shift")
STEPS = 60


def control_charts(key: jax.Array, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw charts, float32 [6 each, 60], and their classes, int32 [6 each], in order.

    Raises:
        InputError: `each` is below 1.
    """
    if each < 1:
        raise InputError(f"each must be at least 1, not {each}.")
    keys = iter(jax.random.split(key, 7))

    def uniform(low: float, high: float) -> jax.Array:
        return jax.random.uniform(next(keys), (each, 1), minval=low, maxval=high)

    t = jnp.arange(1, STEPS + 1)
    shifted = t >= uniform(STEPS / 3, 2 * STEPS / 3)
    wave = uniform(10, 15) * jnp.sin(2 * jnp.pi * t / uniform(10, 15))
    trend, shift = uniform(0.2, 0.5) * t, uniform(7.5, 20) * shifted
    courses = jnp.stack([jnp.zeros((each, STEPS)), wave, trend, -trend, shift, -shift])
    noise = jax.random.uniform(next(keys), courses.shape, minval=-3, maxval=3)
    values = np.asarray(30 + 2 * noise + courses).reshape(-1, STEPS)
    return values, np.repeat(np.arange(len(CLASSES), dtype=np.int32), each)

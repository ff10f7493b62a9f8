r"""The simplest detector of anomalies in a series: the distance from the values before.

.. math:: s_i = -\log Q(|x_i - \mu| / \sigma), \qquad Q(z) = 1 - \Phi(z),                    (1)

with the mean and standard deviation of all values before, or of `window` values that begin at a
multiple of `stride`, so that less than `stride` values wait to be counted.

References:
    Lavin & Ahmad, Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark,
    ICMLA 2015, https://arxiv.org/abs/1510.03336, which has it as a baseline; window and stride are
    those of https://github.com/numenta/NAB, nab/detectors/gaussian.
"""

import numpy as np
from jax.scipy.special import log_ndtr


def of_series(values: np.ndarray, window: int = 6400, stride: int = 100) -> np.ndarray:
    """Compute (1) for values [rows], float32 [rows]; the first row scores log 2, as the mean."""
    scores = np.zeros(len(values))
    for i in range(1, len(values)):
        first = max(0, i - window) // stride * stride
        seen = values[first : min(i, first + window)]
        scores[i] = abs(values[i] - seen.mean()) / (seen.std() or 1e-6)
    return -np.asarray(log_ndtr(-scores))  # (1)

from typing import Any

import jax
import numpy as np
import pytest


@pytest.fixture(scope="session")
def random_variables():
    """`random_variables(model, x)` are normal float32 parameters; no program is compiled for it."""

    def variables(model: Any, x: Any) -> Any:
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)
        return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)

    return variables

"""What one inference costs, as the row of a table."""

from collections.abc import Callable
from typing import Any

import jax

from nnlab.costs.counting import count
from nnlab.costs.energy import energy
from nnlab.costs.storage import stored_bytes


def inference_costs(
    apply: Callable[..., Any], variables: Any, image: jax.Array
) -> dict[str, int | float]:
    """Counts the traced program `apply(variables, image)`.

    Args:
        apply: of a model in evaluation mode.
        variables: its parameters and statistics.
        image: [1, height, width, channels]; an array or a `jax.ShapeDtypeStruct`.

    Returns:
        Operations of each kind an image, bytes of the parameters at rest, and energy an image by
        `nnlab.costs.energy`, under names that carry the unit.
    """
    counts = count(apply, variables, image)
    totals = counts.totals()
    return {
        "multiplications": totals["multiplications"],
        "additions": totals["additions"],
        "bit ops": totals["bit_operations"],
        "parameter bytes": stored_bytes(apply, variables, image),
        "energy / nJ": energy(counts) / 1000,
    }

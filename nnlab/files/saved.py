"""A network as a file holds it."""

from typing import Any, NamedTuple

import flax.linen as nn


class SavedModel(NamedTuple):
    """What a file holds: the model, its variables, and what was noted beside them."""

    model: nn.Module
    variables: Any
    notes: dict[str, Any]

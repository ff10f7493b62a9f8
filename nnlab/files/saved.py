"""A model read from a file."""

from typing import Any, NamedTuple

import flax.linen as nn


class SavedModel(NamedTuple):
    """A model, its variables, and the notes that were saved with them."""

    model: nn.Module
    variables: Any
    notes: dict[str, Any]

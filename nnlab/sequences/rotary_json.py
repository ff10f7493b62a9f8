"""The scaling of rotary positions as `config.json` of Hugging Face says it.

`rope_scaling`, or `rope_parameters` in newer files, names linear scaling, dynamic NTK or Llama 3's;
the numbers are the fields of `nnlab.layers.rotary`.
"""

from collections.abc import Mapping
from typing import Any

from nnlab.errors import InputError
from nnlab.layers.rotary import DynamicScaling, LinearScaling, Llama3Scaling

SCALINGS: Mapping[str, tuple[Any, Mapping[str, str]]] = {  # by our fields
    "linear": (LinearScaling, {"factor": "factor"}),
    "dynamic": (DynamicScaling, {"factor": "factor", "trained": "max_position_embeddings"}),
    "llama3": (
        Llama3Scaling,
        {
            "factor": "factor",
            "low_turns": "low_freq_factor",
            "high_turns": "high_freq_factor",
            "trained": "original_max_position_embeddings",
        },
    ),
}


def scaling_of(config: Mapping[str, Any]) -> Any:
    """The scaling of rotary positions that a configuration names, or None.

    Raises:
        InputError: it has another name, or lacks a number.
    """
    told = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = told
    if isinstance(told, Mapping):
        kind = told.get("rope_type", told.get("type", "default"))
        if kind == "default":
            return None
    if not isinstance(kind, str) or kind not in SCALINGS:
        known = ", ".join(SCALINGS)
        raise InputError(f"the scaling of rotary positions is {kind!r}, expected one of {known}.")
    make, keys = SCALINGS[kind]
    values = {field: {**config, **told}.get(key) for field, key in keys.items()}
    if wrong := [k for f, k in keys.items() if not isinstance(values[f], int | float)]:
        raise InputError(f"the scaling {kind!r} of rotary positions lacks the number {wrong[0]}.")
    return make(**values)


def scaling_as_json(scaling: Any) -> dict[str, Any]:
    """What a configuration says of a scaling.

    Raises:
        InputError: it is none of those that have a name there.
    """
    for kind, (made, keys) in SCALINGS.items():
        if type(scaling) is made:
            values = {key: getattr(scaling, field) for field, key in keys.items()}
            size = {k: values.pop(k) for k in ("max_position_embeddings",) if k in values}
            return {"rope_scaling": {"rope_type": kind} | values} | size
    raise InputError(f"the scaling {scaling!r} has no name in Hugging Face's files.")

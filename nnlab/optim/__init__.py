"""Optax gradient transformations."""

from nnlab.optim import schedules
from nnlab.optim.adder import adder_rate
from nnlab.optim.averaging import average_weights, averaged_weights
from nnlab.optim.binary import center_and_clip, clip_latent_weights, glorot_rate
from nnlab.optim.recipes import adder_recipe, labels

__all__ = [
    "adder_rate",
    "adder_recipe",
    "average_weights",
    "averaged_weights",
    "center_and_clip",
    "clip_latent_weights",
    "glorot_rate",
    "labels",
    "schedules",
]

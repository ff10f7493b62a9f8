"""Optax gradient transformations."""

from nnlab.optim import schedules
from nnlab.optim.adder import adder_rate
from nnlab.optim.averaging import average_weights, averaged_weights
from nnlab.optim.binary import clip_latent_weights
from nnlab.optim.bop import bop
from nnlab.optim.majority_vote import majority_vote
from nnlab.optim.recipes import adder_recipe, labels
from nnlab.optim.sign import ef_sign_sgd, error_feedback, scaled_sign

__all__ = [
    "adder_rate",
    "adder_recipe",
    "average_weights",
    "averaged_weights",
    "bop",
    "clip_latent_weights",
    "ef_sign_sgd",
    "error_feedback",
    "labels",
    "majority_vote",
    "scaled_sign",
    "schedules",
]

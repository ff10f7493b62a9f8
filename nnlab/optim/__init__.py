"""Optax gradient transformations."""

from nnlab.optim.adder import adder_rate
from nnlab.optim.averaging import average_weights, averaged_weights
from nnlab.optim.binary import center_and_clip, clip_latent_weights, glorot_rate
from nnlab.optim.bop import bop
from nnlab.optim.flips import flipped, flipped_signs, measure_flips
from nnlab.optim.formats import rounded
from nnlab.optim.freezing import freeze
from nnlab.optim.majority_vote import majority_vote
from nnlab.optim.pruning import (
    cubic_sparsity,
    decay_pruned,
    kernel_mask,
    prune,
)
from nnlab.optim.recipes import adder_recipe, deep_recipe, labels
from nnlab.optim.sign import ef_sign_sgd, error_feedback, scaled_sign

__all__ = [
    "adder_rate",
    "adder_recipe",
    "average_weights",
    "averaged_weights",
    "bop",
    "center_and_clip",
    "clip_latent_weights",
    "cubic_sparsity",
    "decay_pruned",
    "deep_recipe",
    "ef_sign_sgd",
    "error_feedback",
    "flipped",
    "flipped_signs",
    "freeze",
    "glorot_rate",
    "kernel_mask",
    "labels",
    "majority_vote",
    "measure_flips",
    "prune",
    "rounded",
    "scaled_sign",
]

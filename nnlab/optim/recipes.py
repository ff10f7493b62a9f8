"""Optimisers as published, with a part for each kind of weights.

A layer's kind is in the name of its weights: `adder_kernel`, `binary_kernel`, and plain names for
the rest. One optimiser therefore trains a network in any arithmetic.
"""

import jax
import optax

from nnlab.optim.adder import adder_rate
from nnlab.optim.binary import clip_latent_weights


def labels(params):
    """The kind of each leaf, "adder", "binary" or "float", as `optax.partition` takes it."""

    def label(path, _):
        kind, _, kernel = path[-1].key.rpartition("_")
        return kind if kernel == "kernel" and kind else "float"

    return jax.tree_util.tree_map_with_path(label, params)


def adder_recipe(
    steps: int,
    learning_rate: float = 0.1,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 5e-4,
    rate: optax.GradientTransformation | None = None,
    binary_learning_rate: float = 1e-3,
) -> optax.GradientTransformation:
    """SGD of AdderNet's released code, the cosine taken by steps instead of epochs.

    Adder kernels pass through `rate` first; weight decay is added after it and is not rescaled.
    Binary kernels, of which that code has none, follow Adam and stay in [-1, 1] as in BinaryNet.

    Args:
        steps: length of the cosine from the learning rate down to 0.
        learning_rate: of SGD at the first step.
        momentum, nesterov, weight_decay: of SGD; the decay is for all its parameters.
        rate: what happens to the gradients of adder kernels, `adder_rate()` unless given.
        binary_learning_rate: of Adam at the first step.

    References:
        Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (main.py).
        Hubara et al., Binarized Neural Networks, 2016, https://arxiv.org/abs/1602.02830.
    """
    sgd = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(optax.cosine_decay_schedule(learning_rate, steps), momentum, nesterov),
    )
    adam = optax.adam(optax.cosine_decay_schedule(binary_learning_rate, steps))
    return optax.partition(
        {
            "float": sgd,
            "adder": optax.chain(adder_rate() if rate is None else rate, sgd),
            "binary": optax.chain(adam, clip_latent_weights()),
        },
        labels,
    )

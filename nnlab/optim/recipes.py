"""Optimisers as published, with a part for each kind of weights.

A layer's kind is the first word of the name of its weights: `adder_kernel`, `binary_kernel`,
`shift_exponent_kernel`; plain names are for the rest. One optimiser therefore trains a network in
any arithmetic.
"""

from collections.abc import Hashable, Mapping

import jax
import optax

from nnlab.errors import InputError
from nnlab.optim.adder import adder_rate
from nnlab.optim.binary import clip_latent_weights
from nnlab.optim.schedules import MakeSchedule, cosine


def labels(params):
    """The kind of each leaf, such as "adder" or "float", as `optax.partition` takes it."""

    def label(path, _):
        name = path[-1].key
        return name.split("_")[0] if name.endswith("_kernel") else "float"

    return jax.tree_util.tree_map_with_path(label, params)


def adder_recipe(
    steps: int,
    learning_rate: float = 0.1,
    *,
    schedule: MakeSchedule = cosine,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 5e-4,
    rate: optax.GradientTransformation | None = None,
    binary_learning_rate: float = 1e-3,
    shift_learning_rate: float = 0.01,
    parts: Mapping[str, optax.GradientTransformation] | None = None,
) -> optax.GradientTransformation:
    """SGD of AdderNet's released code, the cosine taken by steps instead of epochs.

    Adder kernels pass through `rate` first; weight decay is added after it and is not rescaled.
    Binary kernels, of which that code has none, follow Adam and stay in [-1, 1] as in BinaryNet;
    exponents and signs of shifts follow RAdam as in DeepShift, without decay.

    Clipping is for the raw gradients, so it stands before the recipe, and what it measures are all
    leaves together:

        optax.chain(optax.clip_by_global_norm(1.0), adder_recipe(steps))

    `adder_rate` makes adder kernels indifferent to a factor that all of a layer's gradient has in
    common, and so to this norm, which they still count in; `optax.clip`, number by number, changes
    their direction too.

    Args:
        steps: length of the schedule, by default the cosine down to 0.
        learning_rate: of SGD at the schedule's height.
        schedule: makes the learning rates from the height and the steps; one of
            `nnlab.optim.schedules`.
        momentum, nesterov, weight_decay: of SGD; the decay is for all its parameters.
        rate: what happens to the gradients of adder kernels, `adder_rate()` unless given.
        binary_learning_rate: of Adam at the schedule's height.
        shift_learning_rate: of RAdam at the schedule's height; DeepShift's when it trains from
            scratch.
        parts: optimisers by kind of weights, in place of those above and beside them:
            `{"binary": bop()}`.

    References:
        Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (main.py).
        Hubara et al., Binarized Neural Networks, 2016, https://arxiv.org/abs/1602.02830.
        Elhoushi et al., DeepShift, CVPR Workshops 2021, https://arxiv.org/abs/1905.13298.
    """
    sgd = optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(schedule(learning_rate, steps), momentum, nesterov),
    )
    adam = optax.adam(schedule(binary_learning_rate, steps))
    kinds: dict[Hashable, optax.GradientTransformation] = {
        "float": sgd,
        "adder": optax.chain(adder_rate() if rate is None else rate, sgd),
        "binary": optax.chain(adam, clip_latent_weights()),
        "shift": optax.radam(schedule(shift_learning_rate, steps)),
        **dict(parts or {}),
    }

    def of(tree) -> optax.GradientTransformation:
        # A further kind takes no place in the state of a network without it, so that kinds added
        # here leave checkpoints as they are.
        names = {"float", "adder", "binary", *jax.tree.leaves(labels(tree))}
        return optax.partition({k: part for k, part in kinds.items() if k in names}, labels)

    def update(updates, state, params=None):
        return of(updates).update(updates, state, params)

    return optax.GradientTransformation(lambda params: of(params).init(params), update)


def deep_recipe(
    steps: int,
    learning_rate: float = 1e-3,
    *,
    schedule: MakeSchedule = cosine,
    clip: float = 1.0,
    adder_learning_rate: float = 0.1,
    binary_learning_rate: float = 1e-3,
    shift_learning_rate: float = 0.01,
) -> optax.GradientTransformation:
    """Clipping by the global norm, then Adam: for deep networks, such as `nnlab.models.MLP`.

    Adam divides the gradient of each weight by its usual size, so that layers learn at one pace
    whether their gradients are large or small; one rate does for many networks. To a gradient that
    is always large clipping does nothing then, as Adam takes out the factor; but a single one out
    of all proportion would stay in Adam's averages, of the squares for a thousand steps, and that
    is what `clip` bounds.

    Kernels of other arithmetics keep their own optimisers, those of `adder_recipe` without decay
    behind the same clipping: adder kernels SGD with momentum at a rate a layer (which makes them
    indifferent to clipping), binary kernels Adam within [-1, 1], shifts RAdam.

    Args:
        steps: length of the schedule.
        learning_rate: of Adam at the schedule's height; 0.01 was better in a few hundred steps.
        schedule: makes the learning rates from the height and the steps; one of
            `nnlab.optim.schedules`.
        clip: the largest norm of all gradients together, positive.
        adder_learning_rate, binary_learning_rate, shift_learning_rate: for kernels of these kinds.

    Raises:
        InputError: `clip` is not positive.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013,
        https://arxiv.org/abs/1211.5063, section 3.2, for clipping.
        Kingma & Ba, Adam, ICLR 2015, https://arxiv.org/abs/1412.6980.
    """
    if not clip > 0:
        raise InputError(f"clip must be a positive number, not {clip}.")
    return optax.chain(
        optax.clip_by_global_norm(clip),
        adder_recipe(
            steps,
            adder_learning_rate,
            schedule=schedule,
            weight_decay=0.0,
            binary_learning_rate=binary_learning_rate,
            shift_learning_rate=shift_learning_rate,
            parts={"float": optax.adam(schedule(learning_rate, steps))},
        ),
    )

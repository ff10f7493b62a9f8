"""Published optimisers, with a part for each kind of weights.

The first word of a weight's name says its kind: `adder_kernel`, `binary_kernel`,
`shift_exponent_kernel`; every other name is of the kind "float". One optimiser therefore trains a
network in any arithmetic.

A learning rate is a number, from which the rate falls to 0 as a cosine over `steps`, or an
`optax.Schedule`, which is used as it is:

    adder_recipe(steps)
    adder_recipe(steps, optax.polynomial_schedule(0.1, 0.0, 0.9, steps))
    adder_recipe(steps, optax.warmup_cosine_decay_schedule(0.0, 0.1, 500, steps))

Reference:
    Loshchilov & Hutter, SGDR, ICLR 2017, https://arxiv.org/abs/1608.03983, eq. 5, for the cosine.
"""

from collections.abc import Hashable, Mapping

import jax
import optax
from jax.core import Tracer

from nnlab.errors import InputError
from nnlab.optim.adder import adder_rate
from nnlab.optim.binary import clip_latent_weights
from nnlab.optim.freezing import leaf_name
from nnlab.optim.values import check_number

Rate = optax.ScalarOrSchedule


class Recipe(optax.GradientTransformationExtraArgs):
    """A transformation that says which learning rate it takes.

    Attributes:
        learning_rate: a schedule, that of weights of the kind "float".
    """

    learning_rate: optax.Schedule

    @classmethod
    def of(cls, made: optax.GradientTransformation, learning_rate: optax.Schedule) -> "Recipe":
        """Return `made` with its learning rate, which `nnlab.runs.fit` records."""
        recipe = cls(*made)
        recipe.learning_rate = learning_rate
        return recipe


def labels(params):
    """Return the kind of each leaf, such as "adder" or "float", for `optax.partition`."""

    def label(path, _):
        name = leaf_name(path)
        return name.split("_")[0] if name.endswith("_kernel") else "float"

    return jax.tree_util.tree_map_with_path(label, params)


def adder_recipe(
    steps: int,
    learning_rate: Rate = 0.1,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 5e-4,
    rate: optax.GradientTransformation | None = None,
    binary_learning_rate: Rate = 1e-3,
    shift_learning_rate: Rate = 0.01,
    parts: Mapping[str, optax.GradientTransformation] | None = None,
) -> Recipe:
    """SGD of AdderNet's released code, with the cosine taken by steps instead of epochs.

    Gradients of adder kernels pass through `rate` first; weight decay is added after it and is not
    rescaled. Binary kernels, which that code does not have, follow Adam and stay in [-1, 1] as in
    BinaryNet; exponents and signs of shifts follow RAdam as in DeepShift, without decay.

    Clip gradients before the recipe, so that the norm is that of all leaves together:

        optax.chain(optax.clip_by_global_norm(1.0), adder_recipe(steps))

    Adder kernels still count in that norm, but `adder_rate` undoes any factor that a layer's whole
    gradient has in common. `optax.clip`, number by number, changes their direction too.

    Args:
        steps: length of the cosine.
        learning_rate: of SGD, a peak or a schedule, as are the other two.
        momentum, nesterov, weight_decay: of SGD; the decay is for all its parameters.
        rate: transformation of the gradients of adder kernels; by default `adder_rate()`.
        binary_learning_rate: of Adam.
        shift_learning_rate: of RAdam; the default is DeepShift's for training from scratch.
        parts: optimisers by kind of weights, which replace those above or add to them:
            `{"binary": bop()}`.

    Raises:
        InputError: `steps` is not a positive integer, `momentum` not from 0 to below 1, or another
            number is negative or not finite.

    References:
        Chen et al., AdderNet, CVPR 2020, https://arxiv.org/abs/1912.13200, and its code (main.py).
        Hubara et al., Binarized Neural Networks, 2016, https://arxiv.org/abs/1602.02830.
        Elhoushi et al., DeepShift, CVPR Workshops 2021, https://arxiv.org/abs/1905.13298.
    """
    check_number("momentum", momentum, below=1)
    check_number("weight_decay", weight_decay)
    schedule = _schedule(learning_rate, steps)
    sgd = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum, nesterov)
    )
    adam = optax.adam(_schedule(binary_learning_rate, steps))
    kinds: dict[Hashable, optax.GradientTransformation] = {
        "float": sgd,
        "adder": optax.chain(adder_rate() if rate is None else rate, sgd),
        "binary": optax.chain(adam, clip_latent_weights()),
        "shift": optax.radam(_schedule(shift_learning_rate, steps)),
        **dict(parts or {}),
    }

    def of(tree) -> optax.GradientTransformationExtraArgs:
        # A further kind takes no place in the state of a network without it, so that kinds added
        # here leave checkpoints as they are.
        names = {"float", "adder", "binary", *jax.tree.leaves(labels(tree))}
        return optax.partition({k: part for k, part in kinds.items() if k in names}, labels)

    def update(updates, state, params=None, **extra_args):
        return of(updates).update(updates, state, params, **extra_args)

    made = optax.GradientTransformationExtraArgs(lambda params: of(params).init(params), update)
    return Recipe.of(made, schedule)


def deep_recipe(
    steps: int,
    learning_rate: Rate = 1e-3,
    *,
    clip: float = 1.0,
    adder_learning_rate: Rate = 0.1,
    binary_learning_rate: Rate = 1e-3,
    shift_learning_rate: Rate = 0.01,
) -> Recipe:
    """Clipping by the global norm, then Adam: for deep networks, such as `nnlab.models.MLP`.

    Adam divides the gradient of each weight by its usual size, so that all layers learn at one pace
    whether their gradients are large or small; one learning rate serves many networks. Clipping
    does nothing to gradients that are always large, because Adam takes out the factor. It bounds a
    single gradient out of all proportion, which would otherwise stay in Adam's average of squares
    for a thousand steps.

    After the same clipping, kernels of other arithmetics keep their own optimisers, those of
    `adder_recipe` without decay: adder kernels SGD with momentum at a rate for each layer (which
    makes them indifferent to clipping), binary kernels Adam within [-1, 1], shifts RAdam.

    Args:
        steps: length of the cosine.
        learning_rate: of Adam, a peak or a schedule, as are the other three; 0.01 was better in a
            few hundred steps.
        clip: the largest norm of all gradients together, positive.
        adder_learning_rate, binary_learning_rate, shift_learning_rate: for kernels of these kinds.

    Raises:
        InputError: `clip` is not positive, `steps` is not a positive integer, or a rate is
            negative or not finite.

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, ICML 2013,
        https://arxiv.org/abs/1211.5063, section 3.2, for clipping.
        Kingma & Ba, Adam, ICLR 2015, https://arxiv.org/abs/1412.6980.
    """
    if not isinstance(clip, Tracer) and not clip > 0:
        raise InputError(f"clip must be a positive number, not {clip}.")
    schedule = _schedule(learning_rate, steps)
    made = optax.chain(
        optax.clip_by_global_norm(clip),
        adder_recipe(
            steps,
            adder_learning_rate,
            weight_decay=0.0,
            binary_learning_rate=binary_learning_rate,
            shift_learning_rate=shift_learning_rate,
            parts={"float": optax.adam(schedule)},
        ),
    )
    return Recipe.of(made, schedule)


def _schedule(rate: Rate, steps: int) -> optax.Schedule:
    if not (isinstance(steps, int) and steps > 0):
        raise InputError(f"steps must be a positive integer, not {steps}.")
    check_number("a learning rate", rate)
    return rate if callable(rate) else optax.cosine_decay_schedule(rate, steps)

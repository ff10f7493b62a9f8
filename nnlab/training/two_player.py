"""Two networks that train against each other: a generator and its critic, in one compiled step.

    players = init_players(key, generator, critic, optimizers, latents, images)
    step = two_player_step(generator, critic, optimizers, HINGE, latents=128, critic_steps=5)
    runs.fit(name, players, step, evaluate, in_memory((images, labels), 5 * 64), …)

A step takes one batch, deals it to `critic_steps` updates of the critic, and then updates the
generator once. `Players` has what feeds and `nnlab.runs.fit` ask of a state, so that a training of
two is resumed to the bit, watched, and stopped like any other; an epoch is one pass over the real
examples. All randomness comes from `players.key`, folded with the step.

References:
    Radford et al., DCGAN, ICLR 2016, https://arxiv.org/abs/1511.06434, and PyTorch's example of it,
    for real and fake batches that the critic normalises separately, and one fake batch for both
    players where there is one update of each.
    Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017,
    https://arxiv.org/abs/1704.00028, algorithm 1.
    Mirza and Osindero, Conditional GANs, 2014, https://arxiv.org/abs/1411.1784.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from nnlab.data.batches import check_batch, shared_size
from nnlab.errors import InputError, check_count
from nnlab.training.adversarial import NON_SATURATING, AdversarialLoss, gradient_penalty
from nnlab.training.evaluation import in_batches
from nnlab.training.models import apply, check_model, check_optimizer
from nnlab.training.steps import (
    Batch,
    Metrics,
    State,
    Watched,
    _first_nonfinite,
    _select,
    init,
)

Optimizers = tuple[optax.GradientTransformation, optax.GradientTransformation]


class Players(NamedTuple):
    """All that a training of two networks needs to go on.

    Attributes:
        generator, critic: the state of each, whose `step` counts its own updates.
    """

    generator: State
    critic: State

    # What a training loop asks of a state.

    @property
    def step(self) -> jax.Array:
        """The number of updates of the generator."""
        return self.generator.step

    @property
    def key(self) -> jax.Array:
        """The key from which all randomness is folded."""
        return self.generator.key

    @property
    def params(self) -> dict[str, Any]:
        return {name: state.params for name, state in self._asdict().items()}

    @property
    def batch_stats(self) -> dict[str, Any]:
        return {name: state.batch_stats for name, state in self._asdict().items()}

    @property
    def opt_state(self) -> dict[str, Any]:
        return {name: state.opt_state for name, state in self._asdict().items()}

    @property
    def carry(self) -> tuple[()]:
        return ()

    @property
    def loss_scale(self) -> tuple[()]:
        return ()


def init_players(
    key: jax.Array,
    generator: nn.Module,
    critic: nn.Module,
    optimizers: Optimizers,
    latents: Any,
    examples: Any,
) -> Players:
    """Return the states of both before the first step.

    Args:
        key: PRNG key of the run.
        generator, critic: called as `model(inputs, train=…)`.
        optimizers: of the generator and of the critic.
        latents: inputs of the generator, [n, latents], or a pair of these and classes [n].
        examples: inputs of the critic, [n, …], or a pair of these and classes [n].

    Raises:
        InputError: as of `nnlab.training.init`.
    """
    ours, theirs = jax.random.split(key)
    return Players(
        init(ours, generator, optimizers[0], latents),
        init(theirs, critic, optimizers[1], examples),
    )


def two_player_step(
    generator: nn.Module,
    critic: nn.Module,
    optimizers: Optimizers,
    loss: AdversarialLoss = NON_SATURATING,
    *,
    latents: int,
    critic_steps: int = 1,
    generator_batch: int | None = None,
    penalty: float = 0.0,
    conditional: bool = False,
) -> Callable[[Players, Batch], tuple[Players, Metrics]]:
    """Return `step(players, (examples, classes)) -> (players, metrics)`, pure, not yet compiled.

    If a new state would hold a number that is not finite, the step is not taken, as in
    `nnlab.training.train_step`.

    Args:
        generator: from latents, drawn from N(0, 1), to examples as the critic takes them.
        critic: from examples to logits [n].
        optimizers: of the generator and of the critic.
        loss: what each minimises.
        latents: numbers that a fake example is made from.
        critic_steps: updates of the critic before that of the generator, each on its own part of
            the batch.
        generator_batch: fake examples in the generator's update, by default as many as in one of
            the critic's. Where both have one update and as many examples, they share them.
        penalty: weight of `gradient_penalty` in the critic's loss.
        conditional: whether both networks are given classes: `generator((latents, classes))` and
            `critic((examples, classes))`. Fake examples get classes of real ones of the batch.

    Returns:
        The step. Its metrics are scalars: "loss", that of the critic without the penalty, and
        "penalty", "real" and "fake", mean logits, all means over its updates; "generator_loss"; and
        "nonfinite" as of `train_step`.

    Raises:
        InputError: a network cannot be trained, a number is none; or, when the step is called,
            `critic_steps` do not divide the batch, or there is a penalty and the critic normalises
            over the batch, where a slope of one example means nothing.
    """
    for model, optimizer in zip((generator, critic), optimizers, strict=True):
        check_model(model)
        check_optimizer(optimizer)
    for name, count in (("latents", latents), ("critic_steps", critic_steps)):
        check_count(name, count)
    check_count("generator_batch", 1 if generator_batch is None else generator_batch)
    if not 0 <= penalty < float("inf"):
        raise InputError(f"penalty must be finite and at least 0, not {penalty}.")
    shared = critic_steps == 1 and generator_batch is None

    def draw(key: jax.Array, size: int, classes: Any) -> tuple[Any, Any]:
        """Latents, and the classes of what they become."""
        z_key, class_key = jax.random.split(key)
        z = jax.random.normal(z_key, (size, latents))
        if not conditional:
            return z, None
        chosen = classes
        if size != len(classes):
            chosen = classes[jax.random.randint(class_key, (size,), 0, len(classes))]
        return (z, chosen), chosen

    def judged(key: jax.Array, params: Any, stats: Any, examples: Any, classes: Any) -> Any:
        return _run(critic, params, stats, (examples, classes) if conditional else examples, key)

    def step(players: Players, batch: Batch) -> tuple[Players, Metrics]:
        examples, classes = check_batch(batch)
        size, rest = divmod(shared_size(examples), critic_steps)
        if rest or not size:
            raise InputError(
                f"a batch of {shared_size(examples)} is not one of {critic_steps} equal parts, for"
                " so many updates of the critic."
            )
        if penalty and _normalises_batches(players.critic.batch_stats):
            raise InputError(
                "a gradient penalty needs a critic without batch normalisation; give it another"
                ' one, such as normalization="layer".'
            )
        key = jax.random.fold_in(jax.random.fold_in(players.key, 1), players.step)  # 0: the order
        keys = jax.random.split(key, 4)
        theirs, chosen = draw(keys[0], generator_batch or size, classes)
        ours = players.generator
        fake, pull, stats = jax.vjp(
            lambda params: _run(generator, params, ours.batch_stats, theirs, keys[1]),
            ours.params,
            has_aux=True,
        )

        def update(state: State, part: Any) -> tuple[State, Any]:
            key, real, labels = part
            each = jax.random.split(key, 6)
            if shared:
                made, made_classes = fake, chosen
            else:
                inputs, made_classes = draw(each[0], size, labels)
                made = _run(generator, ours.params, ours.batch_stats, inputs, each[1])[0]

            def objective(params: Any) -> tuple[jax.Array, Any]:
                logits, stats = judged(each[2], params, state.batch_stats, real, labels)
                fakes, stats = judged(each[3], params, stats, made, made_classes)
                value = loss.critic(logits, fakes)
                found = {"loss": value, "real": logits.mean(), "fake": fakes.mean()}
                if penalty:

                    def of_examples(x: jax.Array) -> jax.Array:
                        return judged(each[4], params, stats, x, labels)[0]

                    found["penalty"] = gradient_penalty(of_examples, each[5], real, made)
                    value = value + penalty * found["penalty"]
                return value, (stats, found)

            grads, (stats, found) = jax.grad(objective, has_aux=True)(state.params)
            return _updated(state, optimizers[1], grads, stats), found

        def dealt(array: Any) -> Any:
            return array.reshape(critic_steps, size, *array.shape[1:])

        parts = (jax.random.split(keys[2], critic_steps), *jax.tree.map(dealt, (examples, classes)))
        critic_state, found = lax.scan(update, players.critic, parts)

        def deceived(fake: Any) -> jax.Array:
            of_critic = critic_state.params, critic_state.batch_stats
            return loss.generator(judged(keys[3], *of_critic, fake, chosen)[0])

        generator_loss, slope = jax.value_and_grad(deceived)(fake)
        [grads] = pull(slope)
        after = Players(_updated(ours, optimizers[0], grads, stats), critic_state)
        measured = jax.tree.map(jnp.mean, found) | {"generator_loss": generator_loss}
        # A gradient that is not finite shows in the parameters; zeros keep `leaf_name`'s order.
        gradients = jax.tree.map(jnp.zeros_like, players.params)
        losses = measured["loss"] + generator_loss
        watched = Watched(after.batch_stats, losses, gradients, after.params)
        bad = _first_nonfinite(watched)
        return _select(bad < 0, after, players), measured | {"nonfinite": bad}

    return step


def generate(generator: nn.Module, state: State, inputs: Any, batch_size: int = 500) -> Any:
    """Return what the generator makes of latents, or of pairs of these and classes.

    BatchNorm takes the statistics of each batch of `batch_size`, as in training: running averages
    lag where weights move fast, as those of adders do.

    Args:
        generator: the model.
        state: that of it, `players.generator`.
        inputs: [n, latents], or a pair of these and classes [n].
        batch_size: examples made at once; layers that draw at random do not.
    """

    def make(inputs: Any) -> Any:
        return _run(generator, state.params, state.batch_stats, inputs)[0]

    return in_batches(make, inputs, batch_size)


def _run(
    model: nn.Module, params: Any, stats: Any, inputs: Any, key: jax.Array | None = None
) -> tuple[Any, Any]:
    """Return outputs in training mode and running statistics; `key` is for layers that draw."""
    options: Any = {"train": True, "mutable": ["batch_stats"]}
    if key is not None:
        options["rngs"] = {"dropout": key}
    outputs, new = apply(model, {"params": params, "batch_stats": stats}, inputs, **options)
    return outputs, new.get("batch_stats", {})


def _updated(
    state: State, optimizer: optax.GradientTransformation, grads: Any, stats: Any
) -> State:
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(
        step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state
    )


def _normalises_batches(stats: Any) -> bool:
    paths = jax.tree_util.tree_leaves_with_path(stats)
    return any(getattr(path[-1], "key", None) == "mean" for path, _ in paths)

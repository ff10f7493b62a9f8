import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.classics.genetic import evolve, random_restarts
from nnlab.errors import InputError

pytest.importorskip("evosax", reason="the extra `classics` is not installed")
KEY = jax.random.key(0)


def bowl(params):
    return jnp.sum(params["w"] ** 2) + jnp.sum((params["b"] - 1) ** 2)


def population(members: int):
    """Weights of spread 2 and biases that are 0 in all members."""
    return {"w": 2 * jax.random.normal(KEY, (members, 3, 4)), "b": jnp.zeros((members, 2))}


def test_restarts_take_the_best_of_all_draws():
    drawn = population(50)
    found = random_restarts(bowl, drawn)
    losses = np.square(drawn["w"]).sum((1, 2)) + 2
    np.testing.assert_allclose(found.losses, np.minimum.accumulate(losses), rtol=1e-6)
    np.testing.assert_array_equal(found.params["w"], drawn["w"][np.argmin(losses)])


@pytest.fixture(scope="module")
def search():
    return jax.jit(
        lambda mutation, crossover: evolve(
            KEY, bowl, population(16), 19, mutation=mutation, crossover=crossover
        )
    )


def test_evolution_beats_as_many_random_draws_on_a_bowl(search):
    found = search(0.1, 0.5)
    assert found.losses.shape == (20,) and np.all(np.diff(found.losses) <= 0)
    assert bowl(found.params) == pytest.approx(float(found.losses[-1]), rel=1e-5)
    assert found.losses[-1] < 0.5 * random_restarts(bowl, population(16 * 20)).losses[-1]
    assert np.all(found.params["b"] != 0)  # what does not spread mutates as well


def test_without_mutation_numbers_are_those_of_parents_in_their_places(search):
    drawn, (first, *_) = population(16), random_restarts(bowl, population(16))
    for crossover in (0.0, 1.0):  # children are copies of one parent
        found = search(0.0, crossover)
        np.testing.assert_allclose(found.params["w"], first["w"], rtol=1e-6)
    mixed = search(0.0, 0.5).params
    nearest = np.abs(mixed["w"] - drawn["w"]).min(0)
    np.testing.assert_allclose(nearest, 0, atol=1e-5)
    np.testing.assert_array_equal(mixed["b"], 0)
    assert bowl(mixed) < bowl(first)


def test_numbers_that_are_none_lose():
    drawn = {"w": jnp.array([[jnp.nan], [3.0], [2.0]])}
    loss = random_restarts(lambda params: params["w"][0], drawn)
    np.testing.assert_array_equal(loss.losses, [np.inf, 3, 2])
    assert loss.params["w"][0] == 2


@pytest.mark.parametrize(
    ("members", "options", "words"),
    [
        (1, {}, "population of 1"),
        (4, {"generations": 0}, "generations"),
        (4, {"mutation": -1.0}, "mutation .* -1.0"),
        (4, {"crossover": 1.5}, "crossover .* 1.5"),
    ],
)
def test_bad_input(members, options, words):
    with pytest.raises(InputError, match=words):
        evolve(KEY, bowl, population(members), **{"generations": 1} | options)


def test_what_is_no_loss_and_no_weight():
    drawn = population(4)
    with pytest.raises(InputError, match=r"the loss has shape \[2\], expected a scalar"):
        random_restarts(lambda params: params["b"], drawn)
    with pytest.raises(InputError, match="a population of int32"):
        evolve(KEY, bowl, {"w": drawn["w"], "b": jnp.zeros((4, 2), int)}, 1)
    with pytest.raises(InputError, match="crossover must be a number from 0 to 1, not 'half'"):
        evolve(KEY, bowl, drawn, 1, crossover="half")  # pyright: ignore

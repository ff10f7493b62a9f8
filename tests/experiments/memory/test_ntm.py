"""The tasks of the Neural Turing Machine and their networks, and what can be known of n-grams."""

import jax
import jax.numpy as jnp
import pytest

from nnlab.sequences import algorithmic_tasks as tasks
from nnlab.sequences.episode_scores import bits_per_sequence

SCRIPT = "memory/ntm"


def test_every_network_fits_every_test_of_its_task(script):
    for name, task in script.TASKS.items():
        config = script.Config(task=name)
        for options in ({}, *task.tests.values()):
            shapes = jax.eval_shape(lambda: task.make(jax.random.key(0), 2, **options))  # noqa: B023
            inputs, (targets, mask) = shapes
            assert inputs.shape[:2] == targets.shape[:2] == mask.shape
        model = script.network("NTM", targets.shape[-1], script.chosen("NTM", config))
        logits = jax.eval_shape(
            lambda x, m=model: m.init_with_output(jax.random.key(0), x)[0], inputs
        )
        assert logits.shape == targets.shape


def test_sizes_are_published_unless_given(script):
    config = script.Config(task="priority_sort", width=7, learning_rate=0.5)
    assert script.chosen("NTM-LSTM", config) == script.Size(7, 0.5, 5, layers=2)
    assert script.chosen("LSTM", script.Config(heads=3)) == script.Size(256, 3e-5, 3, layers=3)


def test_lengths_beyond_those_of_training(script):
    expected = {f"length {n}": {"lengths": (n, n)} for n in (10, 20, 30, 50, 120)}
    assert script.TASKS["copy"].tests == expected


@pytest.mark.slow
def test_ngrams_have_an_optimum():
    inputs, labels = tasks.ngrams(jax.random.key(1), 100)
    optimum = bits_per_sequence(tasks.ngram_estimates(inputs), labels)
    ignorant = bits_per_sequence(jnp.zeros((100, 199, 1)), labels)
    assert 110 < optimum < 145 and ignorant == pytest.approx(195)

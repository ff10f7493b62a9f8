"""Language models: the plan of a tuning, and a small run that goes on."""

import json
import math
import types

import jax
import numpy as np
import pytest

from nnlab.sequences.corpora import Corpus

SCRIPT = "transformers/language_models"
WANTED = {"float": 1e-3, "bit": 1e-1, "LSTM": 1e-4}  # where the loss of a made-up network is least


def fake(rows, **contents):
    return types.SimpleNamespace(rows=lambda table: rows, contents=contents)


def test_a_plan_tunes_all_alike(script):
    config = script.Config(networks=tuple(WANTED), seeds=(0, 1))
    rows, cases = [], []
    while case := script.first_missing(script.tuning(None, fake(rows), config), rows):
        cases.append(case)
        loss = abs(math.log(case.rate / WANTED[case.network]))
        rows.append(case._asdict() | {"loss": loss, "parameters": 1})
        assert len(rows) < 40
    # The middle of the grid for all, ...
    grid = config.rates
    assert [case.rate for case in cases[:9:3]] == [3e-3, 1e-2, 1e-3]
    assert [case.network for case in cases[:3]] == [*WANTED]
    # ... then beside the best rate as far as the grid goes, and the other seed at the best.
    for name, best in WANTED.items():
        at = grid.index(best)
        tried = {case.rate for case in cases if case.network == name and case.seed == 0}
        assert tried >= set(grid[max(at - 1, 0) : at + 2]) | {1e-3, 3e-3, 1e-2}
        assert [case.rate for case in cases if case.network == name and case.seed == 1] == [best]
    assert len(set(cases)) == len(cases)
    # As long as float: twice as many steps where one takes half the time.
    record = fake(rows, paces={"float": 1.0, "LSTM": 0.5, "bit": 2.0})
    found = [*script.equal_seconds(None, record, config)]
    assert found == [("LSTM", 1e-4, 0, 4000), ("LSTM", 1e-4, 1, 4000)]


def test_decay_is_for_matrices_and_rates_for_kinds(script):
    """The first step of Adam after the warm-up is the rate, whatever the gradient."""
    params = {
        "kernel": np.ones((2, 2), np.float32),
        "bias": np.ones(2, np.float32),
        "adder_kernel": np.ones((2, 2), np.float32),
    }
    optimizer = script.optimiser(1e-2, 10)
    state = optimizer.init(params)
    gradients = jax.tree.map(lambda p: np.full_like(p, 1e-3), params)
    for _ in range(2):  # the warm-up is one step, at the rate 0
        updates, state = optimizer.update(gradients, state, params)
    updates = {name: float(update.max()) for name, update in updates.items()}
    np.testing.assert_allclose(updates["bias"], -1e-2, rtol=1e-4)
    np.testing.assert_allclose(updates["kernel"], -1e-2 * 1.1, rtol=1e-4)
    np.testing.assert_allclose(updates["adder_kernel"], -2.5e-2, rtol=1e-4)


@pytest.mark.slow
def test_a_small_run_goes_on(script, monkeypatch, tmp_path):
    text = "".join(chr(97 + number % 26) for number in range(4000))
    monkeypatch.setattr(script, "load_text", lambda *_: Corpus("", text, text[:650], "", False))
    out = str(tmp_path / "run")
    options = {"networks": ("float",), "steps": 5, "rates": (1e-3, 3e-3, 1e-2), "out": out}
    script.main(script.Config(seeds=(0,), **options))
    first = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["rate"] for row in first["rows"]] == [3e-3, 1e-2, 1e-3]
    assert len(first["rows"][0]["test"]) == 5 and first["table"][0]["seeds"] == 1
    assert not any((tmp_path / "run" / "checkpoints").iterdir())
    script.main(script.Config(seeds=(0, 1), resume=True, **options))
    second = json.loads((tmp_path / "run" / "result.json").read_text())
    assert second["rows"][:3] == first["rows"] and second["rows"][3]["seed"] == 1
    assert second["finished"] and second["paces"] == first["paces"]


@pytest.mark.parametrize("options", [{"steps": 7}, {"rates": (1e-2, 1e-3, 1e-4)}, {"rates": (1,)}])
def test_bad_values(script, options):
    with pytest.raises(script.InputError, match="must be"):
        script.Config(**options)

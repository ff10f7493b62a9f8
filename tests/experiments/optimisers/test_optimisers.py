"""The experiments on optimisers in small: what their tables say of gradients and signs."""

import json

import pytest

from nnlab.runs.script import run


@pytest.fixture
def result(load_script, tmp_path):
    """`result(name, *args)` is what a script leaves in its result file, with its picture."""

    def call(name, *args, **changes):
        script = load_script(f"optimisers/{name}")
        with pytest.MonkeyPatch.context() as patch:
            for attribute, value in changes.items():
                patch.setattr(script, attribute, value(getattr(script, attribute)))
            run(script.main, script.Config, [*map(str, args), "--out", str(tmp_path / name)])
        return json.loads((tmp_path / name / "result.json").read_text())

    return call


@pytest.mark.slow
def test_cosines_lie_between_their_bounds_and_signs_stay_where_they_began(result, tmp_path):
    found = result(
        *("sign_direction", "--epochs", 2, "--draws", 50, "--steps", 200),
        ARITHMETICS=lambda every: {"CNN": every["CNN"]},
    )
    for row in found["by_dimension"]:
        # For one number both are 1, and gamma functions are good to a few roundings.
        assert row["sparse"] <= row["isotropic"] + 1e-14 and 0.797 < row["isotropic"] < 1 + 1e-14
    layers = [layer for network in found["networks"].values() for layer in network.values()]
    assert len(layers) == 4
    for layer in layers:
        assert len(layer["cosine"]) == 2
        assert all(layer["weights"] ** -0.5 < cosine <= 1 for cosine in layer["cosine"])
    for row in found["examples"][1:]:  # signs end as high as they began, at 1 and at 2
        assert row["signSGD"] > 0.9
        assert row["SGD"] < 0.6 and abs(row["EF-signSGD"] - row["SGD"]) < 0.01  # it follows SGD
    assert (tmp_path / "sign_direction" / "curves.png").is_file()


@pytest.mark.slow
def test_sign_optimizers_learn(result):
    some = ("Signum", "EF, momentum", "binary, Bop")
    found = result(
        *("sign_optimizers", "--epochs", 2, "--seeds", 0),
        optimizers=lambda every: lambda steps: {name: every(steps)[name] for name in some},
    )
    assert tuple(row["optimizer"] for row in found["rows"]) == some
    for row in found["rows"]:
        assert row["test accuracy / %"] > 50, row


@pytest.mark.slow
def test_gradients_vanish_where_they_must(result, tmp_path):
    names = ["sigmoid, N(0, 1)", "sigmoid, Xavier", "ReLU, He", "adder, N(0, 3²), default"]
    small = ["--depth", 6, "--width", 32, "--epochs", 2, "--seeds", 0]
    found = result("vanishing_gradients", *small, "--networks", *names)
    rows = {row["network"]: row for row in found["rows"]}
    assert [*rows] == names and all(len(row["norms"]) == 7 for row in rows.values())
    shrinks = {name: row["first layer"] / row["last layer"] for name, row in rows.items()}
    # A sigmoid's slope is 1/4 at most, and Xavier's weights keep sizes: at most 4^-5, and a few
    # times that for activations that are larger in front.
    assert shrinks["sigmoid, Xavier"] < 0.01 < 0.1 < shrinks["ReLU, He"] < 10
    assert rows["sigmoid, N(0, 1)"]["shut / %"] > 1 > rows["sigmoid, Xavier"]["shut / %"]
    assert rows[names[-1]]["high rate"] > 60 > rows["sigmoid, Xavier"]["high rate"]
    assert (tmp_path / "vanishing_gradients" / "curves.png").is_file()

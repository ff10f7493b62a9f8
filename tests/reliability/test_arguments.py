"""Any command line: a valid configuration, or exit status 2 with one short message."""

import collections
import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnlab.runs.script import run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = [
    *(
        "adder_vs_cnn",
        "adder/adder_mnist_ablation",
        "adder/adder_cifar10",
        "arithmetics/arithmetics_mnist",
    ),
    *(
        "arithmetics/arithmetics_cifar10",
        "deployment/deploy_adder",
        "arithmetics/posit_mnist",
        "adder/pruning",
    ),
    *(
        "optimisers/sign_direction",
        "optimisers/sign_optimizers",
        "adder/deep_vs_shallow",
        "optimisers/vanishing_gradients",
    ),
    *("adder/transfer_learning", "text/char_lm", "text/java_brackets", "anomaly/anomaly_hdfs"),
    *(
        "anomaly/anomaly_nab",
        "anomaly/tutorial_lstm",
        "anomaly/anomaly_series",
        "anomaly/anomaly_logs",
    ),
    *("memory/ntm", "memory/learn_addition"),
]


COUNTS = {"epochs", "lenet5_epochs", "batch_size"}


@pytest.fixture(scope="module", params=SCRIPTS)
def config_type(request):
    path = EXPERIMENTS / f"{request.param}.py"
    name = f"reliability_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module.Config
    del sys.modules[name]


def flag(field):
    return "--" + field.name.replace("_", "-")


numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**30, "1e400", "-0", "0x10", "1_000"]),
).map(str)
words = st.one_of(
    st.sampled_from(["CNN", "AdderNet", "skip", "full-x100", "None", "True", "", " ", "-", "--"]),
    # No null byte and no lone surrogate: a shell cannot pass these, or not as text.
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)


def values(field):
    """Values that parse, for the most part, and may be out of range."""
    default = field.default[0] if isinstance(field.default, tuple) else field.default
    if isinstance(default, bool):
        return st.just("")
    if isinstance(default, int):
        return st.one_of(st.integers(-1, 3), st.sampled_from([2**31 - 1, 2**31, 2**32])).map(str)
    if isinstance(default, float):
        return st.floats().map(str)
    return words


@st.composite
def command_lines(draw, config_type):
    """Flags with values, some without, some that there are not, in any order."""
    args = []
    for _ in range(draw(st.integers(0, 4))):
        field = draw(st.sampled_from(dataclasses.fields(config_type)))
        # Not tyro's own flags, some of which write files, nor the beginning of them.
        foreign = words.filter(lambda word: not word.startswith("--t"))
        args += draw(
            st.one_of(
                *[values(field).map(lambda value, f=field: [flag(f), value][: 1 + bool(value)])]
                * 3,
                (numbers | words).map(lambda value, f=field: [f"{flag(f)}={value}"]),
                st.lists(foreign, min_size=1, max_size=2),
            )
        )
    return args


def outcome(config_type, args, capsys):
    """Whether the line is valid or refused; anything else raises."""
    configs = []
    try:
        run(configs.append, config_type, args)
    except SystemExit as stop:
        captured = capsys.readouterr()
        if stop.code == 0:
            assert {"--help", "-h"} & set(args)
            return "help"
        assert stop.code == 2 and not configs and captured.out == ""
        said = captured.err
        assert said.strip() and "Traceback" not in said
        if said.rstrip("─-╯ \n│").endswith("--help"):  # tyro's words on what does not parse
            return "refused by the parser"
        assert said.startswith("--") and said.endswith(".\n") and said.count("\n") == 1, said
        return "refused by the configuration"
    assert capsys.readouterr().err == ""
    (config,) = configs
    config_type(**vars(config))  # valid by its own measure
    return "valid"


@pytest.mark.slow
def test_any_command_line(config_type, capsys):
    counts = collections.Counter()

    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(command_lines(config_type))
    def check(args):
        counts[outcome(config_type, args, capsys)] += 1

    check()
    print(f"\n{config_type.__module__}: {counts.total()} command lines,", dict(counts))
    assert counts["refused by the configuration"] and counts["valid"]


def test_each_number_has_its_limits(config_type, capsys):
    """A value that no field can use, for each field of numbers."""
    refused = 0
    for field in dataclasses.fields(config_type):
        default = field.default
        many = isinstance(default, tuple) and default and not isinstance(default[0], str)
        if many or (isinstance(default, int | float) and not isinstance(default, bool)):
            bad = ["-1", "nan", "inf"] if isinstance(default, float) else ["-1", str(2**32)]
            for value in bad:
                said = outcome(config_type, [f"{flag(field)}={value}"], capsys)
                assert said == "refused by the configuration", (field.name, value)
                refused += 1
    print(f"\n{config_type.__module__}: {refused} numbers refused, each in one sentence")


@given(
    st.fixed_dictionaries(
        {
            "epochs": st.integers() | st.floats() | st.booleans(),
            "lenet5_epochs": st.integers() | st.floats() | st.booleans(),
            "batch_size": st.integers() | st.floats() | st.booleans(),
            "learning_rate": st.integers() | st.floats(),
            "seed": st.integers() | st.floats(),
        }
    )
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_in_python_is_valid_or_one_sentence(config_type, values):
    names = {field.name for field in dataclasses.fields(config_type)}
    values = {name: value for name, value in values.items() if name in names}
    fit = (
        all(type(values[n]) is int and 0 < values[n] < 2**31 for n in COUNTS & names)
        and ("learning_rate" not in values or 0 < values["learning_rate"] < float("inf"))
        and ("seed" not in values or (type(values["seed"]) is int and 0 <= values["seed"] < 2**32))
    )
    try:
        config_type(**values)
    except ValueError as error:
        assert not fit
        message = str(error)
        assert message.startswith("--") and message.endswith(".") and "\n" not in message
    else:
        assert fit

"""Importing nnlab does nothing else, and the core needs jax, flax, optax and chex alone."""

import os
import subprocess
import sys
import textwrap

import pytest

OPTIONAL = (  # but for rich and Orbax, which flax itself imports
    *("PIL", "array_record", "cloudpickle", "drain3", "evosax", "flatbuffers", "grain"),
    *("matplotlib", "pooch", "safetensors", "sklearn", "tensorboardX", "tensorflow_datasets"),
    *("torch", "tqdm", "tyro"),
)


def test_the_core_needs_no_optional_package_and_the_rest_names_its_extra():
    code = f"""
        import importlib, sys
        sys.modules.update(dict.fromkeys({OPTIONAL}))
        import jax, jax.numpy as jnp
        from jax._src import xla_bridge
        import nnlab
        from nnlab import arithmetics, costs, kernels, layers, models, ops, optim, training
        assert not xla_bridge.backends_are_initialized()

        model = models.MLP(classes=2, arithmetic=arithmetics.ADDER, depth=2, width=4)
        optimizer = optim.adder_recipe(2)
        batch = jnp.ones((2, 3)), jnp.array([0, 1])
        state = training.init(jax.random.key(0), model, optimizer, batch[0])
        state, metrics = jax.jit(training.train_step(model, optimizer))(state, batch)
        assert state.step == 1 and jnp.isfinite(metrics["loss"])
        variables = {{"params": state.params, "batch_stats": state.batch_stats}}
        counts = costs.count(lambda x: model.apply(variables, x), batch[0])
        assert counts.additions["float32"] > 0

        from nnlab import data, deployment, files, runs, series, vision
        from nnlab.classics import genetic
        from nnlab.runs import script
        calls = {{
            "classics": lambda: genetic.evolve(jax.random.key(0), jnp.sum, jnp.ones((2, 1)), 1),
            "data": lambda: vision.load("digits"),
            "deployment": lambda: deployment.load_program("x"),
            "figures": lambda: importlib.import_module("nnlab.figures.plots"),
            "files": lambda: files.read_state_dict("x.safetensors"),
            "images": lambda: vision.read_picture("x.png"),
            "runs": lambda: script.run(print, int),
            "series": lambda: series.mine_templates([]),
            "torch": lambda: files.read_state_dict("x.pt"),
        }}
        for extra, call in calls.items():
            try:
                call()
            except (ImportError, SystemExit) as error:
                said = str(error.__cause__ if isinstance(error, SystemExit) else error)
                assert f"[{{extra}}]'." in said, extra
            else:
                raise AssertionError(extra)
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [[], ["-O"]])
def test_importing_is_inert_whatever_the_settings(optimized):
    """No backend is started, so `jax.distributed` and the choice of a platform are still open."""
    code = """
        import importlib, pkgutil, sys, threading
        import nnlab

        for found in pkgutil.walk_packages(nnlab.__path__, "nnlab."):
            if not found.name.rpartition(".")[2].startswith("_"):
                importlib.import_module(found.name)
        from jax._src import xla_bridge
        if xla_bridge.backends_are_initialized() or threading.active_count() > 1:
            sys.exit("importing has started a backend or a thread")
    """
    settings = {
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEBUG_NANS": "1",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_PLATFORMS": "cuda",
    }
    command = [sys.executable, *optimized, "-W", "error", "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr

"""How fast does a decoder write from packed ternary weights, against PyTorch and floats?

Answer: 10.2 times as fast as PyTorch's float32 at 2 bits a weight, 10.7 times at 1.6, and 3.2 and
3.3 times as its dynamic int8; the prompt 3.6 times as float32.

A layer that unpacks to floats at every call takes 7 times as long as ours. With a head of 50,257
rows in floats it is 3.6 to 3.8 times float32 and 1.05 to 1.09 times int8, whose head is int8 as
well; the prompt is 3.3 times as fast as float32 there too. Our float training step takes 0.97 of
PyTorch's, BitNet's 1.16 of ours.

A GPT-2 of 12 blocks of 768 features under BitNet b1.58, its weights packed by `nnlab.deployment`
(2 bits or 1.6), reads a prompt of 128 symbols and writes 64 with its cache, one text, one thread.
Beside it a PyTorch module of the same shape with a cache, in float32 and with
`quantize_dynamic` (int8, its head too), and the way of layers that unpack their weights to floats
at every call, in the same program as ours. The vocabulary has 1,024 symbols; with GPT-2's 50,257
the float head alone is 154 MB a symbol, and bounds what packing can win: "bound" is the ratio of
the bytes of weights that PyTorch's float32 and ours read for a symbol.

A training step is that of nanoGPT's network for a CPU, 12 texts of 64 characters, with AdamW: of
floats, of BitNet, and of PyTorch.

Everything runs in one process on one core. After an untimed call each body is timed once, then the
next, in rounds; times are medians. Run it on an idle machine, some five minutes:

    pip install -e '.[benchmark]'
    python experiments/benchmarks/decoder.py

Known: Ma et al., 2024 (https://arxiv.org/abs/2402.17764) report 2.7 times the speed of LLaMA
for 1.3B on a GPU; bitnet.cpp 2.37 to 6.17 times llama.cpp in 16-bit floats on x86. Neither is this
model or this machine.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import measure
import numpy as np
import optax

from nnlab import kernels, training
from nnlab.arithmetics import BITNET, FLOAT, TERNARY
from nnlab.deployment import pack
from nnlab.errors import needs
from nnlab.models import GPT2, nano_gpt
from nnlab.runs import Run
from nnlab.runs.fields import PositiveInt, SomeOf
from nnlab.runs.script import run
from nnlab.sequences.generation import decode, prefill

Call = Callable[[], object]
WHAT = ("vocabulary of 1,024", "vocabulary of 50,257", "training step")
OURS = {
    "nnlab 2 bits": (BITNET, 4),
    "nnlab 1.6 bits": (BITNET, 5),
    "unpacked to floats": (TERNARY, 4),
}
PEERS = ("PyTorch float32", "PyTorch dynamic int8", "unpacked to floats")


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/decoder"
    what: Annotated[tuple[str, ...], SomeOf(WHAT)] = WHAT
    layers: PositiveInt = 12
    features: PositiveInt = 768
    prompt: PositiveInt = 128
    """Symbols that are read at once."""
    count: PositiveInt = 64
    """Symbols that are written."""
    repeats: PositiveInt = 9
    """Rounds of timing."""


def main(config: Config) -> None:
    with needs("benchmark"):
        import torch_decoder  # noqa: F401
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # calls are waited for, as PyTorch's
    with config.open() as record:
        record.result({"kernels": kernels.status(), "load": os.getloadavg()})
        for what in config.what:
            rows = training_rows if what == "training step" else functools.partial(text_rows, what)
            for row in rows(config):
                record.row({"what": what, **row}, "rows")
                figures = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if isinstance(v, float))
                print(f"{what}, {row['body']}: {figures}", flush=True)
        record.result({"load after": os.getloadavg()})


def text_rows(what: str, config: Config) -> Iterator[dict[str, Any]]:
    import torch_decoder

    symbols = 1024 if what == WHAT[0] else 50_257
    writing, reading, read_bytes = {}, {}, {}
    for name, (arithmetic, per_byte) in OURS.items():
        calls = ours(config, symbols, arithmetic, per_byte)
        reading[name], writing[name], read_bytes[name] = calls
    for name, int8 in (("PyTorch float32", False), ("PyTorch dynamic int8", True)):
        reading[name], writing[name], read_bytes[name] = torch_decoder.calls(
            *(prompt_of(config, symbols), config.count, symbols),
            *(config.features, config.layers, int8),
        )
    times = {
        "prompt": measure.alternately(reading, config.repeats),
        "written": measure.alternately(writing, config.repeats),
    }
    symbol = {name: seconds / config.count for name, seconds in times["written"].items()}
    for name in writing:
        yield {
            "body": name,
            "symbols a second": 1 / symbol[name],
            "milliseconds a symbol": 1e3 * symbol[name],
            "milliseconds of the prompt": 1e3 * times["prompt"][name],
            "megabytes of weights a symbol": read_bytes[name] / 1e6,
            "bound": read_bytes["PyTorch float32"] / read_bytes[name],
            **{f"times {peer}": symbol[peer] / symbol[name] for peer in PEERS},
            "prompt times PyTorch float32": times["prompt"]["PyTorch float32"]
            / times["prompt"][name],
        }


def training_rows(config: Config) -> Iterator[dict[str, Any]]:
    import torch_decoder

    symbols = np.random.default_rng(0).integers(0, 65, (12, 65)).astype(np.int32)
    calls: dict[str, Call] = {"PyTorch float32": torch_decoder.training_step(symbols)}
    for name, arithmetic in (("nnlab float32", FLOAT), ("nnlab BitNet", BITNET)):
        calls[name] = our_step(nano_gpt(arithmetic=arithmetic), symbols)
    median = measure.alternately(calls, config.repeats, inner=3)
    for name, seconds in median.items():
        yield {
            "body": name,
            "milliseconds a step": 1e3 * seconds,
            "of nnlab float32": seconds / median["nnlab float32"],
            "of PyTorch float32": seconds / median["PyTorch float32"],
        }


def ours(config: Config, symbols: int, arithmetic: Any, per_byte: Any) -> tuple[Call, Call, int]:
    """Read the prompt; write the symbols; bytes of weights that a symbol reads."""
    model = GPT2(
        symbols=symbols,
        positions=config.prompt + config.count,
        features=config.features,
        layers=config.layers,
        use_bias=False,
        arithmetic=arithmetic,
    )
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    model, variables, _ = pack(model, variables, per_byte=per_byte)
    given = jnp.asarray(prompt_of(config, symbols))
    read = jax.jit(lambda v, x: prefill(model, v, x, room=config.count))
    read = read.lower(variables, given).compile()
    position = read(variables, given)
    key = jax.random.key(1)
    write = jax.jit(lambda v, p: decode(model, v, key, p, config.count, top_k=1)[1])
    write = write.lower(variables, position).compile()
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    size = sum(x.nbytes for path, x in leaves if "position_embedding" not in str(path))
    return (
        lambda: jax.block_until_ready(read(variables, given)),
        lambda: jax.block_until_ready(write(variables, position)),
        size,
    )


def prompt_of(config: Config, symbols: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, symbols, (1, config.prompt)).astype(np.int32)


def our_step(model: Any, symbols: np.ndarray) -> Call:
    optimizer = optax.adamw(1e-3, weight_decay=0.1)
    batch = jnp.asarray(symbols[:, :-1]), jnp.asarray(symbols[:, 1:])
    state = training.init(jax.random.key(0), model, optimizer, batch[0])
    step = jax.jit(training.train_step(model, optimizer)).lower(state, batch).compile()
    return lambda: jax.block_until_ready(step(state, batch))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):  # one thread of XLA, which starts after it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    run(main, Config)

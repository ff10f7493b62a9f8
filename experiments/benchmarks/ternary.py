"""How fast are packed ternary products, against PyTorch and against what this machine can do?

Answer: 32 tokens at 2 bits a weight take 0.87 of the time of PyTorch's dynamic int8 and 0.15 of its
float32's, at 0.69 of the limit of `vpdpbusd`; one token, of weights in memory, 0.25 and 0.078.

That is on one thread; without the rounding of tokens 32 of them reach 0.81 of the limit. With
weights in memory one token is 13 times as fast as float32 at 2 bits and 15 times at 1.6, where the
bytes alone bound it to 16 and 20 times, and 4.0 and 4.7 times as fast as int8, at 0.73 and 0.68 of
the bytes that are read at most. Two threads gain 1.6 to 1.7 times at 128 tokens and 1.2 to 1.3 at
32. Two cores of a machine that others use too: a second run right after this one gave 0.59 and
0.70 of the limit for 32 tokens, and 0.69 and 0.61 of the bytes for one.

Products of 8-bit tokens and packed ternary weights, 2 bits or 1.6 bits each: of many tokens, which
the processor bounds, and of one token whose weights lie beyond the caches, which memory bounds. In
"nnlab" a call takes float32 tokens, rounds them and returns float32; "integers" leaves that out.
Beside them PyTorch's float32, bfloat16 and dynamic int8 products, and the way of layers that unpack
weights to floats at every call.

A process for each number of threads measures on as many cores, in turn with the others: after an
untimed call each product once, then the next, in rounds. JAX runs its programs in the thread that
waits for them, as PyTorch does. Times are medians. The limits are measured in the same run and on
the same cores: what a loop of `vpdpbusd` sums from registers (other processors than those with
AVX-512 VNNI have no such limit here), and what the fastest of several loops reads of memory.
Weights that lie in memory are there: other memory is read before every timed call.

Run it on an idle machine with a C++ compiler, some three minutes:

    pip install -e '.[benchmark]'
    python experiments/benchmarks/ternary.py
"""

import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Annotated, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or PyTorch's threads spin beside the next

import jax
import jax.numpy as jnp
import measure
import numpy as np

from nnlab import kernels
from nnlab.ops.packed_ternary import (
    pack_ternary,
    ternary_dense_int8,
    ternary_dense_packed,
    unpack_ternary,
)
from nnlab.runs import Run
from nnlab.runs.fields import PositiveInt, SomeOf
from nnlab.runs.script import run

Call = Callable[[], object]

SHAPES = {  # tokens, inputs, outputs
    "128 tokens": (128, 2048, 2048),
    "32 tokens": (32, 2048, 2048),
    "1 token": (1, 2048, 2048),
    "1 token, weights in memory": (1, 2048, 131_072),
}
BYTES = {"2 bits": 1 / 4, "1.6 bits": 1 / 5, "float32": 4, "bfloat16": 2, "int8": 1}
PEERS = ("PyTorch float32", "PyTorch dynamic int8")


@dataclasses.dataclass(frozen=True)
class Config(Run):
    out: str = "runs/ternary"
    shapes: Annotated[tuple[str, ...], SomeOf(SHAPES)] = tuple(SHAPES)
    threads: tuple[PositiveInt, ...] = (1, 2)
    repeats: PositiveInt = 25
    """Rounds of timing."""


def main(config: Config) -> None:
    peers = importlib.util.find_spec("torch") is not None
    if not peers:
        print("PyTorch is not here, so its rows are left out: pip install -e '.[benchmark]'")
    with config.open() as record, contextlib.ExitStack() as stack:
        workers = {n: stack.enter_context(worker(n)) for n in config.threads}
        limits = {n: ask(of, "limits") for n, of in workers.items()}
        record.result({"kernels": kernels.status(), "limits": limits})
        for n, of in limits.items():
            listed = ", ".join(f"{name} {rate / 1e9:.1f} G/s" for name, rate in of.items())
            print(f"{n} thread{'s' * (n > 1)}: {listed}", flush=True)
        for name in config.shapes:
            for row in rows_of(name, workers, limits, config.repeats, peers):
                record.row(row, "rows")
                shares = "".join(
                    f", {row[key]:.2f} {key}"
                    for key in ("of the limit", "of bytes read", *(f"times {p}" for p in PEERS))
                    if row[key] is not None
                )
                print(
                    f"{name}, {row['threads']} threads, {row['body']}: "
                    f"{1e3 * row['median']:.3f} ms, {row['terms_per_second'] / 1e9:.1f} Gterm/s"
                    f"{shares}",
                    flush=True,
                )


def rows_of(
    name: str,
    workers: dict[int, Connection],
    limits: dict[int, dict[str, float]],
    repeats: int,
    peers: bool,
) -> Iterator[dict[str, Any]]:
    bodies = {n: ask(of, "build", name, peers) for n, of in workers.items()}
    times: dict[tuple[int, str], list[float]] = {}
    for _ in range(repeats):
        for n, of in workers.items():
            for body in bodies[n]:
                times.setdefault((n, body), []).append(ask(of, "time", body))
    median = {key: float(np.median(taken)) for key, taken in times.items()}
    tokens, inputs, outputs = SHAPES[name]
    terms = tokens * inputs * outputs
    for (n, body), taken in times.items():
        seconds = median[n, body]
        stored = next(size for kind, size in BYTES.items() if kind in body) * inputs * outputs
        of, read = limits[n].get("product of bytes"), limits[n].get("bytes read")
        yield {
            "what": name,
            "threads": n,
            "body": body,
            "median": seconds,
            "best": min(taken),
            "quartiles": tuple(np.percentile(taken, (25, 75)).tolist()),
            "terms_per_second": terms / seconds,
            "of the limit": terms / seconds / of if of else None,
            "of bytes read": stored / seconds / read if read else None,
            **{f"times {p}": median[n, p] / seconds if peers else None for p in PEERS},
        }


@contextlib.contextmanager
def worker(threads: int) -> Iterator[Connection]:
    """Start a process that answers questions on so many cores; see `serve`."""
    spawn = multiprocessing.get_context("spawn")
    mine, its = spawn.Pipe()
    process = spawn.Process(target=serve, args=(its, threads), daemon=True)
    process.start()
    its.close()
    try:
        yield mine
    finally:
        mine.close()
        process.join()


def ask(of: Connection, *question: Any) -> Any:
    of.send(question)
    return of.recv()


def serve(connection: Connection, threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):  # the number of threads of XLA, which starts after it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # calls are waited for, as PyTorch's
    calls: dict[str, Call] = {}
    others = np.zeros(0)
    with contextlib.suppress(EOFError):
        while True:
            match connection.recv():
                case ("limits",):
                    connection.send(measure.limits(measure.TERNARY_LIMITS))
                case ("build", shape, peers):
                    calls.clear()
                    calls.update(calls_of(shape, threads, peers))
                    others = np.ones(2**25 if "memory" in shape else 0)  # 256 MB
                    connection.send(list(calls))
                case ("time", body):
                    connection.send(seconds(calls[body], others))


def seconds(call: Call, others: np.ndarray) -> float:
    time.sleep(0.005)  # threads of other libraries have gone to sleep
    call()
    others.sum()  # so that no cache keeps a part of the weights
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def calls_of(shape: str, threads: int, peers: bool) -> dict[str, Call]:
    tokens, inputs, outputs = SHAPES[shape]
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 2, (inputs, outputs), np.int8)
    x = rng.normal(size=(tokens, inputs)).astype(np.float32)
    whole = rng.integers(-127, 128, (tokens, inputs), np.int8)

    def ours(op, *operands) -> Call:
        program = jax.jit(op).lower(*operands).compile()
        return lambda: jax.block_until_ready(program(*operands))

    def unpacked(x, weights):
        return x @ (weights.scale * unpack_ternary(weights).astype(jnp.float32))

    calls: dict[str, Call] = {}
    kinds: list[tuple[str, Any]] = [("2 bits", 4), ("1.6 bits", 5)]
    for bits, per_byte in kinds:
        weights = jax.block_until_ready(pack_ternary(codes, 0.02, per_byte=per_byte))
        calls[f"nnlab {bits}"] = ours(ternary_dense_packed, jnp.asarray(x), weights)
        calls[f"nnlab {bits}, integers"] = ours(ternary_dense_int8, jnp.asarray(whole), weights)
        if per_byte == 4 and codes.size <= 2**22:  # or it takes seconds, and gigabytes
            calls[f"JAX, {bits} unpacked to floats"] = ours(unpacked, jnp.asarray(x), weights)
    return calls | (torch_calls(x, codes, threads) if peers else {})


def torch_calls(x: np.ndarray, codes: np.ndarray, threads: int) -> dict[str, Call]:
    import torch

    torch.set_num_threads(threads)
    given = torch.from_numpy(x)
    layer = torch.nn.Linear(*codes.shape, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(0.02 * codes.T.astype(np.float32)), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, for a package of its own
        quantized = torch.ao.quantization.quantize_dynamic(
            torch.nn.Sequential(layer), {torch.nn.Linear}, dtype=torch.qint8
        )
    short, short_x = layer.weight.to(torch.bfloat16), given.to(torch.bfloat16)

    def inferred(call: Call) -> Call:
        return torch.inference_mode()(call)

    return {
        "PyTorch float32": inferred(lambda: layer(given)),
        "PyTorch bfloat16": inferred(lambda: torch.nn.functional.linear(short_x, short)),
        "PyTorch dynamic int8": inferred(lambda: quantized(given)),
    }


if __name__ == "__main__":
    run(main, Config)

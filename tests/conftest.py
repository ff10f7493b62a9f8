"""What the tests of several rooms share."""

import ctypes
import functools
import gc
import importlib.metadata
import importlib.util
import itertools
import os
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tests compile far more than they compute. These flags take two thirds off the time of compiling;
# flags of the environment come after them and win. Another XLA may not know them, and would abort.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            "--xla_backend_optimization_level=0",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
            os.environ.get("XLA_FLAGS", ""),
        ]
    )

# Compiled programs are kept for other files, for processes that tests start and for the next run.
# Each worker has its own folder, because a program that another is still writing cannot be read.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
_PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "programs" / _WORKER
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


# Bytes that a worker may hold: a sixth of its core's share of the memory, within bounds.
_SHARE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (os.cpu_count() or 1)
_ENOUGH = min(max(_SHARE // 6, 900_000_000), 2_000_000_000)
_held = [_ENOUGH]  # by this worker, after programs were last let go


def _memory() -> int:
    """Bytes that this process holds, or 0 where the system is not Linux."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


@pytest.fixture(autouse=True)
def free_programs():
    """Lets go of compiled programs from time to time, or a worker grows by gigabytes."""
    yield
    if (jax := sys.modules.get("jax")) and _memory() > _held[0] + _ENOUGH // 4:
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
            trim(0)
        _held[0] = max(_memory(), _ENOUGH)


def _one_or_two(largest):
    number = st.integers(1, largest)
    return number | st.tuples(number, number)


@st.composite
def _convolutions(draw):
    kernel_shape = tuple(draw(st.integers(1, most)) for most in (5, 4, 5, 6))
    strides, dilation = draw(_one_or_two(5)), draw(_one_or_two(3))
    pair = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.sampled_from(["SAME", "VALID", "SAME_LOWER"]) | st.tuples(pair, pair))
    sizes = []
    for axis, step in enumerate(np.broadcast_to(dilation, 2).tolist()):
        extent = (kernel_shape[axis] - 1) * step + 1
        pads = extent if padding in ("SAME", "SAME_LOWER") else 0  # then any size fits
        pads = pads if isinstance(padding, str) else sum(padding[axis])
        least = max(1, extent - pads)
        sizes.append(draw(st.integers(least, least + 6)))
    shape = (draw(st.integers(1, 3)), *sizes, kernel_shape[2])
    return shape, kernel_shape, dict(strides=strides, padding=padding, kernel_dilation=dilation)


@pytest.fixture(scope="session")
def convolutions():
    """Strategy of (shape of images, shape of a kernel, options of a convolution that fit them).

    Odd sizes, one channel, kernels as large as the padded image, strides beyond the kernel.
    """
    return _convolutions()


@pytest.fixture(autouse=True)
def own_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("NNLAB_DATA_DIR", raising=False)


EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="session")
def load_script():
    """`load_script("adder/pruning")` is that experiment as a module; it finds helpers beside it."""

    @functools.cache
    def load(name):
        path = (EXPERIMENTS / name).with_suffix(".py")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module  # where the parser looks for the docstring
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def marked():
    """`marked(name)`: an arithmetic whose weights have that name, and that is quick to trace."""
    from jax import lax, nn

    from nnlab.arithmetics import of_product
    from nnlab.ops.windows import moves_of

    def product(x, kernel, strides=1, padding="SAME", kernel_dilation=1):
        sizes, taps = x.shape[1:-1], kernel.shape[:-2]
        strides, pads, dilation = moves_of(sizes, taps, strides, padding, kernel_dilation)
        return lax.conv_general_dilated(
            *(x, kernel, strides, pads),
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return lambda name: of_product(product, kernel_name=name, kernel_init=nn.initializers.zeros)


@pytest.fixture(scope="session")
def write_mnist():
    """`write_mnist(folder, images)` writes files in MNIST's format with easily learnt classes."""

    def write(folder, images):
        labels = np.arange(images) % 10
        pixels = np.zeros((images, 28, 28), np.uint8)
        pixels[np.arange(images), 2 * labels + 4] = 255  # the row that is bright
        arrays = {"images-idx3": (0x803, pixels), "labels-idx1": (0x801, labels)}
        for split, (kind, (magic, array)) in itertools.product(("train", "t10k"), arrays.items()):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            body = array.astype(np.uint8).tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(header + body)

    return write


@pytest.fixture(scope="session")
def write_pictures():
    """`write_pictures(folder, …)` writes a folder of reddish, greenish and bluish pictures."""
    from PIL import Image

    def write(folder, classes=10, each=4, size=32):
        rng = np.random.default_rng(0)
        for number in range(classes):
            (folder / f"class{number}").mkdir(parents=True)
            hue = 60 + 130 * np.eye(3)[number % 3]
            for picture in range(each):
                pixels = (hue + rng.uniform(-50, 50, (size, size, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"class{number}" / f"{picture}.png")

    return write


@pytest.fixture
def original_data() -> Path:
    """The folder of the original public files; tests that need it are skipped without it."""
    folder = os.environ.get("NNLAB_TEST_DATA")
    if not folder:
        pytest.skip("NNLAB_TEST_DATA does not name a folder with the original files")
    return Path(folder)


class Server(ThreadingHTTPServer):
    """Serves `files` by name.

    Attributes:
        cuts: for each coming request, the number of bytes after which the connection breaks.
        seen: the file of every request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.seen: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        assert isinstance(server, Server)
        name = self.path[1:]
        server.seen.append(name)
        if name not in server.files:
            return self.send_error(404)
        body = server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()

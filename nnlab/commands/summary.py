"""Show what a model consists of and what it costs, in any arithmetic, counted from its program.

    nnlab summary resnet20 --arithmetic adder
    nnlab summary resnet20 --arithmetic binary --levels 1 --batch-size 64 --measure
    nnlab summary my_module:MyNetwork --input-shape 32 32 3 --fields width=16
    nnlab summary resnet20 --arithmetic my_module:MY_ARITHMETIC
    nnlab summary resnet20 --arithmetic adder --picture resnet20.svg
    nnlab summary packed.safetensors

The table has a line for each module: output shape, parameters by the bits that each takes at rest,
multiplications, additions and bit operations, bytes of the output, and energy. Its numbers are
rounded and count the whole batch; the totals below it are exact and are those of the traced
program. Operations are counted and priced at the dtype in which they run: posits and 8-bit floats
are computed in float32. Energy is that of arithmetic in 45 nm CMOS, without memory traffic.

--picture draws which layer is connected to which, read from the same program; with --levels modules
of that depth are one box each.

Of a network in a file (`nnlab.models.save_model`, packed weights too) the bytes of the file are
told as well, part by part.

No data are read. Only --measure runs the model, with fresh weights and random inputs.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple
from xml.etree import ElementTree

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab import kernels, runs, training
from nnlab.arithmetics import NAMED
from nnlab.costs import count
from nnlab.costs.measuring import accelerator_peak, growth, planned_bytes, seconds
from nnlab.costs.summary import folded, summarize
from nnlab.costs.summary_text import (
    Total,
    operations,
    print_lines,
    print_totals,
    short,
    totals,
)
from nnlab.deployment import file_sizes
from nnlab.errors import InputError, needs
from nnlab.figures.network_picture import draw_network
from nnlab.files import container
from nnlab.files.container import replacing
from nnlab.files.saved import SavedModel
from nnlab.models import ZOO, Entry, load_model
from nnlab.models.own import arithmetic, own_class, own_network
from nnlab.optim import adder_recipe
from nnlab.paths import printable, user_path
from nnlab.runs.fields import PositiveInt, check_fields
from nnlab.runs.script import run

with needs("runs"):
    import tyro

ARITHMETICS = ("arithmetic", "first", "classifier")  # options that name one
DTYPES = ("float32", "bfloat16", "float16")
_OTHERS = "a file, or MODULE:CLASS of your own"
LONG = 2000  # pixels of a picture that are more than a page or two

Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
Size = Annotated[PositiveInt | None, tyro.conf.arg(metavar="INT")]


def _name_of(names: Iterable[str]) -> Any:
    return tyro.conf.arg(metavar="NAME", help=f"One of {', '.join(names)}.")


@dataclasses.dataclass(frozen=True)
class Config:
    model: Annotated[
        str, tyro.conf.Positional, _name_of((*ZOO, "a file, or MODULE:CLASS of your own"))
    ]
    arithmetic: Annotated[str, _name_of((*NAMED, "or MODULE:NAME of your own"))] = "float"
    first: Name = "float"
    """Arithmetic of the first layer of an image classifier."""
    classifier: Name = "float"
    """Arithmetic of the last layers."""
    norm: bool = False
    """Add normalisation to a network that was published without it."""
    batch_size: PositiveInt = 1
    image_size: Size = None
    """Height and width of the images (default: as published)."""
    channels: Size = None
    """Channels of the images (default: as published)."""
    classes: Size = None
    """Number of classes (default: as published)."""
    input_shape: tuple[PositiveInt, ...] = ()
    """Shape of one input of a network of your own, float32."""
    fields: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Arguments of the class of a network of your own."""
    dtype: Name = "float32"
    """Dtype of the computation: float32, bfloat16 or float16."""
    levels: Size = None
    """Show this many levels of modules, deeper ones added up (default: all)."""
    picture: Annotated[str | None, tyro.conf.arg(metavar="FILE.svg")] = None
    """Also draw the network into this file."""
    compile: bool = True
    """Compile the program and show the memory that it needs."""
    train: bool = False
    """Also show a training step (cross-entropy): operations, memory, and with --measure time."""
    measure: bool = False
    """Run batches on this machine to measure time and memory."""
    repeats: PositiveInt = 10
    """Number of batches to time."""

    def __post_init__(self):
        own = ":" in self.model
        if _is_file(self.model):
            self._check_file()
        elif not own:
            _check_name("MODEL", self.model, (*ZOO, "MODULE:CLASS"))
        if own and not self.input_shape:
            raise InputError(f"{self.model} needs --input-shape, such as 32 32 3.")
        if not own and (self.input_shape or self.fields):
            raise InputError(
                "--input-shape and --fields are for a network of your own, MODULE:CLASS."
            )
        for name in ARITHMETICS:
            try:
                arithmetic(getattr(self, name))
            except InputError as error:
                raise InputError(f"--{name}: {error}") from error
        _check_name("--dtype", self.dtype, DTYPES)
        if self.picture is not None:
            _check_picture("--picture", self.picture)
        check_fields(self)

    def _check_file(self) -> None:
        """Raise `InputError` for what a file says itself."""
        for field in dataclasses.fields(self):
            if field.name in _OF_FILES and getattr(self, field.name) != field.default:
                flag = "--" + field.name.replace("_", "-")
                raise InputError(f"{flag} is for networks by their names, not for {self.model}.")


_OF_FILES = (*ARITHMETICS, "norm", "image_size", "channels", "classes", "input_shape", "fields")
_OF_FILES += ("dtype",)


def _is_file(model: str) -> bool:
    return user_path(model).suffix == ".safetensors"


@functools.cache
def _stored(path: str) -> tuple[SavedModel, Entry]:
    """Return the network of a file, and what its row in the zoo would be."""
    saved, about = load_model(path), container.read(path).about["input"]
    return saved, Entry(type(saved.model), tuple(about["shape"]), jnp.dtype(about["dtype"]))


def _check_picture(flag: str, file: str) -> None:
    """Check that a picture can be written to a file.

    Raises:
        InputError: its name does not end in .svg, it is a folder, or its folder is not there or
            cannot be written.
    """
    path = user_path(file)
    if path.suffix.lower() != ".svg":
        raise InputError(f"{flag} must be a file whose name ends in .svg, not {printable(path)}.")
    if not path.parent.is_dir():
        raise InputError(f"{flag} {printable(path)} is in a folder that does not exist.")
    if path.is_dir():
        raise InputError(f"{flag} {printable(path)} is a folder, expected a file.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{flag} {printable(path)} is in a folder that cannot be written.")


def _check_name(flag: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        shown = name if name.isprintable() else repr(name)
        raise InputError(f"{flag} must be one of {', '.join(names)}, not {shown}.")


def build(config: Config) -> nn.Module:
    """Build the model that the command line describes.

    Raises:
        InputError: the model does not have one of the options given.
    """
    if _is_file(config.model):
        return _stored(config.model)[0].model
    published, entry = Config(next(iter(ZOO))), entry_of(config)
    options: dict[str, Any] = {}
    for name in (*ARITHMETICS, "norm", "classes", "dtype"):
        value = getattr(config, name)
        if value != getattr(published, name):
            if name not in entry.options:
                raise InputError(_no_option(config, name))
            options[name] = arithmetic(value) if name in ARITHMETICS else value
    if "dtype" in options:
        options["dtype"] = jnp.dtype(config.dtype)
    if ":" in config.model:
        return own_network(config.model, config.fields, options)
    return entry.make(**options)


def _no_option(config: Config, name: str) -> str:
    said = f"--{name} is an option that {config.model} does not have"
    if ":" in config.model:
        said += f"; give the class a field {name}"
        if name in ARITHMETICS:
            said += f", or if it has one of another name, --fields NAME={getattr(config, name)}"
    return f"{said}."


def entry_of(config: Config) -> Entry:
    """Return the row of the network in the zoo, or what would be that of an own one.

    Raises:
        InputError: an own one cannot be imported.
    """
    if ":" in config.model:
        return Entry(own_class(config.model), config.input_shape)
    if _is_file(config.model):
        return _stored(config.model)[1]
    return ZOO[config.model]


def shapes(config: Config, model: nn.Module) -> tuple[Any, jax.ShapeDtypeStruct]:
    """Return the shapes of the model's variables and of a batch of its inputs.

    Raises:
        InputError: the model does not take images of this size.
    """
    inputs = entry_of(config).inputs(config.batch_size)
    if len(inputs.shape) == 4:
        _, height, width, channels = inputs.shape
        size = config.image_size
        image = size or height, size or width, config.channels or channels
        inputs = jax.ShapeDtypeStruct((config.batch_size, *image), inputs.dtype)
    elif config.image_size or config.channels:
        raise InputError(
            f"--image-size and --channels are for images, which {config.model} has not."
        )
    if inputs.size > 2**40:  # beyond all machines, and soon beyond the compiler's integers
        raise InputError(f"--batch-size inputs must be at most 2^40 numbers, not {inputs.size:,}.")
    try:
        return jax.eval_shape(model.init, jax.random.key(0), inputs), inputs
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(
            f"{config.model} does not take inputs of {_by(inputs.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class Program(NamedTuple):
    """A function to compile, the shapes of its arguments, and how to draw these from a key."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[Any, ...]
    arguments: Callable[[jax.Array], tuple[Any, ...]]


def inference(model: nn.Module, variables: Any, inputs: Any) -> Program:
    """Make the program of `model.apply`."""

    def arguments(key):
        drawn = _drawn(key, inputs)
        return jax.jit(model.init)(key, drawn), drawn

    return Program("inference", model.apply, (variables, inputs), arguments)


def training_step(model: nn.Module, variables: Any, inputs: Any) -> Program:
    """Make the program of a step by cross-entropy and `adder_recipe`, without augmentation."""
    optimizer = adder_recipe(steps=1000)
    *labels, _ = jax.eval_shape(model.apply, variables, inputs).shape

    def arguments(key):
        drawn = _drawn(key, inputs)
        batch = drawn, jnp.zeros(labels, jnp.int32)
        return training.init(key, model, optimizer, drawn), batch

    step = training.train_step(model, optimizer)
    return Program("training step", step, jax.eval_shape(arguments, jax.random.key(0)), arguments)


def _drawn(key: jax.Array, inputs: Any) -> jax.Array:
    if jnp.issubdtype(inputs.dtype, jnp.integer):
        return jnp.zeros(inputs.shape, inputs.dtype)  # the first of its symbols
    return jax.random.normal(key, inputs.shape, inputs.dtype)


def compiled_totals(config: Config, program: Program) -> Iterator[Total]:
    """Yield the memory of the compiled program, and with --measure that and time of one batch."""
    compiled = jax.jit(program.function).lower(*program.shapes).compile()
    names = {
        "shared": "bytes that both share",
        "temporary": "temporary bytes",
        "compiled": "bytes together",
    }
    for part, size in planned_bytes(compiled).items():
        if size:
            yield names.get(part, f"bytes of {part}"), size
    if not config.measure:
        return
    arguments = jax.block_until_ready(program.arguments(jax.random.key(0)))

    def call():
        return jax.block_until_ready(compiled(*arguments))

    grown = growth(call) if jax.default_backend() == "cpu" else None
    if grown is not None:
        yield "measured: process grew by", f"{short(grown)}B"
    times = seconds(call, config.repeats)
    if (peak := accelerator_peak()) is not None:
        yield "measured: peak since start", f"{short(peak)}B"
    median = float(np.median(times))
    yield f"measured: median of {len(times)}", f"{short(median)}s"
    yield "  quartiles", " to ".join(f"{short(q)}s" for q in np.percentile(times, (25, 75)))
    yield "  inputs a second", short(config.batch_size / median)


def main(config: Config) -> None:
    model = build(config)
    variables, inputs = shapes(config, model)
    summary = summarize(model, variables, inputs)
    stored = _is_file(config.model)
    known = () if stored else entry_of(config).options
    options = [name for name in ARITHMETICS if name in known]
    said = [", ".join(f"{name} {getattr(config, name)}" for name in options)] * bool(options)
    said.append(f"inputs {_by(inputs.shape)} in {inputs.dtype if stored else config.dtype}")
    print(f"{config.model}: {'; '.join(said)}\n")
    print_lines(folded(summary.lines, config.levels) if config.levels else summary.lines)
    batch = "an input" if config.batch_size == 1 else f"a batch of {config.batch_size} inputs"
    print_totals(f"Inference of {batch}", totals(summary))
    if stored:
        parts = file_sizes(config.model)
        print_totals("File", [(f"bytes of {row['part']}", row["bytes"]) for row in parts])
    drawn = ""
    if config.picture is not None:
        title = config.model if stored else f"{config.model}, {config.arithmetic}"
        picture = draw_network(model, variables, inputs, levels=config.levels, title=title)
        _write_picture(config.picture, picture)
        flat = config.levels == 1 or all(len(line.path) < 2 for line in summary.lines)
        drawn = _picture_line(config.picture, picture, shorter=not flat)
    programs = [inference(model, variables, inputs)]
    if config.train:
        programs.append(training_step(model, variables, inputs))
        counts = count(programs[-1].function, *programs[-1].shapes)
        print_totals(f"Training step on {batch}", operations(counts))
    if config.compile or config.measure:
        machine = f"{runs.hardware()}, adder kernels {kernel_bodies()}"
        for program in programs:
            rows = compiled_totals(config, program)
            try:
                print_totals(f"Compiled {program.name} on {machine}", rows)
            except jax.errors.JaxRuntimeError as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{batch} cannot be run on this machine: {reason}") from error
    if drawn:
        print(f"\n{drawn}")


def _write_picture(file: str, picture: str) -> None:
    """Write a picture; an existing file is replaced only by a complete one."""
    path = user_path(file)
    with replacing(path, overwrite=True) as partial:
        partial.write_text(picture, encoding="utf-8")


def _picture_line(file: str, picture: str, shorter: bool) -> str:
    """Name the file of a picture, its size if it is long, and the way to a shorter one."""
    said = f"Picture: {printable(user_path(file))}"
    drawn = ElementTree.fromstring(picture)
    width, height = (drawn.get(side, "0") for side in ("width", "height"))
    if int(height) <= LONG:
        return said
    said += f", {width} x {height} pixels"
    return f"{said}; --levels 1 draws a shorter one" if shorter else said


def kernel_bodies() -> str:
    """Name the body of the adder's kernels on this machine, such as "native (avx2)"."""
    return kernels.status()["adder_conv"].get(jax.default_backend(), "xla")


if __name__ == "__main__":
    run(main, Config)

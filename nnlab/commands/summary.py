"""What a model is made of and what it costs, in any arithmetic, counted from its program.

    python -m nnlab summary resnet20 --arithmetic adder
    python -m nnlab summary resnet20 --arithmetic binary --levels 1 --batch-size 64 --measure

A line a module: shape of the output, parameters by the bits of each at rest, multiplications,
additions and bit operations, bytes of the output, energy. Numbers in the table are rounded and
count the whole batch; those below it are exact, and are those of the traced program. Operations are
counted and priced at the dtype that they run in: posits and 8-bit floats are computed in float32.
Energy is that of arithmetic in 45 nm CMOS, without memory traffic.

It reads no data. Only --measure runs the model, with fresh weights and random images.
"""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab import (
    kernels,
    models,
    runs,
    training,
)
from nnlab.arithmetics import NAMED
from nnlab.costs import count
from nnlab.costs.measuring import (
    accelerator_peak,
    growth,
    planned_bytes,
    seconds,
)
from nnlab.costs.summary import folded, summarize
from nnlab.costs.summary_text import (
    Total,
    operations,
    print_lines,
    print_totals,
    short,
    totals,
)
from nnlab.errors import InputError, needs
from nnlab.optim import adder_recipe
from nnlab.runs.script import check_positive_integer, run

with needs("runs"):
    import tyro


class Entry(NamedTuple):
    """A model by its name on the command line, with the images that it was published for."""

    make: Callable[..., nn.Module]
    size: int
    channels: int


MODELS = {
    "lenet5": Entry(models.LeNet5, 32, 1),
    "small_cnn": Entry(models.SmallCNN, 8, 1),
    "vgg_small": Entry(models.VGGSmall, 32, 3),
    "lenet5_original": Entry(models.OriginalLeNet5, 32, 1),
    "lenet5_full": Entry(models.full_lenet5, 32, 1),
    "mlp": Entry(models.MLP, 28, 1),
    "resnet20": Entry(models.resnet20, 32, 3),
    "resnet32": Entry(models.resnet32, 32, 3),
    "he_resnet20": Entry(models.he_resnet20, 32, 3),
    "he_resnet32": Entry(models.he_resnet32, 32, 3),
    "he_resnet44": Entry(models.he_resnet44, 32, 3),
    "he_resnet56": Entry(models.he_resnet56, 32, 3),
    "he_resnet110": Entry(models.he_resnet110, 32, 3),
    "alexnet": Entry(models.AlexNet, 224, 3),
    "alexnet_original": Entry(models.original_alexnet, 227, 3),
    "alexnet_ungrouped": Entry(models.ungrouped_alexnet, 227, 3),
    "vgg11": Entry(models.vgg11, 224, 3),
    "vgg11_bn": Entry(models.vgg11_bn, 224, 3),
    "vgg13": Entry(models.vgg13, 224, 3),
    "vgg13_bn": Entry(models.vgg13_bn, 224, 3),
    "vgg16": Entry(models.vgg16, 224, 3),
    "vgg16_bn": Entry(models.vgg16_bn, 224, 3),
    "vgg19": Entry(models.vgg19, 224, 3),
    "vgg19_bn": Entry(models.vgg19_bn, 224, 3),
    "googlenet": Entry(models.GoogLeNet, 224, 3),
    "googlenet_v1": Entry(models.googlenet_v1, 224, 3),
    "inception_v3": Entry(models.InceptionV3, 299, 3),
    "resnet18": Entry(models.resnet18, 224, 3),
    "resnet34": Entry(models.resnet34, 224, 3),
    "resnet50": Entry(models.resnet50, 224, 3),
    "resnet101": Entry(models.resnet101, 224, 3),
    "resnet152": Entry(models.resnet152, 224, 3),
    "resnext50_32x4d": Entry(models.resnext50_32x4d, 224, 3),
    "resnext101_32x8d": Entry(models.resnext101_32x8d, 224, 3),
    "resnext101_64x4d": Entry(models.resnext101_64x4d, 224, 3),
    "squeezenet1_0": Entry(models.squeezenet1_0, 224, 3),
    "squeezenet1_1": Entry(models.squeezenet1_1, 224, 3),
}
DTYPES = ("float32", "bfloat16", "float16")


Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
Size = Annotated[int | None, tyro.conf.arg(metavar="INT")]


def _name_of(names: Iterable[str]) -> Any:
    return tyro.conf.arg(metavar="NAME", help=f"One of {', '.join(names)}.")


@dataclasses.dataclass(frozen=True)
class Config:
    model: Annotated[str, tyro.conf.Positional, _name_of(MODELS)]
    arithmetic: Annotated[str, _name_of(NAMED)] = "float"
    first: Name = "float"
    """Arithmetic of the first convolution."""
    classifier: Name = "float"
    """Arithmetic of the dense layers at the end."""
    norm: bool = False
    """BatchNorm behind each convolution of a network that was published without."""
    batch_size: int = 1
    image_size: Size = None
    """Height and width; by default that of the published network."""
    channels: Size = None
    """Of the images; by default those of the published network."""
    classes: Size = None
    """By default those of the published network."""
    dtype: Name = "float32"
    """Of the computation: float32, bfloat16 or float16."""
    levels: Size = None
    """Depth in modules that the table goes to, what is deeper added up; by default to the end."""
    compile: bool = True
    """Compile the program and show the memory that it takes."""
    train: bool = False
    """Also a training step: its operations, its memory, and with --measure its time."""
    measure: bool = False
    """Run batches on this machine for their time and memory."""
    repeats: int = 10
    """Batches that are timed."""

    def __post_init__(self):
        _check_name("MODEL", self.model, MODELS)
        for name in ("arithmetic", "first", "classifier"):
            _check_name(f"--{name}", getattr(self, name), NAMED)
        _check_name("--dtype", self.dtype, DTYPES)
        for name in ("batch_size", "repeats"):
            check_positive_integer(name, getattr(self, name))
        for name in ("image_size", "channels", "classes", "levels"):
            if getattr(self, name) is not None:
                check_positive_integer(name, getattr(self, name))


def _check_name(flag: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        shown = name if name.isprintable() else repr(name)
        raise InputError(f"{flag} must be one of {', '.join(names)}, not {shown}.")


def build(config: Config) -> nn.Module:
    """The model of the command line.

    Raises:
        InputError: it has no option `norm`, or does not take these classes.
    """
    make = MODELS[config.model].make
    options: dict[str, Any] = {
        name: NAMED[getattr(config, name)] for name in ("arithmetic", "first", "classifier")
    }
    options["dtype"] = jnp.dtype(config.dtype)
    if config.classes is not None:
        options["classes"] = config.classes
    if config.norm:
        if not hasattr(make(), "norm"):
            raise InputError(f"--norm is an option that {config.model} does not have.")
        options["norm"] = True
    return make(**options)


def shapes(config: Config, model: nn.Module) -> tuple[Any, jax.ShapeDtypeStruct]:
    """Variables and images of the model, as shapes.

    Raises:
        InputError: the model does not take images of this size.
    """
    entry = MODELS[config.model]
    size, channels = config.image_size or entry.size, config.channels or entry.channels
    images = jax.ShapeDtypeStruct((config.batch_size, size, size, channels), jnp.float32)
    if images.size > 2**40:  # beyond all machines, and soon beyond the compiler's integers
        raise InputError(f"--batch-size images must be at most 2^40 numbers, not {images.size:,}.")
    try:
        return jax.eval_shape(model.init, jax.random.key(0), images), images
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(
            f"{config.model} does not take images of {size}x{size}x{channels}: "
            f"{str(error).splitlines()[0]}"
        ) from error


class Program(NamedTuple):
    """What is compiled: a function of arguments, their shapes, and how to make them of a key."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[Any, ...]
    arguments: Callable[[jax.Array], tuple[Any, ...]]


def inference(model: nn.Module, variables: Any, images: Any) -> Program:
    """`model.apply`."""

    def arguments(key):
        drawn = jax.random.normal(key, images.shape)
        return jax.jit(model.init)(key, drawn), drawn

    return Program("inference", model.apply, (variables, images), arguments)


def training_step(model: nn.Module, images: Any) -> Program:
    """A step of `nnlab.optim.adder_recipe` without augmentation."""
    optimizer = adder_recipe(steps=1000)

    def arguments(key):
        drawn = jax.random.normal(key, images.shape)
        batch = drawn, jnp.zeros(len(drawn), jnp.int32)
        return training.init(key, model, optimizer, drawn), batch

    step = training.train_step(model, optimizer)
    return Program("training step", step, jax.eval_shape(arguments, jax.random.key(0)), arguments)


def compiled_totals(config: Config, program: Program) -> Iterator[Total]:
    """Memory of the compiled program, and with --measure what one batch takes on this machine."""
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
    yield "  images a second", short(config.batch_size / median)


def main(config: Config) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # µ, where it cannot be written
    model = build(config)
    variables, images = shapes(config, model)
    summary = summarize(model, variables, images)
    print(
        f"{config.model}: arithmetic {config.arithmetic}, first {config.first}, classifier "
        f"{config.classifier}; images {'x'.join(map(str, images.shape))} in {config.dtype}\n"
    )
    print_lines(folded(summary.lines, config.levels) if config.levels else summary.lines)
    batch = "an image" if config.batch_size == 1 else f"a batch of {config.batch_size} images"
    print_totals(f"Inference of {batch}", totals(summary))
    programs = [inference(model, variables, images)]
    if config.train:
        programs.append(training_step(model, images))
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


def kernel_bodies() -> str:
    """Which bodies the adder's kernels have here, such as "native (avx2)"."""
    return kernels.status()["adder_conv"].get(jax.default_backend(), "xla")


if __name__ == "__main__":
    run(main, Config)

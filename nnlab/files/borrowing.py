"""Load the weights of a PyTorch model into the same model of nnlab, and give them back.

The table of names lies beside the model: `torch_names(model)` is {path of a layer in nnlab: name of
the layer in PyTorch}. The arrays of a layer follow from its type:

==============  ================  ==================================================================
nnlab           PyTorch           order
==============  ================  ==================================================================
kernel          weight            [out, in, kh, kw] becomes [kh, kw, in, out], or with groups
                                  [groups, kh, kw, in / groups, out / groups]; [out, in] becomes
                                  [in, out], and so does a convolution of one pixel where the layer
                                  here is dense
adder_kernel    adder             as kernel; the name in AdderNet's code
bias            bias              grouped as the kernel
scale, bias     weight, bias      of BatchNorm
mean, var       running_mean,     of BatchNorm
                running_var
embedding       weight
==============  ================  ==================================================================

Images are [height, width, channels] in nnlab and [channels, height, width] in PyTorch, so a dense
layer that takes flattened images has its inputs in another order: name it as a `Flattened`. A cell
of `nnlab.layers` is a layer of `torch.nn.LSTM`, `GRU` or `RNN` (with tanh): name it as `Gates`. A
dense layer that is one of several in a layer there, as queries are beside keys and values, is a
`Part`, and so is one whose weights are [in, out] there too. An array that belongs to no layer has
its own entry, {its path: its name}.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


class Flattened(NamedTuple):
    """A dense layer after flattened images: its PyTorch name and the size of these images."""

    name: str
    channels: int
    height: int
    width: int


class Gates(NamedTuple):
    """A recurrent cell: the PyTorch name of its module, how its arrays' names end, and its kind.

    PyTorch has the gates in the order of `nnlab.ops.recurrent`, and a bias of the input and one of
    the state. Only their sum matters, but for the last gate of a GRU (`recurrent_bias`).
    """

    name: str
    suffix: str = "_l0"
    gru: bool = False


class Part(NamedTuple):
    """A dense layer: its PyTorch name, which of that layer's equal parts it is, and their order.

    The parts follow each other along the outputs. `conv1d` is Hugging Face's layer of that name,
    whose weights are [in, out].
    """

    name: str
    index: int = 0
    parts: int = 1
    conv1d: bool = False


Place = str | Flattened | Gates | Part
Names = Mapping[str, Place]


class Table(dict[str, Place]):
    """The names of a model, and what the model is called."""

    model: str


def names_of(*kinds: type) -> Callable[[Function], Function]:
    """Decorate a `torch_names(model, …)`: it refuses models that are not of these classes."""

    def decorate(names: Any) -> Any:
        @functools.wraps(names)
        def checked(model: Any, *args: Any, **options: Any) -> Table:
            if not isinstance(model, kinds):
                known = " or ".join(kind.__name__ for kind in kinds)
                raise InputError(
                    f"{names.__module__}.{names.__name__} knows the names of a {known}, "
                    f"not of a {type(model).__name__}."
                )
            table = Table(names(model, *args, **options))
            table.model = type(model).__name__
            return table

        return checked

    return decorate


_ARRAYS = {
    "kernel": "weight",
    "adder_kernel": "adder",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "embedding": "weight",
}
_CELL_ARRAYS = {
    "input_kernel": ("weight_ih",),
    "recurrent_kernel": ("weight_hh",),
    "bias": ("bias_ih", "bias_hh"),
    "recurrent_bias": ("bias_hh",),
}


def borrow(
    variables: Any, state_dict: Mapping[str, np.ndarray], names: Names, *, start: bool = False
) -> Any:
    """Fill the variables of a model with the arrays of a PyTorch state dict.

    Args:
        variables: "params" and, with BatchNorm, "batch_stats": arrays or `jax.ShapeDtypeStruct`s,
            such as `jax.eval_shape(model.init, key, images)` gives.
        state_dict: {name: array}, such as `nnlab.files.read_state_dict` gives.
        names: the model's table of names, `torch_names(model)`.
        start: layers of adders and of signs take the weights of products, as where their training
            starts. BatchNorm's running statistics stay those of products until training moves them.

    Returns:
        The same tree of arrays, in the dtypes of `variables`.

    Raises:
        InputError: an array has no name in the table, no counterpart in the state dict or another
            shape there, or the state dict holds arrays that the model does not have (apart from
            `num_batches_tracked`).
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables)
    sources = [_source(path, names, start) for path, _ in leaves]
    expected = {name for source in sources for name in source.arrays}
    given = {name for name in state_dict if not name.endswith("num_batches_tracked")}
    odd = {"needs": sorted(expected - given), "has no": sorted(given - expected)}
    if any(odd.values()):
        raise InputError(
            f"the state dict does not fit {_model(names)}, which "
            f"{' and '.join(f'{verb} {_few(which)}' for verb, which in odd.items() if which)}."
        )
    taken = []
    for (_, leaf), source in zip(leaves, sources, strict=True):
        parts = [_in_order(source, name, state_dict[name], leaf.shape) for name in source.arrays]
        taken.append(jnp.asarray(functools.reduce(np.add, parts), leaf.dtype))
    return jax.tree.unflatten(structure, taken)


def lend(variables: Any, names: Names) -> dict[str, np.ndarray]:
    """Return the state dict that `borrow` would take these variables from.

    A dense layer is a `torch.nn.Linear` there, and a bias of a cell is that of its input.

    Args:
        variables, names: see `borrow`.

    Raises:
        InputError: an array has no name in the table.
    """
    state_dict, parts = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        source, array = _source(path, names, start=False), np.asarray(leaf)
        arrays = _in_their_order(source, array)
        state_dict |= zip(source.arrays, arrays, strict=True)
        if isinstance(source.place, Part):
            parts.setdefault(source.arrays[0], {})[source.place.index] = source, arrays[0]
    for name, of_name in parts.items():
        (source, _), *_ = of_name.values()
        state_dict[name] = np.concatenate(
            [of_name[index][1] for index in sorted(of_name)], axis=_outputs(source)
        )
    return {name: np.ascontiguousarray(array) for name, array in state_dict.items()}


class _Source(NamedTuple):
    """Where an array comes from: its layer, its kind, and PyTorch's arrays, whose sum it is."""

    place: Place
    kind: str
    arrays: tuple[str, ...]


def _source(path: Sequence[Any], names: Names, start: bool) -> _Source:
    *layer, kind = [key.key for key in path[1:]]
    if isinstance(own := names.get("/".join([*layer, kind])), str):
        return _Source(own, kind, (own,))
    place = names.get("/".join(layer)) or names.get("/".join(layer[:-1]))  # in a group or a cell
    if start and kind in ("adder_kernel", "binary_kernel"):
        kind = "kernel"
    arrays: tuple[str, ...] = ()
    if isinstance(place, Gates):
        found = _CELL_ARRAYS.get(f"{layer[-1]}_kernel" if kind == "kernel" else kind, ())
        arrays = tuple(f"{place.name}.{array}{place.suffix}" for array in found)
    elif place is not None and kind in _ARRAYS:
        arrays = (f"{place if isinstance(place, str) else place.name}.{_ARRAYS[kind]}",)
    if place is None or not arrays:
        raise InputError(
            f"the names of {_model(names)} have no entry for {'/'.join([*layer, kind])}."
        )
    return _Source(place, kind, arrays)


def _outputs(source: _Source) -> int:
    """The axis of outputs of an array of PyTorch's that has several parts."""
    assert isinstance(source.place, Part)
    return -1 if source.place.conv1d else 0


def _model(names: Names) -> str:
    return names.model if isinstance(names, Table) else "the model"


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' …' * (len(names) > 3)}"


def _in_order(source: _Source, name: str, found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of PyTorch's in the order and the shape that it has here."""
    place, kind, _ = source
    array = found = np.asarray(found)
    groups = shape[0] if kind.endswith("kernel") and len(shape) == 5 else 1
    if isinstance(place, Part):
        axis = _outputs(source)
        if array.ndim and array.shape[axis] % place.parts == 0:
            array = np.split(array, place.parts, axis)[place.index]
    if isinstance(place, Gates) and place.gru and name == f"{place.name}.bias_hh{place.suffix}":
        last = np.arange(array.size) >= 2 * array.size // 3
        array = array[last] if kind == "recurrent_bias" else np.where(last, 0, array)
    elif kind == "bias" and array.size == np.prod(shape):
        array = array.reshape(shape)
    elif kind.endswith("kernel") and array.ndim == 4 and array.shape[0] % groups == 0:
        array = array.reshape(groups, -1, *array.shape[1:]).transpose(0, 3, 4, 2, 1)
        array = array if len(shape) == 5 else array[0]
        array = array[0, 0] if len(shape) == 2 and array.shape[:2] == (1, 1) else array
    elif kind.endswith("kernel") and array.ndim == 2:
        if isinstance(place, Flattened):
            if array.shape[1] != np.prod(place[1:]):
                raise InputError(
                    f"{name} has shape {list(found.shape)}, expected inputs from {place.channels} "
                    f"channels of {place.height} by {place.width}."
                )
            array = array.reshape(-1, *place[1:]).transpose(0, 2, 3, 1).reshape(len(array), -1)
        array = array if isinstance(place, Part) and place.conv1d else array.T
    if array.shape != shape:
        raise InputError(
            f"{name} has shape {list(found.shape)}, in the order here {list(array.shape)}, "
            f"which does not fit {list(shape)}."
        )
    return array


def _in_their_order(source: _Source, array: np.ndarray) -> list[np.ndarray]:
    """The arrays of PyTorch's, in its order, which an array here comes from."""
    place, kind, _ = source
    if isinstance(place, Gates) and kind == "bias":
        return [array, np.zeros_like(array)]
    if kind == "recurrent_bias":
        return [np.concatenate([np.zeros(2 * len(array), array.dtype), array])]
    if kind == "bias":
        return [array.ravel()]
    if not kind.endswith("kernel"):
        return [array]
    if array.ndim > 2:
        array = array.transpose(*([0] if array.ndim == 5 else []), -1, -2, -4, -3)
        return [array.reshape(-1, *array.shape[-3:])]
    array = array if isinstance(place, Part) and place.conv1d else array.T
    if isinstance(place, Flattened):
        channels, *size = place[1:]
        array = array.reshape(-1, *size, channels).transpose(0, 3, 1, 2).reshape(len(array), -1)
    return [array]

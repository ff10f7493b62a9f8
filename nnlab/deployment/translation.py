"""From a trained model to its network in integers, by the program that JAX traces of the model.

The steps of the program are taken in order (`nnlab.deployment.program`). A layer becomes the sums
of its weights (`nnlab.deployment.products`), what is between layers follows the table of
`nnlab.deployment.rules`, and what does not depend on the images is computed.

Float layers become int8 weights, one scale a filter, on 8-bit inputs, at any `bits`: published
networks keep the first convolution and the classifier in full precision.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.deployment.builder import INT16, TABLE, TOKENS_TABLE, Builder
from nnlab.deployment.calibration import EXAMPLES, QUANTILE, Record, recorded
from nnlab.deployment.encoders import embedded, standardized
from nnlab.deployment.given import Comparison, Given
from nnlab.deployment.graph import IntegerNetwork
from nnlab.deployment.products import AdderOptions, layer_sums
from nnlab.deployment.program import Step, evaluated
from nnlab.deployment.quantization import Scheme, check_options
from nnlab.deployment.recognition import Embedding, Layer, Norm, Standardized
from nnlab.deployment.rules import translated
from nnlab.deployment.tables import Chains
from nnlab.deployment.texts import Lengths, Symbols, first_of, inputs_of
from nnlab.deployment.values import Value, power_of_two
from nnlab.errors import InputError

_TAGS = Value | Comparison | Symbols | Lengths
_SHARING = ("add", "add_any", "sub", "concatenate")


def quantize(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    *,
    bits: int = 8,
    groups: int = 4,
    scheme: Scheme = "redistribution",
    quantile: float = QUANTILE,
    correct_means: bool = True,
) -> IntegerNetwork:
    """A trained model in integers: adder layers in few bits, binary layers in packed signs.

    Args:
        model: of adder, binary and float layers (`nnlab.deployment.recognition`), BatchNorm,
            LayerNorm, embeddings, softmax attention, and what `nnlab.deployment.rules` lists
            between them; it is called as `model.apply(variables, images)` and gives one array.
        variables: its trained "params" and "batch_stats".
        images: for calibration [n, height, width, channels] or [n, features], as the model takes
            them; some hundred of the training images. The network takes images of the same size.
            Or texts, integers [n, time] or `nnlab.sequences.tokens.Tokens`; the network takes texts
            of at most as many symbols.
        bits, groups, scheme: of adder layers, see `nnlab.deployment.quantization`.
        quantile: of each adder layer's inputs, beyond which they saturate.
        correct_means: of all layers, on up to 256 of the images, see `nnlab.deployment.builder`;
            the papers of the schemes do not.

    Raises:
        InputError: the model has another layer or another function between layers, an argument is
            not as above, options of adder layers are given and there are none, or a sum could
            leave its accumulator.
    """
    adders = AdderOptions(bits, groups, scheme)
    check_options(*adders)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    has_adders = any("adder_kernel" in jax.tree_util.keystr(path[-1:]) for path, _ in leaves)
    if adders != AdderOptions() and not has_adders:
        raise InputError(
            f"the model has no adder layers, expected bits, groups and scheme as by default, not "
            f"{bits}, {groups} and {scheme!r}."
        )
    record = recorded(model, variables, images, quantile)
    few = jax.tree.map(jnp.asarray, first_of(images, 0, EXAMPLES))
    chains = Chains(record.program)
    build = Builder(inputs_of(few) if correct_means else None, _carrier(record, chains))
    values = _inputs(build, record)
    program = record.program
    values.update(program.constants)
    values.update(zip(program.variables, jax.tree.leaves(variables), strict=True))
    last = {number: place for place, step in enumerate(program.outline) for number in step.inputs}
    last[program.result] = len(program.outline)
    for number, place in chains.last_uses().items():
        last[number] = max(last.get(number, 0), place)
    ending: dict[int, list[int]] = {}
    for number, place in last.items():
        ending.setdefault(place, []).append(number)
    for place, step in enumerate(program.outline):
        values.update(_taken(step, values, build, record, adders, chains))
        for number in ending.get(place, ()):
            values.pop(number, None)
        build.forget_but(value for value in values.values() if isinstance(value, Value))
    result = values[program.result]
    if not isinstance(result, Value):
        raise InputError("the model ends in a comparison, expected numbers.")
    build.logits(result, record.most[program.result])
    return build.network()


def _taken(
    step: Step,
    values: dict[int, Any],
    build: Builder,
    record: Record,
    adders: AdderOptions,
    chains: Chains,
) -> dict[int, Any]:
    """What one step gives, by number."""
    inputs = [values.get(number) for number in step.inputs]
    if not any(number in record.program.varying for number in step.outputs):
        return evaluated(step, inputs)
    (number,) = step.outputs
    tags = [x for x in inputs if isinstance(x, Symbols | Lengths)]
    if tags and step.op != "attention":
        value = _of_texts(build, step, tags[0], record.calls.get(number))
    elif step.op == "layer":
        call, x = record.calls[number], inputs[0]
        if not isinstance(x, Value):
            raise InputError(f"{call.name} takes constants or a comparison, expected numbers.")
        if isinstance(call, Norm):
            value = build.affine(x, call.scale, call.offset)
        elif isinstance(call, Standardized):
            value = standardized(build, x, call, record.program.shapes[number][-1])
        elif isinstance(call, Embedding):
            raise InputError(f"{call.name} takes numbers, expected symbols as they are given.")
        else:
            value = _layer(build, x, call, adders)
    else:
        shapes = [record.program.shapes[number] for number in step.inputs]
        arrays = [x if isinstance(x, _TAGS) else np.asarray(x) for x in inputs]
        given = Given(step, arrays, shapes, record.program.shapes[number], build)
        try:
            value = translated(given)
        except InputError as error:
            value = _tabulated(given, number, values, chains, error)
    if isinstance(value, Value):
        shape = record.program.shapes[number]
        size = (shape[1], shape[2]) if len(shape) == 4 and not value.heads else (1, 1)
        size = value.size if value.flat else size
        value = dataclasses.replace(value, size=size, most=record.most.get(number, 0.0))
    return {number: value}


def _of_texts(build: Builder, step: Step, tag: Symbols | Lengths, call: Any) -> Any:
    """What a step makes of symbols, or of lengths."""
    if isinstance(tag, Lengths) and step.op != "layer":
        return tag
    if isinstance(tag, Symbols) and isinstance(call, Embedding):
        return embedded(build, tag.name, call)
    if isinstance(tag, Symbols) and step.op in ("convert_element_type", "copy"):
        return tag
    where = step.scope or "the model"
    raise InputError(f"{where} has {step.op} of symbols or lengths, expected an embedding first.")


def _tabulated(
    given: Given, number: int, values: dict[int, Any], chains: Chains, error: InputError
) -> Any:
    """A step without a rule as a function of one value, or its error if it is none."""
    root = values.get(chains.roots.get(number, -1))
    if not isinstance(root, Value):
        raise error
    aval: Any = given.step.equation.outvars[0].aval
    if aval.dtype == bool:
        return Comparison(root, True, math.nan)  # for a later step's table
    try:
        half = TOKENS_TABLE if len(given.result) == 3 else TABLE
        return given.build.table(root, chains.function(number, values), given.name("table"), half)
    except (InputError, TypeError, ValueError):
        raise error from None


def _layer(build: Builder, x: Value, layer: Layer, adders: AdderOptions) -> Value:
    try:
        return layer_sums(build, x, layer, adders)
    except InputError as error:
        if layer.name in str(error):
            raise
        raise InputError(f"{layer.name} does not deploy: {error}") from error


def _inputs(build: Builder, record: Record) -> dict[int, Any]:
    """What the model is given, by number; images in bytes where only float layers take them, else
    in 16 bits."""
    texts: dict[int, Any] = {}
    for name, number in record.program.inputs.items():
        texts[number] = Lengths() if name == "lengths" else Symbols(name)
    embeddings = [number for number, call in record.calls.items() if isinstance(call, Embedding)]
    first = {step.inputs[0] for step in record.program.outline if step.outputs[0] in embeddings}
    if first & set(texts):
        return texts
    shape = record.program.shapes[record.program.images][1:]
    program, numbers, small = record.program, {record.program.images}, True
    for step in program.outline:
        if numbers & set(step.inputs[:1] if step.op == "layer" else step.inputs):
            call = record.calls.get(step.outputs[0])
            if step.op in ("reshape", "convert_element_type"):
                numbers |= set(step.outputs)
            else:
                small &= isinstance(call, Layer) and call.weights == "kernel"
    size = (shape[0], shape[1]) if len(shape) == 3 else (1, 1)
    largest = 127 if small else INT16[1]
    return {program.images: build.images(record.most[program.images], largest, size)}


def _carrier(record: Record, chains: Chains) -> float:
    """A step for what is added up and concatenated, by the largest number between the first and
    the last layer."""
    calls = list(record.calls.values())
    places = [place for place, call in enumerate(calls) if isinstance(call, Layer)]
    inner = calls[places[0] + 1 : places[-1]] if places else []
    shared = [
        record.most[number]
        for step in record.program.outline
        if step.op in _SHARING and chains.roots.get(step.outputs[0]) not in chains.curved
        for number in step.inputs
        if number in record.program.varying
    ]
    return power_of_two(max([call.most for call in inner] + shared, default=0.0)) / 2**15

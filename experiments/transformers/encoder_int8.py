"""How near are sentence vectors of an encoder in 8-bit integers to those in floats?

Answer: The cosine with the float vector is 0.995 for the class symbol and 0.991 for the mean over
symbols, and at worst 0.989 and 0.963. Of 872 sentences 78 % keep their nearest one by the mean.

MiniLM-L6 (six blocks of 384 features) becomes a network of integers, `nnlab.deployment.quantize`:
weights, embeddings and the inputs of every product in 8 bits, sums, LayerNorm and softmax in
integers too, GELU a table. 64 sentences of SST-2's training set give the ranges; whole sentences of
dev are then read by both networks, and nothing is chosen by them. Two vectors of a sentence are
compared by their cosine: that of its class symbol, and the mean over its symbols, which this
checkpoint was trained for. By the mean each sentence has a nearest one among the others; the last
column says how often both networks agree on it. Arrays take 22.9 MB instead of 90.3.

Known: no published figure is of this network and these sentences.

    python experiments/transformers/encoder_int8.py

It takes some three minutes of two cores of an AMD EPYC.

References:
    Kim et al., I-BERT, ICML 2021, https://arxiv.org/abs/2101.01321.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab import deployment, figures, runs, training
from nnlab.paths import user_path
from nnlab.runs.fields import DataDir, PositiveInt
from nnlab.runs.script import run
from nnlab.sequences import hugging_face
from nnlab.sequences.bert import Bert
from nnlab.sequences.buckets import padded
from nnlab.sequences.sst2 import load_sst2
from nnlab.sequences.text_files import Table
from nnlab.sequences.tokenizers import read_tokenizer
from nnlab.sequences.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class Config(runs.Run):
    out: str = "runs/encoder_int8"
    data_dir: DataDir = None
    encoder: str | None = None
    """Folder of a BERT in Hugging Face's form with its tokenizer; by default MiniLM-L6."""
    calibration: PositiveInt = 64
    """Training sentences that give the ranges."""
    sentences: PositiveInt = 872
    """Sentences of dev to compare."""
    positions: PositiveInt = 64
    """Most symbols of a sentence."""
    batch_size: PositiveInt = 32


def main(config: Config) -> None:
    folder = user_path(config.encoder) if config.encoder else hugging_face.minilm_folder()
    found = hugging_face.read(folder, Bert, pooler=False)
    model: Any = found.model
    tokenizer = read_tokenizer(folder)
    tokenizer.check_fits(model.symbols)
    data = load_sst2(config.data_dir)

    def tokens(table: Table, count: int) -> Tokens:
        texts = tokenizer.encode(table.texts("sentence")[:count], config.positions)
        return padded(texts, config.positions, pad=tokenizer.pad)

    texts = tokens(data.dev, config.sentences)
    with config.open() as record:
        start = time.perf_counter()
        integers = deployment.quantize(
            model, found.variables, tokens(data.train, config.calibration)
        )
        seconds = time.perf_counter() - start

        @jax.jit
        def exact(texts: Tokens) -> jax.Array:
            return vectors(model.apply(found.variables, texts).hidden, texts)

        run_integers = deployment.run(integers)

        @jax.jit
        def rounded(texts: Tokens) -> jax.Array:
            return vectors(run_integers(texts), texts)

        both = [
            np.asarray(training.in_batches(each, texts, config.batch_size), np.float64)
            for each in (exact, rounded)
        ]
        for place, name in enumerate(("class symbol", "mean")):
            a, b = (
                each[:, place] / np.linalg.norm(each[:, place], axis=-1, keepdims=True)
                for each in both
            )
            cosines = (a * b).sum(-1)
            row: dict[str, Any] = {"vector": name, "sentences": len(a)}
            row |= {"mean cosine": round(float(cosines.mean()), 4)}
            row |= {"worst cosine": round(float(cosines.min()), 4)}
            nearest = [(v @ v.T - 2 * np.eye(len(v))).argmax(1) for v in (a, b)]
            record.row(
                row | {"same nearest / %": round(100 * np.mean(nearest[0] == nearest[1]), 1)}
            )
        sizes = [tree_bytes(found.variables), tree_bytes(integers.arrays)]
        record.result({"MB of float": sizes[0], "MB of integers": sizes[1]})
        record.result({"seconds to quantize": round(seconds, 1)})
        figures.print_table(record.rows())


def vectors(hidden: jax.Array, texts: Tokens) -> jax.Array:
    """Return the class symbol's features and the mean over symbols, [texts, 2, features]."""
    there = jnp.arange(hidden.shape[1]) < texts.lengths[:, None]
    mean = (hidden * there[..., None]).sum(1) / there.sum(1, keepdims=True)
    return jnp.stack([hidden[:, 0], mean], axis=1)


def tree_bytes(tree: Any) -> float:
    return round(sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) / 1e6, 1)


if __name__ == "__main__":
    run(main, Config)

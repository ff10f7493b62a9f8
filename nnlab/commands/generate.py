"""Generate text with a character network that `experiments/text/char_lm.py` has trained.

    nnlab generate runs/char_lm --prompt "ROMEO:" --temperature 0.8
    nnlab generate runs/char_lm/network.safetensors --length 100000 > play.txt

The prompt and what follows it go to standard output as they come; the speed goes to standard error.
A network that was trained on files stops where a file ends. The same seed gives the same text on
the same machine.
"""

import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.files import SavedModel
from nnlab.models import LanguageModel, load_model
from nnlab.paths import reading, user_path
from nnlab.runs import RunFolder
from nnlab.runs.fields import Positive, PositiveInt, Seed, check_fields
from nnlab.runs.script import run
from nnlab.sequences.generation import decode, prefill
from nnlab.sequences.text import Vocabulary

with needs("runs"):
    import tyro

PIECE = 100  # characters that are written at once


@dataclasses.dataclass(frozen=True)
class Config:
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or the file of the network."""
    prompt: str = ""
    """What the text begins with; by default the network begins a new text."""
    length: PositiveInt = 1000
    """Most characters to write."""
    temperature: Positive = 0.8
    """1 samples from the network's own distribution; less is more cautious."""
    top_k: PositiveInt | None = None
    """Draw from so many of the likeliest characters; by default from all."""
    seed: Seed = 0

    def __post_init__(self):
        check_fields(self)


def load(path: str | os.PathLike[str]) -> SavedModel:
    """Read the character network of a run folder or a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = user_path(path)
    with reading(path):
        folder, path = path, RunFolder(path).network if path.is_dir() else path
        if path != folder and not path.exists():
            raise InputError(
                f"{folder} holds no {path.name}; expected the folder of a finished run of"
                " experiments/text/char_lm.py."
            )
    saved = load_model(path)
    vocabulary = saved.notes.get("vocabulary")
    if not isinstance(saved.model, LanguageModel) or not isinstance(vocabulary, str):
        raise InputError(
            f"{path} holds a {type(saved.model).__name__}; expected a character network of"
            " experiments/text/char_lm.py."
        )
    if len(vocabulary) != saved.model.symbols:
        raise InputError(
            f"{path} names {len(vocabulary)} characters for a network of {saved.model.symbols};"
            " expected one for each symbol."
        )
    return saved


def text_of(saved: SavedModel, config: Config, started: Callable[[], None]) -> Iterator[str]:
    """Yield the text after the prompt in pieces; call `started` when all is compiled.

    Raises:
        InputError: the network does not know a character of the prompt.
    """
    model, variables, notes = saved
    vocabulary = Vocabulary(notes["vocabulary"])
    prompt = [vocabulary.encode(part) for part in (notes.get("start", ""), config.prompt)]
    prompts = jnp.asarray(np.concatenate(prompt)[None])
    position = jax.jit(functools.partial(prefill, model))(variables, prompts)
    key = jax.random.key(config.seed)

    def piece(variables, key, position, temperature):
        return decode(
            *(model, variables, key, position, PIECE), temperature=temperature, top_k=config.top_k
        )

    arguments = variables, key, position, jnp.float32(config.temperature)
    compiled = jax.jit(piece).lower(*arguments).compile()
    started()
    for written in range(0, config.length, PIECE):
        position, symbols = compiled(variables, key, position, arguments[-1])
        text = vocabulary.decode(np.asarray(symbols[0])[: config.length - written])
        text, end, _ = text.partition(notes["end"]) if notes.get("end") else (text, "", "")
        yield text
        if end:
            return


def main(config: Config) -> None:
    saved = load(config.network)
    start = []
    length = 0
    for text in text_of(saved, config, lambda: start.append(time.perf_counter())):
        sys.stdout.write(text if length else config.prompt + text)
        sys.stdout.flush()
        length += len(text)
    seconds = time.perf_counter() - start[0]
    sys.stdout.write("\n")
    print(
        f"{length:,} characters in {seconds:.2f} seconds, {length / seconds:,.0f} a second.",
        file=sys.stderr,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the quiet end where `| head` has seen enough
    run(main, Config)

"""Generate text with a character network, such as `experiments/text/char_lm.py` has trained.

    nnlab generate runs/char_lm --prompt "ROMEO:" --temperature 0.8
    nnlab generate packed.safetensors --prompt "ROMEO:"
    nnlab generate runs/char_lm/network.safetensors --length 100000 > play.txt

The prompt and what follows it go to standard output as they come; the speed goes to standard error.
A network that was trained on files stops where a file ends. The same seed gives the same text on
the same machine.

Any network of symbols will do whose file has a note "vocabulary", one character a symbol: recurrent
ones, and decoders with a cache, packed (`nnlab.deployment.pack`) or not. A decoder writes as many
characters as its cache has room for; one of learnt positions has no more than these.
"""

import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlab.errors import InputError, needs
from nnlab.files import SavedModel
from nnlab.models import GPT2, LanguageModel, Llama, MatMulFreeLM, load_model
from nnlab.paths import reading, user_path
from nnlab.runs import RunFolder
from nnlab.runs.fields import Positive, PositiveInt, Seed, check_fields
from nnlab.runs.script import run
from nnlab.sequences.generation import decode, prefill
from nnlab.sequences.text import Vocabulary

with needs("runs"):
    import tyro

PIECE = 100  # characters that are written at once
LENGTH = 1000
KINDS = (LanguageModel, GPT2, Llama, MatMulFreeLM)


@dataclasses.dataclass(frozen=True)
class Config:
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run, or the file of the network."""
    prompt: str = ""
    """What the text begins with; by default the network begins a new text."""
    length: PositiveInt | None = None
    """Most characters to write; by default 1000, or as many as the network has positions for."""
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
    if not isinstance(saved.model, KINDS) or not isinstance(vocabulary, str):
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
        InputError: the network does not know a character of the prompt, there is no prompt where
            it needs one, or too long a text is asked for.
    """
    model, variables, notes = saved
    vocabulary = Vocabulary(notes["vocabulary"])
    prompt = [vocabulary.encode(part) for part in (notes.get("start", ""), config.prompt)]
    prompts = jnp.asarray(np.concatenate(prompt)[None])
    length, piece_length = _lengths(model, prompts.shape[1], config)
    room = None if isinstance(model, LanguageModel) else -(-length // piece_length) * piece_length
    position = jax.jit(functools.partial(prefill, model, room=room))(variables, prompts)
    key = jax.random.key(config.seed)

    def piece(variables, key, position, temperature):
        options: Any = dict(temperature=temperature, top_k=config.top_k)
        return decode(model, variables, key, position, piece_length, **options)

    arguments = variables, key, position, jnp.float32(config.temperature)
    compiled = jax.jit(piece, donate_argnums=2).lower(*arguments).compile()
    started()
    for written in range(0, length, piece_length):
        position, symbols = compiled(variables, key, position, arguments[-1])
        text = vocabulary.decode(np.asarray(symbols[0])[: length - written])
        text, end, _ = text.partition(notes["end"]) if notes.get("end") else (text, "", "")
        yield text
        if end:
            return


def _lengths(model: Any, prompt: int, config: Config) -> tuple[int, int]:
    """How many characters are written, and how many at once."""
    if not prompt:
        raise InputError("the network begins no text of its own, expected --prompt.")
    positions = getattr(model, "positions", None)
    if positions is None:
        return config.length or LENGTH, PIECE
    room = positions - prompt
    if room < (config.length or 1):
        raise InputError(
            f"the network has {positions} positions, of which the prompt takes {prompt}; expected "
            f"--length {max(room, 0)} at most, not {config.length or 1}."
        )
    length = min(config.length or LENGTH, room)
    most = min(PIECE, length)
    return length, next(n for n in range(most, 0, -1) if -(-length // n) * n <= room)


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

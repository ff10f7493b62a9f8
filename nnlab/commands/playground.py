"""Write the playground: one page for a browser that trains small networks in any arithmetic.

    nnlab playground --out playground.html --open

The page needs no network and no server. Its layers, gradient rules, losses and optimisers are
printed from nnlab's own functions; what it saves, `nnlab.playground.load` reads and trains on.
"""

import dataclasses
import webbrowser

from nnlab.paths import user_path
from nnlab.playground import write_page
from nnlab.runs.fields import check_fields
from nnlab.runs.script import run


@dataclasses.dataclass(frozen=True)
class Config:
    out: str = "playground.html"
    """File to write; an existing one is replaced."""
    open: bool = False
    """Open the page in the browser."""

    def __post_init__(self):
        check_fields(self)


def main(config: Config) -> None:
    path = user_path(config.out)
    write_page(path)
    print(f"Page: {path} ({path.stat().st_size / 1000:.0f} kB)")
    if config.open and not webbrowser.open(path.absolute().as_uri()):
        print("There is no browser to open it with; open the file by hand.")


if __name__ == "__main__":
    run(main, Config)

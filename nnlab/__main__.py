"""`nnlab NAME …`, or `python -m nnlab NAME …`: the commands in `nnlab.commands`."""

import ast
import difflib
import pkgutil
import runpy
import sys
from pathlib import Path

from nnlab import __version__, commands
from nnlab.console import console
from nnlab.errors import InputError


def main() -> None:
    """Run the command that the first argument names; without one, list them all."""
    with console():
        names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        if name in names:
            del sys.argv[1]
            # As the main module, so that its docstrings are found, which --help shows.
            runpy.run_module(f"nnlab.commands.{name}", None, "__main__", alter_sys=True)
        elif name in ("-h", "--help", "help"):
            print("usage: nnlab COMMAND [-h] …\n")
            for each in names:
                source = Path(commands.__path__[0], f"{each}.py").read_text(encoding="utf-8")
                summary, *_ = (ast.get_docstring(ast.parse(source)) or "").splitlines()
                print(f"  {each:10} {summary}")
        elif name == "--version":
            print(f"nnlab {__version__}")
        else:
            near = difflib.get_close_matches(name, names, 1)
            expected = f"the nearest is {near[0]}" if near else f"expected {', '.join(names)}"
            raise InputError(f"There is no command {name!r}; {expected}.")


if __name__ == "__main__":
    main()

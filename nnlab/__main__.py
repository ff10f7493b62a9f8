"""`nnlab NAME …`, or `python -m nnlab NAME …`: the commands in `nnlab.commands`."""

import ast
import pkgutil
import runpy
import sys
from pathlib import Path

from nnlab import commands
from nnlab.console import console
from nnlab.errors import InputError


def main() -> None:
    """Run the command that the first argument names; list all of them where it names none."""
    with console():
        found = [module.name for module in pkgutil.iter_modules(commands.__path__)]
        if len(sys.argv) > 1 and sys.argv[1] in found:
            # As the main module, so that its docstrings are found, which --help shows.
            runpy.run_module(f"nnlab.commands.{sys.argv.pop(1)}", None, "__main__", alter_sys=True)
            return
        print(f"usage: nnlab {{{','.join(found)}}} [-h] …\n")
        for name in found:
            source = (Path(commands.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
            print(f"  {name:10} {(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
        if sys.argv[1:] not in ([], ["-h"], ["--help"]):
            raise InputError(
                f"There is no command {sys.argv[1]!r}; expected one of {', '.join(found)}."
            )


if __name__ == "__main__":
    main()

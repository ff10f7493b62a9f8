"""`nnlab NAME …`, or `python -m nnlab NAME …`: the commands in `nnlab.commands`."""

import ast
import pkgutil
import runpy
import sys
from pathlib import Path

from nnlab import commands
from nnlab.errors import MissingPackageError


def main() -> None:
    """Runs the command that the first argument names; lists all of them where it names none."""
    found = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    if len(sys.argv) > 1 and sys.argv[1] in found:
        name = sys.argv.pop(1)
        sys.argv[0] = f"nnlab {name}"
        try:
            runpy.run_module(f"nnlab.commands.{name}", run_name="__main__")
        except MissingPackageError as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from error
        return
    print(f"usage: nnlab {{{','.join(found)}}} [-h] …\n")
    for name in found:
        source = (Path(commands.__path__[0]) / f"{name}.py").read_text()
        print(f"  {name:10} {(ast.get_docstring(ast.parse(source)) or '').splitlines()[0]}")
    if sys.argv[1:] not in ([], ["-h"], ["--help"]):
        print(
            f"\nThere is no command {sys.argv[1]!r}; expected one of {', '.join(found)}.",
            file=sys.stderr,
        )
        raise SystemExit(2)


if __name__ == "__main__":
    main()

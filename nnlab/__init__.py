"""nnlab: one network, any arithmetic."""

import importlib as _importlib
import pkgutil as _pkgutil
from typing import Any as _Any

from nnlab import _moved

__version__ = "0.1.0"

_moved.install()


def __getattr__(name: str) -> _Any:
    """Imports a package or module of nnlab when it is first asked for: `nnlab.kernels.status()`."""
    if not name.startswith("_"):
        try:
            return _importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(module.name for module in _pkgutil.iter_modules(__path__))})

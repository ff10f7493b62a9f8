import importlib.util
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def script(request):
    """An experiment as a module: the test's parameter, or the `SCRIPT` of the tests' file."""
    path = getattr(request, "param", None) or request.module.SCRIPT
    name = f"script_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, (EXPERIMENTS / path).with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]

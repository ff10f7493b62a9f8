import pytest


@pytest.fixture(scope="module")
def script(request, load_script):
    """An experiment as a module: the test's parameter, or the `SCRIPT` of the tests' file."""
    return load_script(getattr(request, "param", None) or request.module.SCRIPT)

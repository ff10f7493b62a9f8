"""Downloads that are checked before anyone reads them.

Pooch downloads into a temporary file, checks its MD5 against the published one, and only then moves
it into place: a file with its final name is whole.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnlab.errors import InputError, needs

CONNECT_SECONDS = 5.0  # a missing network is noticed within this
READ_SECONDS = 30.0


def fetch(urls: Sequence[str], md5: str, target: Path) -> None:
    """Download `target` from the first of `urls` that serves it, unless it is there already.

    Raises:
        InputError: no URL served a file with this MD5; gives the reason of each.
        MissingPackageError: pooch is not installed.
    """
    with needs("data"):
        import pooch

    download: Any = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=(CONNECT_SECONDS, READ_SECONDS)
    )
    failures = []
    for url in urls:
        try:
            pooch.retrieve(url, f"md5:{md5}", target.name, target.parent, downloader=download)
            return
        except ValueError:  # pooch has removed the file
            failures.append(f"{url} served a file whose MD5 is not the published {md5}")
        except OSError as error:  # the base of every exception of requests
            failures.append(f"{url}: {_reason(error)}")
    raise InputError(f"{target.name} could not be downloaded: {'; '.join(failures)}")


def _reason(error: BaseException) -> str:
    """Return the innermost cause, which requests wraps in the whole request."""
    cause = getattr(error, "reason", error.args[0] if error.args else None)
    if isinstance(cause, BaseException):
        return _reason(cause)
    return cause if isinstance(cause, str) else str(error)

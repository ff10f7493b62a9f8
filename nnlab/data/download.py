"""Downloads that go on where they stopped, and that are checked before anyone reads them.

Pooch checks a file against its published MD5 and moves it into place only then. Its own HTTP
downloader starts over after every broken connection; the one here keeps what arrived in a `.part`
file next to the target and asks for the rest (RFC 9110, section 14: Range requests).
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nnlab.errors import InputError

CONNECT_SECONDS = 5.0  # no network is found out within this
READ_SECONDS = 30.0
CHUNK_BYTES = 4096  # a broken connection loses less than this of what had arrived


def fetch(urls: Sequence[str], md5: str, target: Path) -> None:
    """Downloads `target` from the first of `urls` that serves it, unless it is there already.

    Processes that want the same file at once wait for the first of them.

    Raises:
        InputError: no URL served bytes with this MD5; gives the reason of each.
    """
    import fcntl

    import pooch

    failures = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{target}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for url in urls:
                try:
                    pooch.retrieve(
                        url,
                        known_hash=f"md5:{md5}",
                        fname=target.name,
                        path=target.parent,
                        downloader=_ResumingDownloader(Path(f"{target}.part")),
                    )
                    return
                except ValueError:  # what pooch raises after it has removed the file
                    failures.append(f"{url} served a file whose MD5 is not the published {md5}")
                except OSError as error:  # the base of every exception of requests
                    failures.append(f"{url}: {_reason(error)}")
    except OSError as error:
        failures.append(f"{target.parent} cannot be written: {error.strerror}")
    raise InputError(f"{target.name} could not be downloaded: {'; '.join(failures)}")


class _ResumingDownloader:
    """A downloader for pooch that collects the body in `part`, over as many requests as it takes.

    It asks again as long as every request brings something. Whether the pieces fit together is
    for the hash to say: pooch removes a file that does not match, and the next try starts fresh.
    """

    def __init__(self, part: Path):
        self.part = part

    def __call__(self, fname, action, pooch=None, *, check_only=None) -> None:
        # Called with the URL and the file to write; the names are those of pooch's protocol.
        from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

        while True:
            before = self._size()
            try:
                self._request_rest(fname)
            except (ChunkedEncodingError, ConnectionError, Timeout):
                if self._size() <= before:
                    raise
            else:
                break
        os.replace(self.part, action)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _request_rest(self, url: str) -> None:
        import requests
        from tqdm.auto import tqdm

        start = self._size()
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if start and response.status_code == requests.codes.range_not_satisfiable:
                return  # nothing lies beyond what is here
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                start = 0  # the server ignores ranges and sends everything
            length = int(response.headers.get("Content-Length", 0))
            with (
                open(self.part, "ab" if start else "wb") as file,
                tqdm(
                    desc=url.rpartition("/")[2],
                    initial=start,
                    total=start + length if length else None,
                    unit="B",
                    unit_scale=True,
                    disable=not sys.stderr.isatty(),
                ) as bar,
            ):
                for chunk in response.iter_content(chunk_size=CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))


def _reason(error: BaseException) -> str:
    """The innermost cause, which requests wraps in the whole request."""
    cause = getattr(error, "reason", error.args[0] if error.args else None)
    if isinstance(cause, BaseException):
        return _reason(cause)
    return cause if isinstance(cause, str) else str(error)

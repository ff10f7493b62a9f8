"""Where the files of a data set are: on a disk, or else downloaded into the cache.

Each of these folders is searched, itself and its usual sub-folders: the `data_dir` of the call,
the environment variable `NNLAB_DATA_DIR`, `/usr/share/datasets` (where Debian's packages put data)
and the cache (`~/.cache/nnlab` on Linux; `XDG_CACHE_HOME` moves it).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnlab.data import download
from nnlab.errors import InputError


class Source(NamedTuple):
    """A data set made of files.

    Attributes:
        name: as the user gives it.
        folders: the sub-folders in which it usually lies; the first is ours in the cache.
        file_sets: names of files, each set of which is the whole data set; the first that a
            folder holds is taken.
        mirrors: URLs that end in a slash, under which the published files are.
        md5: of the published files; together they are one of `file_sets`.
    """

    name: str
    folders: Sequence[str]
    file_sets: Sequence[Sequence[str]]
    mirrors: Sequence[str]
    md5: dict[str, str]


def locate(source: Source, data_dir: str | os.PathLike | None) -> list[Path]:
    """Finds the files of one of the source's file sets, in the order of that set.

    Raises:
        InputError: they are in no folder and cannot be downloaded; lists every folder.
    """
    system, cache = Path("/usr/share/datasets"), _cache()
    looked = []
    for root in [*given_roots(data_dir), system, cache]:
        for folder in [root, *(root / name for name in source.folders)]:
            for files in source.file_sets:
                if all((folder / file).is_file() for file in files):
                    return [folder / file for file in files]
            looked.append(_describe(folder, source))
    home = cache / source.folders[0]
    try:
        for file, md5 in source.md5.items():
            download.fetch([mirror + file for mirror in source.mirrors], md5, home / file)
    except InputError as error:
        raise InputError(
            f"{source.name} is in none of {', '.join(looked)} and {error}; put "
            f"{' or '.join(', '.join(files) for files in source.file_sets)} into one of these "
            "folders, or name the folder that holds them with data_dir or NNLAB_DATA_DIR"
        ) from error
    return [home / file for file in source.md5]


def given_roots(data_dir: str | os.PathLike | None) -> list[Path]:
    """The folders that the user named: `data_dir`, then the environment variable."""
    named = [data_dir, os.environ.get("NNLAB_DATA_DIR")]
    return [Path(root).expanduser() for root in named if root]


def find_given(
    name: str, places: Sequence[str], data_dir: str | os.PathLike | None, expected: str
) -> Path:
    """The first of the places, files or folders, below the folders that the user named.

    Raises:
        InputError: it is in none of them; lists every place, and says what was expected.
    """
    looked = [root / place for root in given_roots(data_dir) for place in places]
    for path in looked:
        if path.exists():
            return path
    where = f"is in none of {', '.join(map(str, looked))}" if looked else "is in no named folder"
    raise InputError(f"{name} {where}; expected {expected} below --data-dir or NNLAB_DATA_DIR.")


def _cache() -> Path:
    import pooch

    return Path(pooch.os_cache("nnlab"))


def _describe(folder: Path, source: Source) -> str:
    """The folder, with what it lacks where it holds only a part of a file set."""
    for files in source.file_sets:
        missing = [file for file in files if not (folder / file).is_file()]
        if len(missing) < len(files):
            return f"{folder} (which lacks {', '.join(missing)})"
    return str(folder)

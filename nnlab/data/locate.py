"""Find the files of a data set on disk, or download them into the cache.

The `data_dir` of a call is the only place that is then searched, with its usual sub-folders: who
names a folder does not want other files without a word. Without one, these are searched in order:
the environment variable `NNLAB_DATA_DIR`, `/usr/share/datasets` (where Debian's packages put data)
and the cache (`~/.cache/nnlab` on Linux; `XDG_CACHE_HOME` moves it).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nnlab.data import download
from nnlab.errors import InputError, needs
from nnlab.paths import printable, reading, user_path


class Source(NamedTuple):
    """A data set made of files.

    Attributes:
        name: the name by which a user asks for it.
        folders: the sub-folders that usually hold it; the first is also its folder in the cache.
        file_sets: sets of file names, each of which is the whole data set; the first one that a
            folder holds is used.
        mirrors: URLs of the published files without their names, ending in a slash.
        md5: {file: MD5} of the published files; together they are one of `file_sets`.
    """

    name: str
    folders: Sequence[str]
    file_sets: Sequence[Sequence[str]]
    mirrors: Sequence[str]
    md5: dict[str, str]


def locate(source: Source, data_dir: str | os.PathLike | None) -> list[Path]:
    """Find or download the files of one of the source's file sets, in the order of that set.

    Raises:
        InputError: the `data_dir` does not hold them; or there is none, no folder holds them and
            they cannot be downloaded. The error lists every folder.
        MissingPackageError: pooch, which knows the cache, is not installed.
    """
    cache, roots = None, given_roots(data_dir)
    if data_dir is None:
        cache = _cache()
        roots = [*roots, Path("/usr/share/datasets"), *filter(None, [cache])]
    looked = []
    for root in roots:
        for folder in [root, *(root / name for name in source.folders)]:
            for files in source.file_sets:
                with reading(folder):
                    if all((folder / file).is_file() for file in files):
                        return [folder / file for file in files]
            looked.append(_describe(folder, source))
    wanted = " or ".join(", ".join(files) for files in source.file_sets)
    if data_dir is not None:
        raise InputError(
            f"{source.name} is in none of {', '.join(looked)}; put {wanted} into one of these "
            "folders, or leave data_dir (--data-dir) out to have it searched elsewhere or "
            "downloaded"
        )
    home = (cache or Path()) / source.folders[0]
    try:
        if cache is None:
            raise InputError("cannot be downloaded, since there is no home folder for a cache")
        for file, md5 in source.md5.items():
            download.fetch([mirror + file for mirror in source.mirrors], md5, home / file)
    except InputError as error:
        raise InputError(
            f"{source.name} is in none of {', '.join(looked)} and {error}; put {wanted} into one "
            "of these folders, or name the folder that holds them with data_dir or NNLAB_DATA_DIR"
        ) from error
    return [home / file for file in source.md5]


def given_roots(data_dir: str | os.PathLike | None) -> list[Path]:
    """Return the folders that the user named: `data_dir`, or that of the environment variable."""
    named = os.environ.get("NNLAB_DATA_DIR") or None if data_dir is None else data_dir
    return [] if named is None else [user_path(named)]


def takes_no_folder(name: str, where: str, data_dir: str | os.PathLike | None) -> None:
    """Refuse the folder that was given for a data set that is read from elsewhere.

    Raises:
        InputError: `data_dir` is not None; says where the data set `name` is read from.
    """
    if data_dir is not None:
        raise InputError(
            f"{name} is read from {where} and not from {printable(data_dir)}; leave data_dir "
            "(--data-dir) out."
        )


def find_given(
    name: str, places: Sequence[str], data_dir: str | os.PathLike | None, expected: str
) -> Path:
    """Return the first of `places`, files or folders, that a folder named by the user holds.

    Raises:
        InputError: none holds one; lists every place, and says what was expected.
    """
    looked = [root / place for root in given_roots(data_dir) for place in places]
    for path in looked:
        with reading(path):
            if path.exists():
                return path
    where = f"is in none of {', '.join(map(str, looked))}" if looked else "is in no named folder"
    raise InputError(f"{name} {where}; expected {expected} below --data-dir or NNLAB_DATA_DIR.")


def _cache() -> Path | None:
    """Return the folder for downloads, or None without a home folder."""
    with needs("data"):
        import pooch

    try:
        found = Path(pooch.os_cache("nnlab"))
    except RuntimeError:  # of platformdirs; its older versions return "~/.cache/nnlab"
        return None
    return found if found.is_absolute() else None


def _describe(folder: Path, source: Source) -> str:
    """Name the folder, and the files that it lacks if it holds a part of a file set."""
    for files in source.file_sets:
        missing = [file for file in files if not (folder / file).is_file()]
        if len(missing) < len(files):
            return f"{folder} (which lacks {', '.join(missing)})"
    return str(folder)

"""Unpacking of template archives, which come from outside: files and folders only, and nothing outside the target."""

from __future__ import annotations

import errno
import gzip
import io
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

MAX_UNPACKED_SIZE: Final = 64 * 1024**2  # bytes
MAX_ENTRIES: Final = 10_000
MAX_LEVELS: Final = 100
"""Folders in each other."""

_FOLDER_MODE: Final = 0o755
_EXECUTABLE: Final = 0o111
_MAX_SHOWN: Final = 200


# What `tarfile` and zlib let out for archives that are damaged, or made to damage.
_DAMAGED: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_IN_THE_WAY: Final = frozenset(
    {errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.EILSEQ, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
)
"""What the host says to names that no host could unpack; anything else is the host's fault."""


class BadArchiveError(Exception):
    """The archive cannot be unpacked; the text names the entry."""


def unpack(packed: bytes, target: Path) -> None:
    """Unpack a tar, plain or gzip, as the folder `target`, in place of what is there; whole or not at all.

    Raises BadArchiveError for what is damaged, too large or too deep, leaves the target, is neither file nor folder, or
    has a name that no disk could hold beside the others; OSError for what is the host's fault.
    """
    scratch = target.with_name(f".{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:*") as archive:
            _unpack_into(archive, scratch)
    except _DAMAGED as error:
        raise BadArchiveError("the archive cannot be read") from error
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)


def _unpack_into(archive: tarfile.TarFile, folder: Path) -> None:
    size = 0
    for number, entry in enumerate(archive):
        path = folder / _safe_name(entry.name)
        size += entry.size
        if number >= MAX_ENTRIES or size > MAX_UNPACKED_SIZE:
            raise BadArchiveError(f"the archive is too large, at {_shown(entry.name)}")
        try:
            _unpack_entry(archive, entry, path)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise BadArchiveError(f"{_shown(entry.name)} cannot be unpacked: {error.strerror}") from error


def _unpack_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    if entry.isdir():
        path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    elif entry.isfile():
        content = archive.extractfile(entry)
        assert content is not None  # noqa: S101 - it is a file
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        # No symlink can be on the way: this folder is new and none is ever made in it.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), 0o755 if entry.mode & _EXECUTABLE else 0o644)
    else:
        raise BadArchiveError(f"{_shown(entry.name)} is neither a file nor a folder")


def _shown(name: str) -> str:
    """For people and for a build's record, which is UTF-8 and short."""
    return ascii(name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}...")


def _safe_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadArchiveError(f"{_shown(name)} leaves the archive's folder")
    if len(path.parts) > MAX_LEVELS:
        raise BadArchiveError(f"{_shown(name)} lies more than {MAX_LEVELS} levels deep")
    return path

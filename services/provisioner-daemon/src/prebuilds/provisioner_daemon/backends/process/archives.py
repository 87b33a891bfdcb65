"""Unpacking of template archives, which come from outside: files and folders only, and nothing outside the target."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

MAX_UNPACKED_SIZE: Final = 64 * 1024**2  # bytes
MAX_ENTRIES: Final = 10_000

_FOLDER_MODE: Final = 0o755
_EXECUTABLE: Final = 0o111


class BadArchiveError(Exception):
    """The archive cannot be unpacked; the text names the entry."""


def unpack(packed: bytes, target: Path) -> None:
    """Unpack a tar, plain or gzip, as the folder `target`, in place of what is there; whole or not at all.

    Raises BadArchiveError for what is neither file nor folder, leaves the target, or is too large.
    """
    scratch = target.with_name(f".{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:*") as archive:
            _unpack_into(archive, scratch)
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise BadArchiveError("the archive cannot be read") from error
    shutil.rmtree(target, ignore_errors=True)
    scratch.replace(target)


def _unpack_into(archive: tarfile.TarFile, folder: Path) -> None:
    size = 0
    for number, entry in enumerate(archive):
        path = folder / _safe_name(entry.name)
        size += entry.size
        if number >= MAX_ENTRIES or size > MAX_UNPACKED_SIZE:
            raise BadArchiveError(f"the archive is too large, at {entry.name!r}")
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
            raise BadArchiveError(f"{entry.name!r} is neither a file nor a folder")


def _safe_name(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadArchiveError(f"{name!r} leaves the archive's folder")
    return path

"""A template's folder as the archive that PushTemplateVersion takes: the same files make the same bytes."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MANIFEST: Final = "template.yaml"
MAX_ARCHIVE_SIZE: Final = 4 * 1024 * 1024
"""Largest archive, packed, in bytes."""
MAX_UNPACKED_SIZE: Final = 32 * 1024 * 1024
"""Largest sum of the files in it, in bytes."""

_LEFT_OUT: Final = frozenset({".git", ".terraform", "__pycache__", ".DS_Store"})


class ArchiveError(ValueError):
    """The folder cannot be a template; says which file and why."""


def pack_template(folder: Path) -> bytes:
    """Pack a folder as tar.gz; of files their content, path and executable bit count, no times and no owners.

    `.git`, `.terraform`, `__pycache__` and `.DS_Store` are left out. Raises ArchiveError for a folder without
    `template.yaml` at its top, for what is neither file nor folder (links too), and beyond the sizes above.
    """
    if not (folder / MANIFEST).is_file():
        raise ArchiveError(f"{folder} has no {MANIFEST}")
    packed = io.BytesIO()
    unpacked_size = 0
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _paths(folder):
            name = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                archive.addfile(_entry(name, tarfile.DIRTYPE, 0o755))
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
                unpacked_size += len(content)
                if unpacked_size > MAX_UNPACKED_SIZE:
                    raise ArchiveError(f"{folder} has more than {MAX_UNPACKED_SIZE // 1024**2} MiB, at {name}")
                entry = _entry(name, tarfile.REGTYPE, 0o755 if mode & stat.S_IXUSR else 0o644)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                raise ArchiveError(f"{name} is neither a file nor a folder")
    if packed.tell() > MAX_ARCHIVE_SIZE:
        raise ArchiveError(f"{folder} makes an archive of {packed.tell()} bytes; at most {MAX_ARCHIVE_SIZE} are taken")
    return packed.getvalue()


def _paths(folder: Path) -> Iterator[Path]:
    """Everything below, each folder before what is in it, by name."""
    for path in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if path.name in _LEFT_OUT:
            continue
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _paths(path)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.mode = mode
    return entry

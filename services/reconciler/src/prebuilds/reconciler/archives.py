"""Archives of template versions: what may be in one, and the manifest at its top (behaviour section 1).

What people send is read without trusting any size it claims: unpacking stops at the limit, and nothing is written.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from prebuilds.chassis.patterns import matches
from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.manifest_yaml import read_yaml
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.rules.manifest_checks import check_manifest

MAX_PACKED: Final = 4 * 1024**2
MAX_UNPACKED: Final = 32 * 1024**2
MAX_ENTRIES: Final = 10_000
MAX_MANIFEST: Final = 256 * 1024
MAX_PATH: Final = 1024
"""Bytes of an entry's name with its folders."""
MAX_PATH_PART: Final = 255
"""Bytes of a file's or folder's own name, as file systems have it."""
MAX_LEVELS: Final = 100
"""Folders in each other."""
MANIFEST_NAME: Final = "template.yaml"

_GZIP: Final = b"\x1f\x8b"
# Each entry has a header of 512 bytes and is filled up to as much again; long names take a few blocks more.
_MAX_TAR: Final = MAX_UNPACKED + MAX_ENTRIES * 4096
_FIELD: Final = "archive"

# What `tarfile` lets out for archives that are damaged, or made to damage.
_DAMAGED: Final = (
    tarfile.TarError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
_DESCRIBING: Final = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
)
"""Types of headers that describe the one behind them."""
_MAX_DESCRIBING: Final = 8
"""In a row."""
_MAX_DESCRIPTION: Final = 64 * 1024
_LONG_NUMBER: Final = re.compile(rb"[0-9]{64}")


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """An archive that may be stored."""

    content: bytes
    """As it was sent."""
    sha256: str
    manifest: Manifest


def check_archive(content: bytes) -> CheckedArchive:
    """Check all of an archive; takes up to some 100 ms of processor time, so call it in a thread.

    Raises Refusal ARCHIVE_TOO_LARGE, INVALID_ARCHIVE or INVALID_MANIFEST, each with everything that is wrong.
    """
    if len(content) > MAX_PACKED:
        raise _too_large(f"has {len(content):,} bytes, at most {MAX_PACKED:,} are allowed")
    if not content:
        raise _invalid([Violation(_FIELD, "is required")])
    text = _read_manifest(_unpacked(content))
    checked = check_manifest(read_yaml(text, MANIFEST_NAME), matches)
    if isinstance(checked, Manifest):
        return CheckedArchive(content, hashlib.sha256(content).hexdigest(), checked)
    raise Refusal(
        Reason.INVALID_MANIFEST,
        f"{MANIFEST_NAME} has {len(checked)} problem{'s' if len(checked) > 1 else ''}: "
        + "; ".join(f"{wrong.field}: {wrong.description}" for wrong in checked[:5])
        + ("; ..." if len(checked) > 5 else ""),  # noqa: PLR2004 - what fits a line; the details have all
        violations=checked,
    )


def _unpacked(content: bytes) -> bytes:
    if not content.startswith(_GZIP):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(content, _MAX_TAR + 1)
    except zlib.error as error:
        raise _invalid([Violation(_FIELD, "is no intact gzip file")]) from error
    if len(unpacked) > _MAX_TAR:
        raise _too_large(f"unpacks to more than {MAX_UNPACKED:,} bytes")
    if not unpacker.eof:
        raise _invalid([Violation(_FIELD, "is cut off")])
    if unpacker.unused_data.strip(b"\0"):
        raise _invalid([Violation(_FIELD, "has something behind its end")])
    return unpacked


def _read_manifest(unpacked: bytes) -> bytes:
    """Go through all entries and give the manifest's bytes."""
    problems: list[Violation] = []
    manifest: bytes | None = None
    total = 0
    tree, file = _Tree(), io.BytesIO(unpacked)
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=_guarded(file)) as archive:
            for count, entry in enumerate(archive, start=1):
                if count > MAX_ENTRIES:
                    raise _too_large(f"has more than {MAX_ENTRIES:,} entries")
                total += entry.size if entry.isreg() else 0
                problems.extend(_problems_of(entry) or tree.add(entry))
                if entry.isreg() and str(PurePosixPath(entry.name)) == MANIFEST_NAME:
                    manifest = _content(archive, entry)
    except _DAMAGED as error:
        raise _invalid([Violation(_FIELD, "is no intact tar file, plain or packed with gzip")]) from error
    if total > MAX_UNPACKED:
        raise _too_large(f"unpacks to {total:,} bytes, at most {MAX_UNPACKED:,} are allowed")
    if manifest is None:
        problems.append(Violation(_FIELD, f"has no {MANIFEST_NAME} at its top"))
    if problems or manifest is None:
        raise _invalid(problems)
    return manifest


def _guarded(file: io.BytesIO) -> type[tarfile.TarInfo]:
    """Entries of one archive whose headers are looked at before `tarfile` follows them.

    Headers that only describe the next one make it recurse, and it looks for numbers in them by regular expressions
    that are quadratic in a number's length.
    """
    described = 0

    class Guarded(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Guarded:
            nonlocal described
            entry = super().frombuf(buf, encoding, errors)
            described = described + 1 if entry.type in _DESCRIBING else 0
            if entry.size < 0 or described > _MAX_DESCRIBING:
                raise tarfile.ReadError
            if described:
                # The file stands behind the header.
                begin = file.tell()
                if entry.size > _MAX_DESCRIPTION or _LONG_NUMBER.search(file.getbuffer()[begin : begin + entry.size]):
                    raise tarfile.ReadError
            return entry

    return Guarded


class _Tree:
    """The files and folders of an archive, as they would lie on a disk."""

    def __init__(self) -> None:
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = {PurePosixPath()}

    def add(self, entry: tarfile.TarInfo) -> list[Violation]:
        """Add an entry whose name is good by itself; tell why it cannot lie beside those before it."""
        path = PurePosixPath(entry.name)
        problem = None
        if not self._files.isdisjoint(path.parents) or (entry.isdir() and path in self._files):
            problem = "needs a folder where the archive has a file"
        elif entry.isreg() and path in self._folders:
            problem = "is a file where the archive has a folder"
        elif entry.isreg() and path in self._files:
            problem = "is there twice"
        if problem is not None:
            return [Violation(f"{_FIELD}:{_shown(entry.name)}", problem)]
        self._folders.update(path.parents)
        (self._folders if entry.isdir() else self._files).add(path)
        return []


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if entry.size > MAX_MANIFEST:
        raise _too_large(f"{MANIFEST_NAME} has {entry.size:,} bytes, at most {MAX_MANIFEST:,} are allowed")
    file = archive.extractfile(entry)
    return b"" if file is None else file.read(MAX_MANIFEST)


def _problems_of(entry: tarfile.TarInfo) -> list[Violation]:
    where, name = f"{_FIELD}:{_shown(entry.name)}", entry.name
    parts = name.split("/")
    problems: list[str] = []
    if not (entry.isreg() or entry.isdir()) or entry.issparse():
        problems.append("is neither a regular file nor a folder")
    if name.startswith("/") or ".." in parts:
        problems.append("leads out of the archive")
    if not name or "\\" in name or not name.isprintable():
        problems.append("has a name that is not allowed")
    elif len(name.encode()) > MAX_PATH:
        problems.append(f"has a path of more than {MAX_PATH:,} bytes")
    elif any(len(part.encode()) > MAX_PATH_PART for part in parts):
        problems.append(f"has a name of more than {MAX_PATH_PART} bytes")
    elif len(parts) > MAX_LEVELS:
        problems.append(f"lies more than {MAX_LEVELS} levels deep")
    return [Violation(where, problem) for problem in problems]


def _shown(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()[:200]


def _invalid(problems: list[Violation]) -> Refusal:
    shown = tuple(problems[:100])
    return Refusal(Reason.INVALID_ARCHIVE, "the archive is not valid", violations=shown)


def _too_large(description: str) -> Refusal:
    return Refusal(
        Reason.ARCHIVE_TOO_LARGE,
        f"the archive {description}",
        violations=(Violation(_FIELD, description),),
        metadata={"max_packed_bytes": str(MAX_PACKED), "max_unpacked_bytes": str(MAX_UNPACKED)},
    )

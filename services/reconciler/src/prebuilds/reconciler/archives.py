"""Archives of template versions: what may be in one, and the manifest at its top (behaviour section 1).

What people send is read without trusting any size it claims: unpacking stops at the limit, and nothing is written.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from prebuilds.domain.refusals import Reason, Refusal, Violation
from prebuilds.reconciler.manifest_yaml import read_yaml
from prebuilds.reconciler.rules.manifest import Manifest
from prebuilds.reconciler.rules.manifest_checks import check_manifest

MAX_PACKED: Final = 4 * 1024**2
MAX_UNPACKED: Final = 32 * 1024**2
MAX_ENTRIES: Final = 10_000
MAX_MANIFEST: Final = 256 * 1024
MANIFEST_NAME: Final = "template.yaml"

_GZIP: Final = b"\x1f\x8b"
# Each entry has a header of 512 bytes and is filled up to as much again; long names take a few blocks more.
_MAX_TAR: Final = MAX_UNPACKED + MAX_ENTRIES * 4096
_FIELD: Final = "archive"


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
    checked = check_manifest(read_yaml(text, MANIFEST_NAME))
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
    return unpacked


def _read_manifest(unpacked: bytes) -> bytes:
    """Go through all entries and give the manifest's bytes."""
    problems: list[Violation] = []
    manifest: bytes | None = None
    total = 0
    names: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            for count, entry in enumerate(archive, start=1):
                if count > MAX_ENTRIES:
                    raise _too_large(f"has more than {MAX_ENTRIES:,} entries")
                problems.extend(_problems_of(entry))
                total += entry.size if entry.isreg() else 0
                name = str(PurePosixPath(entry.name))
                if entry.isreg() and name in names:
                    problems.append(Violation(f"{_FIELD}:{_shown(name)}", "is there twice"))
                names.add(name)
                if name == MANIFEST_NAME and entry.isreg():
                    manifest = _content(archive, entry)
    except (tarfile.TarError, ValueError, EOFError, OverflowError) as error:
        raise _invalid([Violation(_FIELD, "is no intact tar file, plain or packed with gzip")]) from error
    if total > MAX_UNPACKED:
        raise _too_large(f"unpacks to {total:,} bytes, at most {MAX_UNPACKED:,} are allowed")
    if manifest is None:
        problems.append(Violation(_FIELD, f"has no {MANIFEST_NAME} at its top"))
    if problems or manifest is None:
        raise _invalid(problems)
    return manifest


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    if entry.size > MAX_MANIFEST:
        raise _too_large(f"{MANIFEST_NAME} has {entry.size:,} bytes, at most {MAX_MANIFEST:,} are allowed")
    file = archive.extractfile(entry)
    return b"" if file is None else file.read(MAX_MANIFEST)


def _problems_of(entry: tarfile.TarInfo) -> Iterator[Violation]:
    where = f"{_FIELD}:{_shown(entry.name)}"
    if not (entry.isreg() or entry.isdir()) or entry.issparse():
        yield Violation(where, "is neither a regular file nor a folder")
    parts = entry.name.split("/")
    if entry.name.startswith("/") or ".." in parts:
        yield Violation(where, "leads out of the archive")
    if not entry.name or "\\" in entry.name or not entry.name.isprintable():
        yield Violation(where, "has a name that is not allowed")


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

"""Unpacking: what is the archive's fault is told with the entry's name."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from prebuilds.provisioner_daemon.backends.process.archives import BadArchiveError, unpack


def pack(*names: str) -> bytes:
    """Empty entries of these names; one that ends in a slash is a folder."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(entry)
    return packed.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a/b"],
        ["a/b", "a"],
        ["a", "a/"],
        ["a/", "a"],
        ["x" * 300],
        ["/".join(["x" * 100] * 60)],
        ["x/" * 101 + "x"],
        ["../x"],
    ],
    ids=lambda names: "+".join(names)[:20],
)
def test_what_no_disk_could_hold_is_the_archives_fault(tmp_path: Path, names: Sequence[str]) -> None:
    with pytest.raises(BadArchiveError) as bad:
        unpack(pack(*names), tmp_path / "files")

    assert repr(names[-1].rstrip("/")[:200])[:-1] in str(bad.value)
    assert str(tmp_path) not in str(bad.value)
    assert not (tmp_path / "files").exists()


def test_a_chain_of_headers_and_a_cut_are_the_archives_fault(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 5
    chain = (entry.tobuf(tarfile.GNU_FORMAT) + b"name\0".ljust(512, b"\0")) * 5000
    for content in (chain + pack("a"), gzip.compress(pack(*map(str, range(100))))[:100]):
        with pytest.raises(BadArchiveError):
            unpack(content, tmp_path / "files")


def test_a_full_disk_is_not_the_archives_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)

    with pytest.raises(OSError, match="No space left"):
        unpack(pack("a"), tmp_path / "files")

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from prebuilds.sdk import archives
from prebuilds.sdk.archives import ArchiveError, pack_template


def write(folder: Path, *names: str) -> Path:
    for name in ("template.yaml", *names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "startup.sh", "files/b", "files/a")
    other = write(tmp_path / "other", "files/a", "files/b", "startup.sh")
    for name in ("one/startup.sh", "other/startup.sh"):
        (tmp_path / name).chmod(0o755)
    os.utime(other / "startup.sh", (0, 0))
    (other / "files/a").chmod(0o600)
    assert pack_template(one) == pack_template(other)


def test_an_archive_holds_paths_contents_and_the_executable_bit(tmp_path: Path) -> None:
    folder = write(tmp_path, "startup.sh", "files/a")
    (folder / "startup.sh").chmod(0o700)
    with tarfile.open(fileobj=io.BytesIO(pack_template(folder))) as archive:
        entries = {entry.name: (entry.mode, entry.mtime, entry.uid) for entry in archive}
        assert archive.extractfile("files/a").read() == b"files/a"  # pyright: ignore[reportOptionalMemberAccess]
    assert entries == {
        "files": (0o755, 0, 0),
        "files/a": (0o644, 0, 0),
        "startup.sh": (0o755, 0, 0),
        "template.yaml": (0o644, 0, 0),
    }


def test_what_belongs_to_tools_stays_at_home(tmp_path: Path) -> None:
    folder = write(tmp_path, ".git/config", "module/.terraform/state", "module/__pycache__/x.pyc")
    with tarfile.open(fileobj=io.BytesIO(pack_template(folder))) as archive:
        assert archive.getnames() == ["module", "template.yaml"]


def test_a_folder_without_a_manifest_is_no_template(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"no template\.yaml"):
        pack_template(tmp_path)


def test_a_link_is_named_and_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "secrets").symlink_to("/etc")
    with pytest.raises(ArchiveError, match="secrets is neither"):
        pack_template(tmp_path)


def test_an_archive_above_four_mebibytes_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "noise").write_bytes(os.urandom(archives.MAX_ARCHIVE_SIZE))
    with pytest.raises(ArchiveError, match="at most 4194304"):
        pack_template(tmp_path)


def test_files_of_more_than_thirty_two_mebibytes_are_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "zeros").write_bytes(bytes(archives.MAX_UNPACKED_SIZE))
    with pytest.raises(ArchiveError, match="more than 32 MiB"):
        pack_template(tmp_path)

"""Archives that strangers make: what could not be unpacked is refused with its name, and nothing fails otherwise."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilds.domain.refusals import Reason, Refusal
from prebuilds.reconciler.archives import check_archive
from tests.support.reconciling import make_archive, make_manifest, pack

BLOCK = 512


def refusal_of(archive: bytes) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check_archive(archive)
    return refused.value


def problems(archive: bytes) -> dict[str, str]:
    refusal = refusal_of(archive)
    assert refusal.reason is Reason.INVALID_ARCHIVE
    return {wrong.field: wrong.description for wrong in refusal.violations}


def tree(*names: str) -> bytes:
    """An archive of empty entries and a good manifest; a name that ends in a slash is a folder's."""
    packed, manifest = io.BytesIO(), yaml.safe_dump(make_manifest()).encode()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(entry)
        entry = tarfile.TarInfo("template.yaml")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    return packed.getvalue()


def header(kind: bytes, size: int, name: bytes = b"x") -> bytes:
    entry = tarfile.TarInfo(name.decode())
    entry.type, entry.size = kind, size
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "names, wrong, words",
    [
        (["a", "a/b"], "a/b", "needs a folder"),
        (["a/b", "a"], "a", "is a file where"),
        (["a", "a/"], "a", "needs a folder"),
        (["a/", "a"], "a", "is a file where"),
        (["a", "./a"], "./a", "twice"),
        (["."], ".", "is a file where"),
        (["x" * 300], "x" * 200, "more than 255 bytes"),
        (["ü" * 128], "\\xfc" * 50, "more than 255 bytes"),
        (["/".join(["x" * 100] * 11)], "/".join(["x" * 100] * 2)[:200], "more than 1,024 bytes"),
        (["x/" * 100 + "x"], "x/" * 100, "more than 100 levels"),
    ],
    ids=lambda value: None if isinstance(value, str) else "+".join(value)[:20],
)
def test_what_no_disk_could_hold_is_refused_with_its_name(names: Sequence[str], wrong: str, words: str) -> None:
    assert words in problems(tree(*names))[f"archive:{wrong}"]


def test_folders_may_be_there_twice_and_after_what_is_in_them() -> None:
    check_archive(tree("./", "a/b", "a/", "./a/", "a/c/d", "x" * 255, "y/" * 99 + "y"))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_chain_of_headers_is_refused(kind: bytes) -> None:
    content = b"9 path=a\n" if kind in {tarfile.XHDTYPE, tarfile.XGLTYPE} else b"name\0"
    chain = (header(kind, len(content)) + content.ljust(BLOCK, b"\0")) * 5000

    assert "no intact tar" in problems(gzip.compress(chain + tree()))["archive"]


@pytest.mark.timeout(20)
def test_a_header_full_of_digits_is_refused_at_once() -> None:
    digits = b"1" * 10 * 1024**2
    assert problems(gzip.compress(header(tarfile.XHDTYPE, len(digits)) + digits + tree()))
    many = (header(tarfile.XHDTYPE, 32768) + b"1" * 32768 + header(tarfile.REGTYPE, 0)) * 500
    assert problems(gzip.compress(many + tree()))


@pytest.mark.timeout(20)
def test_a_size_below_nothing_is_refused_at_once() -> None:
    negative = bytearray(header(tarfile.REGTYPE, 0))
    negative[124:136] = b"\xff" * 10 + b"\xfe\x00"
    negative[148:156] = b" " * 8
    negative[148:156] = f"{sum(negative):06o}\0 ".encode()

    assert problems(bytes(negative) + tree())


def test_what_is_behind_the_end_is_refused() -> None:
    archive = make_archive(make_manifest())
    check_archive(archive + bytes(BLOCK))
    assert problems(archive + archive)


@pytest.mark.parametrize("kind", [*map(bytes, zip(b"01234567LKSNDxgXV\0Z", strict=True))], ids=repr)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1, 8**12])
def test_no_kind_of_entry_fails_otherwise(kind: bytes, size: int) -> None:
    for content in (b"", b"\xff" * BLOCK, b"19 GNU.sparse.x=1\n\n0 =", b"9 size=-1\n", b"22 GNU.sparse.major=1\n"):
        with suppress(Refusal):
            check_archive(header(kind, size) + content.ljust(BLOCK, b"\0") + header(b"0", 0))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_no_damage_fails_but_by_the_refusal(damages: list[tuple[int, bytes]]) -> None:
    archive = bytearray(gzip.decompress(pack({"x" * 150: b"1", "template.yaml": b"name: x"})))
    for place, damage in damages:
        archive[place : place + len(damage)] = damage
    with suppress(Refusal):
        check_archive(bytes(archive))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_no_bytes_fail_but_by_the_refusal(content: bytes, packed: bool) -> None:
    with suppress(Refusal):
        check_archive(gzip.compress(content) if packed else content)

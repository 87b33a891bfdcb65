"""Generate prebuilds.v1 (messages, stubs, types) from protos/, or with --check say whether it is fresh.

The path of a proto is its Python package (protos/prebuilds/v1 -> prebuilds.v1), so the generated imports are right as
they are. The folder holds what protos make and nothing else: what no proto makes any more is removed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("prebuilds", "v1")
GENERATED = ROOT / "libs" / "api" / "src" / PACKAGE
DOCSTRING = '"""Generated from protos/prebuilds/v1: messages and typed stubs."""\n'


def sources() -> list[str]:
    return sorted(str(proto.relative_to(PROTOS)) for proto in (PROTOS / PACKAGE).glob("*.proto"))


def generate(into: Path) -> None:
    package = into / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(DOCSTRING)
    (package / "py.typed").touch()
    protos = sources()
    if not protos:
        return
    plugins = Path(sys.executable).parent
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}",
        f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
        f"--python_out={into}",
        f"--grpc_python_out={into}",
        f"--mypy_out=quiet,readable_stubs:{into}",
        f"--mypy_grpc_out=quiet,only_async:{into}",  # not async_only, which is ignored without a word
    ]  # fmt: skip
    subprocess.run([*command, *protos], cwd=ROOT, check=True)
    # A proto without a service gets stubs too, with nothing in them.
    for types in package.glob("*_pb2_grpc.pyi"):
        if "\nclass " not in types.read_text():
            types.unlink()
            types.with_suffix(".py").unlink()


def contents(package: Path) -> dict[str, bytes]:
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(package)): path.read_bytes() for path in found}


def write(fresh: dict[str, bytes]) -> None:
    """Only what differs, each file at once: a test or a checker may be reading them."""
    old = contents(GENERATED)
    for name in old.keys() - fresh.keys():
        (GENERATED / name).unlink()
    for name, content in fresh.items():
        if old.get(name) != content:
            target = GENERATED / name
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name}.{os.getpid()}")
            draft.write_bytes(content)
            draft.replace(target)
    shutil.rmtree(GENERATED / "__pycache__", ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when something would change")
    check: bool = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory() as folder:
        try:
            generate(Path(folder))
        except subprocess.CalledProcessError as failure:
            return failure.returncode
        fresh = contents(Path(folder) / PACKAGE)
    old = contents(GENERATED)
    stale = sorted(name for name in old.keys() | fresh.keys() if old.get(name) != fresh.get(name))
    if check:
        for name in stale:
            print(f"stale: {(GENERATED / name).relative_to(ROOT)} (make proto)")
        return 1 if stale else 0
    write(fresh)
    print(f"{len(sources())} protos, {len(fresh)} files, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

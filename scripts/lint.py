"""Every check of the sources, one after the other; all run, and any that fails fails the whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import proto
from step import BIN, ROOT, environment, run, timed

TYPED = ("libs", "services", "deploy", "tests", "scripts")


def typed_sources() -> int:
    return sum(
        1
        for folder in TYPED
        for source in (ROOT / folder).rglob("*.py")
        if not source.is_relative_to(proto.GENERATED) and "node_modules" not in source.parts
    )


def types() -> int:
    """basedpyright, and a count: a checker that was led to too few files also says success."""
    before = typed_sources()
    result = subprocess.run(
        [str(BIN / "basedpyright"), "--outputjson"],
        cwd=ROOT,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        print(result.stdout, result.stderr, sep="\n")
        return result.returncode or 1
    for found in report["generalDiagnostics"]:
        place = f"{found['file'].removeprefix(f'{ROOT}/')}:{found['range']['start']['line'] + 1}"
        print(f"{place}: {found['severity']}: {found['message']} [{found.get('rule', '')}]")
    checked: int = report["summary"]["filesAnalyzed"]
    print(f"{checked} files checked")
    # Files may come and go while it runs; it must have seen what was there all the time.
    if checked < min(before, typed_sources()):
        print(f"basedpyright looked at {checked} of {before} files")
        return 1
    return result.returncode


def protos() -> int:
    if not proto.sources():
        print("no protos yet")
        return 0
    return run("buf", "lint") or run("buf", "format", "--diff", "--exit-code")


def main() -> int:
    began = time.monotonic()
    checks = {
        "ruff check": lambda: run("ruff", "check", "--quiet"),
        "ruff format": lambda: run("ruff", "format", "--check", "--quiet"),
        "types": types,
        "imports": lambda: run("lint-imports", "--no-cache", "--no-logo"),
        "protos": protos,
        "generated code": lambda: proto.main(["--check"]),
        "uv.lock": lambda: run(str(ROOT / ".uv" / "bin" / "uv"), "lock", "--check", "--quiet"),
    }
    failed = [name for name, check in checks.items() if timed(name, check)]
    print(f"lint: {', '.join(failed) + ' failed' if failed else 'ok'}, {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

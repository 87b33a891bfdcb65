"""Play a day of a template admin against a real stack, typed at the command line, and write it down as it was.

A schedule edge, a new version and its rollback, an invalidation, a pause, a broken template at its hard limit and its
retry. The edge is a real one: a full hour of whichever of three zones has one next, for which the script waits.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from step import BIN, ROOT

TARGET = ROOT / "docs/transcripts/pools.md"
ZONES = ("Europe/Berlin", "Asia/Kathmandu", "Asia/Kolkata")  # their hours begin at :00, :15 and :30 of an hour of UTC
SETTINGS = {"PREBUILDS_RECONCILIATION_INTERVAL": "10s", "PREBUILDS_BACKOFF_INTERVAL": "5s"}
SET_UP_WITHIN = timedelta(minutes=1)
PATIENCE = 120.0  # seconds
MIRROR = Path("/tmp/mirror.up")  # noqa: S108 - of everybody's machine
IS_UP = "A token for other clients"

MANIFEST = """\
name: team
description: The team's services, with everything built.
backend: process
presets:
  - name: dev
    default: true
    prebuilds:
      instances: 1
      scheduling:
        timezone: {zone}
        schedule:
          - {{cron: "* {hour} * * *", instances: 3}}
process:
  startup: ./startup.sh
"""
STARTUP = "#!/bin/sh\necho 'building version {version}' > built.txt\n"
BROKEN = """\
#!/bin/sh
echo "fetching packages"
test -e /tmp/mirror.up || { echo "mirror.example.com: no route to host" >&2; exit 7; }
"""


class Transcript:
    """What was typed and what came of it, as Markdown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREBUILDS_")}
        self.environment = {
            **inherited,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PREBUILDS_CLIENT_FILE": str(folder / "state/client.toml"),
        }

    def say(self, text: str) -> None:
        """Write a paragraph."""
        self._close()
        self.lines += ["", *textwrap.wrap(text, 120, break_on_hyphens=False)]

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def show(self, name: str, text: str) -> None:
        """Write a file, and show it."""
        self.write(name, text)
        self.type(f"cat {name}")

    def type(self, command: str, *, code: int = 0) -> str:
        """Run a command that ends with this code."""
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        self._show(command, done.stdout)
        if done.returncode != code:
            raise SystemExit(f"{command!r} ended with {done.returncode}, expected was {code}")
        return done.stdout

    def watch(self, command: str, until: Callable[[str], bool], *, meanwhile: str = "") -> None:
        """Run a command that goes on until its output is so, then end it with Ctrl-C.

        What is done meanwhile begins when the watch has said something.
        """
        written = self.folder / "watched.txt"
        with written.open("w") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.environment,
            )
            if meanwhile:
                wait_for(lambda: bool(written.read_text()), PATIENCE, f"the first of {command!r}")
                self.type(meanwhile)
                self.say("Meanwhile, in another terminal:")
            wait_for(
                lambda: until(written.read_text()) or process.poll() is not None, PATIENCE, f"the end of {command!r}"
            )
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait()
        self._show(command, written.read_text() + "^C")

    def text(self) -> str:
        """All of it."""
        self._close()
        return "\n".join(self.lines).strip() + "\n"

    def _show(self, command: str, output: str) -> None:
        progress(f"$ {command}")
        if not self.lines or self.lines[-1] == "```" or not self._is_open():
            self.lines += ["", "```console"]
        self.lines += [f"$ {command}", *(line.rstrip() for line in output.splitlines())]

    def _is_open(self) -> bool:
        return sum(line.startswith("```") for line in self.lines) % 2 == 1

    def _close(self) -> None:
        if self._is_open():
            self.lines.append("```")


def play_an_edge(at: Transcript) -> None:
    edge, zone = next_edge(datetime.now(UTC) + SET_UP_WITHIN)
    hour = edge.astimezone(zone).hour
    at.say("## A schedule edge")
    at.say(f"A pool of one, and of three from {hour:02}:00 to {hour:02}:59 in {zone.key}, which is about to begin.")
    at.show("team/template.yaml", MANIFEST.format(zone=zone.key, hour=hour))
    at.write("team/startup.sh", STARTUP.format(version=1))
    at.type("prebuilds templates push team")
    at.type("prebuilds pools watch team/dev --until-full")
    at.type("prebuilds pools show team/dev")
    at.say("What will be done then?")
    at.type(f"prebuilds pools plan team/dev --at {hour:02}:00")
    at.say(
        "The moment comes. Nobody does anything; the reconciler looks every 10 seconds here, by default every minute."
    )
    while (left := (edge - datetime.now(UTC)).total_seconds()) > 10:  # noqa: PLR2004 - seconds
        progress(f"{left:.0f} s until {hour:02}:00 in {zone.key}", stays=False)
        time.sleep(min(1.0, left - 10))
    at.watch("prebuilds pools watch team/dev", lambda seen: "target 3  eligible 3" in seen)
    at.type("prebuilds pools show team/dev")


def play_a_version(at: Transcript) -> None:
    at.say("## A new version")
    at.say(
        "Its pool fills while that of the old one drains. From the promotion on nobody gets a prebuild of the old one."
    )
    at.write("team/startup.sh", STARTUP.format(version=2))
    at.watch(
        "prebuilds pools watch team", lambda seen: has_drained("v1", seen), meanwhile="prebuilds templates push team"
    )
    at.type("prebuilds templates show team")


def play_an_invalidation(at: Transcript) -> None:
    at.say("## An invalidation")
    at.say("The base image is new: what is ready now is stale. How many are that?")
    at.type("prebuilds pools invalidate team --dry-run")
    at.watch(
        "prebuilds pools watch team/dev",
        lambda seen: "eligible 3" in seen.partition("eligible 0")[2],
        meanwhile="prebuilds pools invalidate team dev --yes",
    )
    at.type("prebuilds pools show team/dev")


def play_a_pause(at: Transcript) -> None:
    at.say("## A pause")
    at.type("prebuilds pools pause team -m 'the cluster is being upgraded'")
    at.type("prebuilds pools invalidate team --yes")
    at.type("prebuilds pools show team/dev")
    at.type("prebuilds pools resume team")
    at.type("prebuilds pools watch team/dev --until-full")


def play_a_broken_template(at: Transcript) -> None:
    at.say("## A broken template")
    at.say("Its third version cannot start: a mirror is down. Three prebuilds are made, fail, and no more are made.")
    at.show("team/startup.sh", BROKEN)
    at.type("prebuilds templates push team")
    at.type("prebuilds pools watch team/dev --until-full", code=1)
    at.type("prebuilds pools show team/dev")
    at.say("People need workspaces meanwhile: back to the version before.")
    at.type("prebuilds templates promote team --previous")
    at.type("prebuilds pools watch team/dev --until-full")
    at.type("prebuilds pools list")
    at.say(
        "The mirror is up again. The third version is promoted once more, and is hard limited still: nobody told it. A"
        " retry lets one prebuild be tried; it succeeds, and after the backoff the pool fills."
    )
    at.type(f"touch {MIRROR}")
    at.type("prebuilds templates promote team v3")
    at.watch(
        "prebuilds pools watch team/dev",
        lambda seen: "target 3  eligible 3" in seen,
        meanwhile="prebuilds pools retry team/dev",
    )
    at.type("prebuilds pools show team/dev")


def play_the_end(at: Transcript) -> None:
    at.say("## The end of a template")
    at.type("prebuilds templates deprecate team 'use python-dev'")
    at.type("prebuilds pools show team/dev")
    at.type("prebuilds templates delete team --yes")
    at.type("prebuilds templates list --deleted")


SCENES = (play_an_edge, play_a_version, play_an_invalidation, play_a_pause, play_a_broken_template, play_the_end)


def next_edge(after: datetime) -> tuple[datetime, ZoneInfo]:
    """The first full hour of one of the zones."""
    moment = after.replace(second=0, microsecond=0)
    while True:
        moment += timedelta(minutes=1)
        for zone in map(ZoneInfo, ZONES):
            if moment.astimezone(zone).minute == 0:
                return moment, zone


def has_drained(version: str, seen: str) -> bool:
    """Whether the version's pool is gone."""
    return re.search(rf" {version}  gone$", seen, re.MULTILINE) is not None


def wait_for(is_so: Callable[[], bool], patience: float, what: str) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(0.1)


def progress(text: str, *, stays: bool = True) -> None:
    """Tell who runs this how far it is."""
    if stays or sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}" + ("\n" if stays else "") if sys.stderr.isatty() else f"{text}\n")


def main(arguments: Sequence[str]) -> int:
    """Write the transcript, or to the file named."""
    # Who starts this in the background has Ctrl-C ignored, which watches would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if MIRROR.exists():
        raise SystemExit(f"{MIRROR} is there already, and would not be yours after this")
    target = Path(arguments[0]).resolve() if arguments else TARGET
    folder = Path(tempfile.mkdtemp(prefix="prebuilds-transcript-", dir="/tmp"))
    folder.chmod(0o755)  # Postgres' user gets in
    transcript = Transcript(folder)
    screen = folder / "screen.txt"
    with screen.open("w") as output:
        stack = subprocess.Popen(
            [BIN / "prebuilds-embedded", "run", "--state", folder / "state"],
            cwd=ROOT,
            env={**transcript.environment, **SETTINGS},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        progress("the stack comes up")
        wait_for(lambda: IS_UP in screen.read_text() or stack.poll() is not None, PATIENCE, "the stack")
        began = time.monotonic()
        for scene in SCENES:
            scene(transcript)
        minutes = (time.monotonic() - began) / 60
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait()
        MIRROR.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    settings = " ".join(f"{name}={value}" for name, value in SETTINGS.items())
    head = (
        f"One run of the stack of `make run`, with `{settings}`, played by `make transcript` in {minutes:.0f} minutes"
        f" on {datetime.now(UTC):%Y-%m-%d}; nothing is edited. `^C` is Ctrl-C, which ends a watch. How it all works is"
        " in [pools.md](../pools.md)."
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(["# Pools, played through", "", *textwrap.wrap(head, 120), "", transcript.text()]))
    progress(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

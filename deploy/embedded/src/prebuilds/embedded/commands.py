"""The commands of the laptop stack: `run` stays until Ctrl-C, `smoke` goes through it all once and leaves nothing."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from prebuilds.embedded.nats import NatsError
from prebuilds.embedded.postgres import PostgresError
from prebuilds.embedded.programs import ProgramError
from prebuilds.embedded.stack import Stack, open_stack
from prebuilds.embedded.state import StateError, StateFolder, default_state_folder
from prebuilds.embedded.steps import Steps
from prebuilds.embedded.tour import ADMIN, DEVELOPER, TourError, take_tour
from prebuilds.sdk.errors import PrebuildsError

_INTERRUPTED: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_TEMPLATE: Final = Path("examples/templates/python-dev")
_EXPECTED: Final = (TourError, ProgramError, StateError, PostgresError, NatsError, PrebuildsError, TimeoutError)


def run_command(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the exit code is 0, or 1 with the reason on stderr."""
    options = _parser().parse_args(argv)
    work = _run(options.state, options.template) if options.command == "run" else _smoke(options.template)
    try:
        asyncio.run(work)
    except _EXPECTED as error:
        sys.stderr.write(f"error: {str(error) or type(error).__name__}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


async def _run(state_path: Path | None, template: Path) -> None:
    """Bring it up, take the tour, stay until Ctrl-C; a second Ctrl-C ends it on the spot."""
    console = Console(highlight=False, soft_wrap=True)
    state = StateFolder((state_path or default_state_folder(Path.cwd())).resolve())
    console.print(f"state in {state.path}")
    stop = _stop_on_signal()
    staying = asyncio.create_task(_stay(console, state, template))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({staying, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if staying.done():
        staying.result()
    console.print("stopping")
    staying.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await staying
    console.print("stopped; `make run` finds everything again")


async def _stay(console: Console, state: StateFolder, template: Path) -> None:
    steps = Steps(console)
    async with open_stack(state, steps) as stack:
        await take_tour(stack, steps, template)
        _tell(console, stack, steps)
        await asyncio.Event().wait()


async def _smoke(template: Path) -> None:
    """The same in a folder of its own, then away with it."""
    console = Console(highlight=False, soft_wrap=True)
    folder = _scratch_folder()
    steps = Steps(console)
    try:
        async with open_stack(StateFolder(folder), steps) as stack:
            seconds = await take_tour(stack, steps, template)
            console.print(f"start to first claimed workspace: {seconds or 0:.1f} s")
    except _EXPECTED:
        _show_logs(folder)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(console: Console, stack: Stack, steps: Steps) -> None:
    console.print(f"\nup in {steps.total():.1f} s; Ctrl-C ends it\n")
    for name, address in stack.grpc.items():
        console.print(f"  {name:<16} {address:<24} metrics http://{stack.metrics[name]}/metrics")
    here = stack.state.path == (Path.cwd() / ".prebuilds").resolve()
    token_file = stack.keys.token_file(DEVELOPER)
    shown_token_file = token_file.relative_to(Path.cwd()) if here else token_file
    console.print("\nIn another terminal:\n")
    if not here:
        console.print(f"  export PREBUILDS_CLIENT_FILE={shlex.quote(str(stack.state.client_file))}")
    console.print("  .venv/bin/prebuilds pools list --watch")
    console.print("  .venv/bin/prebuilds workspaces list")
    console.print(f"\nas {DEVELOPER}, and no longer as {ADMIN}:\n")
    console.print(f"  export PREBUILDS_TOKEN_FILE={shlex.quote(str(shown_token_file))}")
    console.print("  .venv/bin/prebuilds workspaces create python-dev --watch")
    console.print(f"\nA token for other clients, {DEVELOPER}'s:\n\n  {token_file.read_text()}\n")


def _scratch_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="prebuilds-smoke-"))
    # As root, Postgres runs as somebody else, who must get in; what is secret in it is closed by its own mode.
    folder.chmod(0o755)
    return folder


def _show_logs(folder: Path) -> None:
    for log in sorted((folder / "logs").glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-20:]
        sys.stderr.write(f"--- {log.name}\n" + "".join(f"{line}\n" for line in lines))


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_once() -> None:
        stop.set()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for each in _SIGNALS:
        loop.add_signal_handler(each, stop_once)
    return stop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prebuilds-embedded", description="The whole system on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring the whole system up, claim a first workspace, stay until Ctrl-C")
    run.add_argument("--state", type=Path, default=None, help="folder for data, keys and logs; default: .prebuilds")
    smoke = commands.add_parser("smoke", help="the same in a folder of its own, then end everything")
    for command in (run, smoke):
        command.add_argument("--template", type=Path, default=_TEMPLATE, help=f"default: {_TEMPLATE}")
    return parser

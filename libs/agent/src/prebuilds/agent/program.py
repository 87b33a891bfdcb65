"""The agent program: settings to a running agent, from its first instruction to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from prebuilds.agent.logs import configure_logs
from prebuilds.agent.settings import ENV_PREFIX, AgentSettings
from prebuilds.agent.startup import StartupWork
from prebuilds.agent.status_file import StatusFile
from prebuilds.sdk.agent import open_agent_client, run_agent
from prebuilds.sdk.channels import Target, Tls

EXIT_BAD_SETTINGS: Final = 2

_log = structlog.get_logger(__name__)


def run_program(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; a second one ends the process on the spot. The exit code."""
    try:
        settings = AgentSettings(_cli_parse_args=list(argv))  # pyright: ignore[reportCallIssue] - the rest comes from there
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(problem["loc"][0])
            text = problem["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"prebuilds-agent: --{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()}): {text}\n")
        return EXIT_BAD_SETTINGS
    except SettingsError as error:
        sys.stderr.write(f"prebuilds-agent: {error}\n")
        return EXIT_BAD_SETTINGS
    configure_logs(settings.log_level, settings.log_format)
    asyncio.run(_run(settings))
    return 0


async def _run(settings: AgentSettings) -> None:
    stopping = asyncio.Event()
    _listen_to_signals(stopping)
    settings.agent_folder.mkdir(parents=True, exist_ok=True)
    work = StartupWork(
        folder=settings.agent_folder,
        workspace_folder=Path.cwd(),
        environment=os.environ,
        stop_grace=settings.agent_stop_grace,
    )
    # What an agent before this one left running when it was killed may be another owner's.
    await work.stop()
    tls = Tls(ca_file=settings.gateway_ca_file) if Target.of(settings.gateway_url).is_secure else None
    _log.info("agent started", gateway=settings.gateway_url, folder=str(settings.agent_folder), pid=os.getpid())
    token_file = settings.agent_token_file
    async with open_agent_client(
        settings.gateway_url, token=lambda: token_file.read_text(encoding="utf-8").strip(), tls=tls
    ) as gateway:
        await run_agent(gateway, work, stopping=stopping, on_change=StatusFile(settings.agent_folder).follow)
    _log.info("agent stopped")


def _listen_to_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def asked_to_stop(number: signal.Signals) -> None:
        if stopping.is_set():
            # Not sys.exit: the point of a second signal is to wait for nothing.
            os._exit(128 + number)
        _log.info("asked to stop", signal=number.name)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, number)

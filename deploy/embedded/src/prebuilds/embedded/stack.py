"""The whole system on one machine: Postgres, NATS, the four services and a provisioner daemon, up and down in order.

Each part finds its data, its keys and its port again at the next start. Postgres and NATS come first and go last; the
services start together (each brings the schema up to date under a lock); the daemon needs a key, which only the running
reconciler can make, and is therefore started by `start_daemon`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from prebuilds.embedded.keys import Keys, write_secret
from prebuilds.embedded.nats import EmbeddedNats, NatsError
from prebuilds.embedded.postgres import EmbeddedPostgres, PostgresError
from prebuilds.embedded.programs import Program, Supervisor
from prebuilds.embedded.state import StateFolder
from prebuilds.embedded.steps import Steps

DATABASE: Final = "prebuilds"
HOST_TAG: Final = "local"
SERVICES: Final = ("reconciler", "claims", "agent-gateway", "provisioner")
DAEMON: Final = "provisioner-daemon"

_SUSPENDED_WITHIN: Final = timedelta(minutes=1)
_LOOK_EVERY: Final = 1.0  # seconds
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_RECONCILIATION: Final = (
    "PREBUILDS_RECONCILIATION_INTERVAL",
    "PREBUILDS_BACKOFF_INTERVAL",
    "PREBUILDS_BACKOFF_LOOKBACK",
    "PREBUILDS_HARD_LIMIT",
    "PREBUILDS_FAILED_RETENTION",
)
"""What who starts the stack may set about its pools."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The running system."""

    state: StateFolder
    keys: Keys
    grpc: Mapping[str, str]
    """Address of each service."""
    metrics: Mapping[str, str]
    """Address of each service's Prometheus endpoint."""
    supervisors: dict[str, Supervisor]
    """What keeps each program running, by its name."""
    postgres: EmbeddedPostgres
    nats: EmbeddedNats
    _opened: AsyncExitStack
    _tell: Callable[[str], None]

    async def start_daemon(self) -> None:
        """Start the provisioner daemon, whose key is there by now."""
        environment = {
            "PREBUILDS_PROVISIONER_ADDRESS": self.grpc["provisioner"],
            "PREBUILDS_PROVISIONER_KEY_FILE": str(self.keys.daemon_key_file),
            "PREBUILDS_STATE_ROOT": str(self.state.workspaces),
            "PREBUILDS_HOST_ID": HOST_TAG,
            "PREBUILDS_SUSPEND_AT_EXIT": "true",
            "PREBUILDS_DRAIN_GRACE": "5s",
            "PREBUILDS_AGENT_STOP_GRACE": "3s",
        }
        program = _program(self.state, DAEMON, environment, stop_within=_SUSPENDED_WITHIN)
        supervisor = self.supervisors[DAEMON] = Supervisor(program, self._tell)
        self._opened.push_async_callback(supervisor.stop)
        await supervisor.start()


@asynccontextmanager
async def open_stack(state: StateFolder, steps: Steps) -> AsyncGenerator[Stack]:
    """Bring everything up but the daemon, and down again at the end of the block, in the opposite order.

    What falls in between is started again, and people are told.
    """

    def tell(text: str) -> None:
        steps.console.print(f"[yellow]![/] {text}")

    async with AsyncExitStack() as opened:
        with steps.step("Postgres and NATS"):
            state.prepare()
            opened.enter_context(state.held())
            keys = Keys.prepare(state.keys)
            postgres = EmbeddedPostgres(
                state.postgres_data,
                state.postgres_socket,
                state.logs / "postgres.log",
                settings={"max_connections": "200", "shared_buffers": "64MB"},
            )
            nats = EmbeddedNats(state.nats_data, state.logs / "nats.log")
            opened.push_async_callback(asyncio.to_thread, postgres.stop)
            opened.push_async_callback(asyncio.to_thread, nats.stop)
            # Started by this thread: the kernel ends a child of a thread when the thread ends.
            nats.start()
            postgres.start()
            postgres.create_database(DATABASE)
            keeping = asyncio.create_task(_keep_running({"postgres": postgres, "nats": nats}, tell))
            opened.push_async_callback(_cancelled, keeping)
        with steps.step("the four services") as step:
            write_secret(state.keys / "nats.url", nats.url)
            ports = state.ports([*SERVICES, *(f"{name} metrics" for name in SERVICES)])
            supervisors = {
                name: Supervisor(_program(state, name, _service_environment(name, state, keys, postgres, ports)), tell)
                for name in SERVICES
            }
            opened.push_async_callback(_stop_all, list(supervisors.values()))
            addresses = await asyncio.gather(*(supervisor.start() for supervisor in supervisors.values()))
            known = dict(zip(SERVICES, addresses, strict=True))
            step.result = ", ".join(known)
        yield Stack(
            state=state,
            keys=keys,
            grpc={name: address["grpc"] for name, address in known.items()},
            metrics={name: address["metrics"] for name, address in known.items()},
            supervisors=supervisors,
            postgres=postgres,
            nats=nats,
            _opened=opened,
            _tell=tell,
        )


async def _keep_running(servers: Mapping[str, EmbeddedPostgres | EmbeddedNats], tell: Callable[[str], None]) -> None:
    """Start a server again that has ended; here and not in a thread, for it dies with the thread that starts it."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        for name, server in servers.items():
            if server.pid is None:
                tell(f"{name} ended, starts again")
                try:
                    server.start()
                except (PostgresError, NatsError) as error:
                    tell(str(error))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _stop_all(supervisors: Sequence[Supervisor]) -> None:
    await asyncio.gather(*(supervisor.stop() for supervisor in supervisors))


def _service_environment(
    name: str, state: StateFolder, keys: Keys, postgres: EmbeddedPostgres, ports: Mapping[str, int]
) -> dict[str, str]:
    environment = {
        "PREBUILDS_LISTEN": f"127.0.0.1:{ports[name]}",
        "PREBUILDS_METRICS_ADDRESS": f"127.0.0.1:{ports[f'{name} metrics']}",
        "PREBUILDS_DATABASE_URL": postgres.url(DATABASE),
        "PREBUILDS_NATS_URL_FILE": str(state.keys / "nats.url"),
    }
    if name != "agent-gateway":
        environment.update(keys.identity_environment())
    if name in {"agent-gateway", "provisioner"}:
        environment["PREBUILDS_AGENT_TOKEN_KEYS_FILE"] = str(keys.agent_tokens_file)
    if name == "reconciler":
        environment.update({variable: os.environ[variable] for variable in _RECONCILIATION if variable in os.environ})
    if name == "provisioner":
        environment["PREBUILDS_GATEWAY_URL"] = f"127.0.0.1:{ports['agent-gateway']}"
    return environment


def _program(
    state: StateFolder, name: str, environment: Mapping[str, str], *, stop_within: timedelta = timedelta(seconds=15)
) -> Program:
    inherited = {
        variable: value
        for variable, value in os.environ.items()
        if variable in _INHERITED or variable.startswith("OTEL_")
    }
    addresses_file = state.run / f"{name}.json"
    return Program(
        name=name,
        command=(sys.executable, "-m", f"prebuilds.{name.replace('-', '_')}"),
        environment={**inherited, "PREBUILDS_ADDRESSES_FILE": str(addresses_file), **environment},
        log_file=state.logs / f"{name}.log",
        addresses_file=addresses_file,
        stop_within=stop_within,
    )

"""A process: signals, one group of tasks, readiness, drain, exit code.

The first SIGTERM or SIGINT asks the process to stop: whatever `main` opened is closed in order. A second one ends it
on the spot. A background task that fails also ends the process, in the same order, with exit code 1, for whoever
supervises it to start it anew.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog
import uvloop

from prebuilds.chassis.addresses import Addresses, write_addresses
from prebuilds.chassis.logs import configure_logs
from prebuilds.chassis.settings import ProcessSettings, load_settings
from prebuilds.chassis.tasks import BackgroundTasks
from prebuilds.domain.refusals import Code, Refusal

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)
T = TypeVar("T")
S = TypeVar("S", bound=ProcessSettings)


@dataclass(frozen=True, slots=True)
class App:
    """What a service's `open_app` yields: where it listens, and the tasks whose failure is its own."""

    tasks: BackgroundTasks
    addresses: Addresses = field(default_factory=Addresses)

    @property
    def grpc(self) -> str:
        """Where gRPC is served; for tests, which know that it is."""
        if self.addresses.grpc is None:
            raise RuntimeError("this app serves no gRPC")
        return self.addresses.grpc


class Process:
    """The running process, as `main` sees it; without signals it works in a test too."""

    def __init__(self, tasks: BackgroundTasks) -> None:
        """`tasks` belong to the process."""
        self._tasks = tasks
        self._stop = asyncio.Event()

    def spawn(self, name: str, coroutine: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run something in the background; its failure ends the process non-zero."""
        return self._tasks.spawn(name, coroutine)

    def stop(self) -> None:
        """Ask the process to stop, as SIGTERM does."""
        self._stop.set()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    async def stopping(self, *also: BackgroundTasks) -> None:
        """Wait until the process is asked to stop; raises the failure of a background task, of `also` too."""
        waiting = [asyncio.ensure_future(group.failed()) for group in (self._tasks, *also)]
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            done, _ = await asyncio.wait({stop, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            for task in (stop, *waiting):
                task.cancel()
            await asyncio.gather(stop, *waiting, return_exceptions=True)


async def supervise(main: Callable[[Process], Awaitable[None]], *, signals: bool = False) -> int:
    """Run `main` to its end and answer the exit code; what escapes it is logged."""
    try:
        async with BackgroundTasks() as tasks:
            process = Process(tasks)
            if signals:
                _listen_to_signals(process)
            await main(process)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - the process's main is the last to see it
        _log.error("process failed", **_explain(error))
        return EXIT_FAILED
    return EXIT_OK


def _explain(error: Exception) -> Mapping[str, object]:
    """What is away is no fault of the program: whoever runs it needs a line and no traceback."""
    if not isinstance(error, Refusal) or error.code is not Code.UNAVAILABLE:
        return {"exc_info": error}
    return {"reason": error.reason, "message": error.message, "cause": " ".join(str(error.__cause__ or "").split())}


def run(main: Callable[[Process], Awaitable[None]], settings: ProcessSettings, *, service: str) -> int:
    """Run a program from its first instruction to its exit code; called once, by `__main__`."""
    configure_logs(service, level=settings.log_level, log_format=settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(supervise(main, signals=True))


def run_service(
    service: str,
    settings_class: type[S],
    open_app: Callable[[S], AbstractAsyncContextManager[App]],
    argv: Sequence[str] | None = None,
) -> int:
    """The whole `__main__` of a service: read settings, open the app, serve until asked to stop; the exit code."""
    settings = load_settings(settings_class, argv, program=f"prebuilds-{service}")
    return run(lambda process: serve(process, open_app, settings), settings, service=service)


async def serve(process: Process, open_app: Callable[[S], AbstractAsyncContextManager[App]], settings: S) -> None:
    """Open the app, tell that it is ready, and close it in good order when the process is asked to stop."""
    async with open_app(settings) as app:
        if settings.addresses_file is not None:
            write_addresses(settings.addresses_file, app.addresses)
        _log.info("ready", grpc=app.addresses.grpc, metrics=app.addresses.metrics)
        await process.stopping(app.tasks)
        _log.info("draining")
    _log.info("stopped")


def _listen_to_signals(process: Process) -> None:
    loop = asyncio.get_running_loop()

    def asked_to_stop(number: int) -> None:
        if process.is_stopping:
            sys.stderr.flush()
            # Not sys.exit: the point of a second signal is to wait for nothing.
            os._exit(128 + number)
        _log.info("asked to stop", signal=signal.Signals(number).name)
        process.stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked_to_stop, number)

"""The process backend: a workspace is a folder with supervised agents (behaviour section 7).

A build holds the workspace's lock, which all daemons of the host respect, and brings about what the job asks for from
whatever it finds, so a second attempt adopts what the first left. An agent that runs with the job's token is kept as it
is; that is why a claim build, whose tokens are the old ones, restarts nothing: the gateway's `Reinit` does the rest. An
agent with another token is stopped first.

Crash points: agents belong to no daemon, so the daemon's end changes nothing. Before an agent's start nothing runs;
after it the next attempt finds it by its lock. A half-unpacked archive has no version beside it and is unpacked anew. A
half-removed folder is removed by the next attempt. What should run is written down beside each agent
(`launch.json`) before it is started and until it is stopped by a job: after the host's reboot `resume` starts it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar, cast

import structlog

from prebuilds.domain.builds import FailureClass, LogLevel, Transition
from prebuilds.provisioner_daemon.backends.process import agents
from prebuilds.provisioner_daemon.backends.process.agents import AgentTerms, StartError
from prebuilds.provisioner_daemon.backends.process.archives import BadArchiveError, unpack
from prebuilds.provisioner_daemon.backends.process.folders import (
    StateRoot,
    WorkspaceFolder,
    read_if_there,
    write_metadata,
    write_private,
)
from prebuilds.provisioner_daemon.job_log import JobLog
from prebuilds.provisioner_daemon.jobs import BuildFailedError, BuildJob, JobAgent, Result

LAUNCH: Final = "launch.json"
"""What an agent that should run was started with; its token is in a file of its own."""

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_PASSED_ON: Final = frozenset({"PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL"})
_PASSED_ON_PREFIX: Final = "LC_"
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessBackend:
    """Builds workspaces as folders with agents on this host."""

    def __init__(
        self, state_root: Path, *, host_id: str, agent_command: Sequence[str], stop_grace: timedelta, log_size: int
    ) -> None:
        """`state_root` is absolute, and shared by the daemons of this host."""
        self._root = StateRoot(state_root)
        self._host_id = host_id
        self._terms = AgentTerms(agent_command, stop_grace, log_size)

    @property
    def host_id(self) -> str:
        """Later jobs of a workspace must come to this host."""
        return self._host_id

    async def build(self, job: BuildJob, log: JobLog) -> Result:
        """Do the job, alone with its workspace. Raises BuildFailedError."""
        try:
            async with self._root.locked(job.workspace_id) as remove_lock:
                folder = self._root.workspace(job.workspace_id)
                match job.transition:
                    case Transition.START:
                        return await self._start(folder, job, log)
                    case Transition.STOP:
                        await self._stop(folder, log)
                        return Result(host_id=self._host_id)
                    case Transition.DELETE:
                        await self._stop(folder, log)
                        await _to_its_end(folder.remove)
                        remove_lock()
                        log.write("removed the workspace's folder", stage="delete")
                        return Result()
        except BadArchiveError as error:
            raise BuildFailedError(str(error), FailureClass.TEMPLATE) from error
        except (OSError, StartError) as error:
            raise BuildFailedError(_plain(error), FailureClass.INFRASTRUCTURE) from error

    async def resume(self) -> int:
        """Start the agents that should run and have no supervisor; one that cannot be started stops no other."""
        resumed = 0
        for workspace_id in self._root.workspace_ids():
            async with self._root.locked(workspace_id):
                folder = self._root.workspace(workspace_id)
                resumed += await _to_its_end(lambda folder=folder: self._resume_agents(folder))
        return resumed

    async def suspend(self) -> int:
        """Stop all agents, each to be started again by the next `resume`."""
        running = [
            path
            for workspace_id in self._root.workspace_ids()
            for path in self._root.workspace(workspace_id).agent_folders()
            if agents.is_supervised(path)
        ]
        # All at once, so that many slow ones take no longer than one.
        for path in running:
            agents.ask_to_stop(path)
        await asyncio.gather(*(_to_its_end(lambda path=path: agents.stop(path, self._terms)) for path in running))
        return len(running)

    async def _start(self, folder: WorkspaceFolder, job: BuildJob, log: JobLog) -> Result:
        await _to_its_end(folder.make)
        await _to_its_end(lambda: write_metadata(folder, _facts(job)))
        kept = {agent.id for agent in job.agents if _is_kept(folder, agent)}
        for path in folder.agent_folders():
            if path.name not in {str(agent_id) for agent_id in kept}:
                await _to_its_end(lambda path=path: agents.stop(path, self._terms))
                await _to_its_end(lambda path=path: shutil.rmtree(path, ignore_errors=True))
        if not kept:
            # What an agent left behind whose supervisor was killed.
            await _to_its_end(lambda: agents.kill_all_of(folder.path))
            if await _to_its_end(lambda: _unpack(folder, job)):
                log.write(f"unpacked version {job.version_name}", stage="prepare")
        for agent in job.agents:
            if agent.id in kept:
                log.write(f"kept agent {agent.name}, which runs", stage="start")
                continue
            await _to_its_end(lambda agent=agent: self._start_agent(folder, job, agent))
            log.write(f"started agent {agent.name}", stage="start")
        return Result(agent_names=[agent.name for agent in job.agents], host_id=self._host_id)

    async def _stop(self, folder: WorkspaceFolder, log: JobLog) -> None:
        for path in folder.agent_folders():
            (path / LAUNCH).unlink(missing_ok=True)
            await _to_its_end(lambda path=path: agents.stop(path, self._terms))
        killed = await _to_its_end(lambda: agents.kill_all_of(folder.path))
        log.write("stopped all agents", stage="stop")
        if killed:
            log.write(f"killed {killed} processes that were left", level=LogLevel.WARN, stage="stop")

    def _start_agent(self, folder: WorkspaceFolder, job: BuildJob, agent: JobAgent) -> None:
        path = folder.agent(agent.id)
        path.mkdir(mode=0o700, exist_ok=True)
        write_private(path / agents.TOKEN, agent.token)
        is_only = len(job.agents) == 1
        environment = {
            **_passed_on(),
            "HOME": str(folder.home),
            "TMPDIR": str(folder.temporary),
            "PREBUILDS_AGENT_TOKEN_FILE": str(path / agents.TOKEN),
            "PREBUILDS_AGENT_FOLDER": str(folder.path if is_only else path),
            "PREBUILDS_GATEWAY_URL": job.gateway_address,
        }
        write_private(path / LAUNCH, json.dumps(environment))
        self._launch(folder, path, environment)

    def _resume_agents(self, folder: WorkspaceFolder) -> int:
        resumed = 0
        for path in folder.agent_folders():
            launch = _read_launch(path)
            if launch is None or agents.is_supervised(path):
                continue
            try:
                self._launch(folder, path, launch)
            except (OSError, StartError) as error:
                _log.warning("agent not resumed", workspace=folder.path.name, agent=path.name, error=_plain(error))
            else:
                resumed += 1
        return resumed

    def _launch(self, folder: WorkspaceFolder, path: Path, environment: Mapping[str, str]) -> None:
        agents.start(path, self._terms, environment=environment, directory=folder.files)


def _read_launch(path: Path) -> Mapping[str, str] | None:
    """The environment of an agent that should run; None for one that should not."""
    written = read_if_there(path / LAUNCH)
    return None if written is None else cast("Mapping[str, str]", json.loads(written))


def _is_kept(folder: WorkspaceFolder, agent: JobAgent) -> bool:
    path = folder.agent(agent.id)
    return read_if_there(path / agents.TOKEN) == agent.token and agents.is_supervised(path)


def _unpack(folder: WorkspaceFolder, job: BuildJob) -> bool:
    if read_if_there(folder.version) == str(job.version_id) and folder.files.is_dir():
        return False
    folder.version.unlink(missing_ok=True)
    unpack(job.source_archive, folder.files)
    write_private(folder.version, str(job.version_id))
    return True


def _facts(job: BuildJob) -> dict[str, object]:
    """What a template may see of its workspace, tokens and gateway aside, which the agents have."""
    return {
        "id": str(job.workspace_id),
        "name": job.workspace_name,
        "owner": job.owner_name,
        "owner_id": str(job.owner_id),
        "organization": job.organization_name,
        "template": job.template_name,
        "version": job.version_name,
        "transition": job.transition.value,
        "parameters": dict(job.parameters),
        "is_prebuild": job.is_prebuild,
        "is_prebuild_claim": job.is_prebuild_claim,
        "generation": job.generation,
    }


def _passed_on() -> dict[str, str]:
    """Of the daemon's environment what does no harm: neither its key nor whatever else it was given."""
    environment = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
    }
    environment.setdefault("PATH", _DEFAULT_PATH)
    environment.setdefault("LANG", "C.UTF-8")
    return environment


async def _to_its_end(call: Callable[[], T]) -> T:
    """Do something blocking; a cancellation waits for its end, because the lock must not be given up meanwhile."""
    running = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def _plain(error: Exception) -> str:
    """For people, without the paths of this host."""
    if isinstance(error, OSError) and error.strerror:
        return f"the host refused: {error.strerror}"
    return str(error) or type(error).__name__

"""The process backend with real processes; a shell script stands for the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest
import pytest_asyncio

from prebuilds.domain.builds import BackendKind, BuildReason, FailureClass, Transition
from prebuilds.provisioner_daemon.backends.process import agents
from prebuilds.provisioner_daemon.backends.process.backend import ProcessBackend
from prebuilds.provisioner_daemon.job_log import JobLog
from prebuilds.provisioner_daemon.jobs import BuildFailedError, BuildJob, JobAgent, JobLease, Result
from tests.support.provisioning import make_archive
from tests.support.waiting import eventually

AGENT = """#!/bin/sh
env > "$PREBUILDS_AGENT_FOLDER/env.txt"
pwd > "$PREBUILDS_AGENT_FOLDER/pwd.txt"
echo $$ >> "$PREBUILDS_AGENT_FOLDER/pids.txt"
exec sleep 1000
"""


def job(**changed: object) -> BuildJob:
    return replace(
        BuildJob(
            lease=JobLease(uuid4(), uuid4(), 1, timedelta(seconds=30)),
            organization_name="default",
            build_id=uuid4(),
            build_number=1,
            transition=Transition.START,
            reason=BuildReason.PREBUILD,
            backend=BackendKind.PROCESS,
            workspace_id=uuid4(),
            workspace_name="prebuild-x",
            owner_id=UUID(int=1),
            owner_name="prebuilds",
            template_name="python-dev",
            version_id=uuid4(),
            version_name="v1",
            parameters={"size": "small"},
            is_prebuild=True,
            is_prebuild_claim=False,
            generation=0,
            agents=[JobAgent(uuid4(), "main", "pba_k1_token")],
            gateway_address="127.0.0.1:7083",
            traceparent="",
            source_archive=make_archive({"startup.sh": "#!/bin/sh\n", "lib/data.txt": "v1"}),
            provisioner_state=b"",
        ),
        **changed,
    )


@dataclass
class Host:
    root: Path
    command: list[str]

    def backend(self, *, stop_grace: float = 5, log_size: int = 1024**2) -> ProcessBackend:
        """As a daemon just started has it: it knows nothing of what was."""
        return ProcessBackend(
            self.root,
            host_id="host-1",
            agent_command=self.command,
            stop_grace=timedelta(seconds=stop_grace),
            log_size=log_size,
        )

    async def build(self, asked: BuildJob) -> Result:
        return await self.backend().build(asked, JobLog())

    def folder(self, asked: BuildJob) -> Path:
        return self.root / "workspaces" / str(asked.workspace_id)

    def pids(self, asked: BuildJob) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            return [int(line) for line in (self.folder(asked) / "pids.txt").read_text().split()]
        return []

    async def agent(self, asked: BuildJob, count: int = 1) -> psutil.Process:
        """The agent, once it has begun for the `count`th time."""
        await eventually(lambda: len(self.pids(asked)) >= count, what=f"agent began {count} times")
        assert len(self.pids(asked)) == count
        return psutil.Process(self.pids(asked)[-1])


@pytest_asyncio.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    script = tmp_path / "agent.sh"
    script.write_text(AGENT)
    running = Host(tmp_path / "state", ["/bin/sh", str(script)])
    yield running
    for workspace in (tmp_path / "state" / "workspaces").glob("*"):
        asked = job(workspace_id=UUID(workspace.name), transition=Transition.DELETE)
        await running.backend(stop_grace=0.1).build(asked, JobLog())
    assert not belonging_to(tmp_path)


def belonging_to(folder: Path) -> list[psutil.Process]:
    return list(agents.processes_of(folder))


async def test_a_start_brings_up_an_agent_in_its_own_session(host: Host) -> None:
    asked = job()

    result = await host.build(asked)

    agent = await host.agent(asked)
    assert result == Result(agent_names=["main"], host_id="host-1")
    assert os.getsid(agent.pid) != os.getsid(0)
    assert os.getpgid(agent.pid) == agent.pid
    assert (host.folder(asked) / "pwd.txt").read_text().strip() == str(host.folder(asked) / "files")
    assert (host.folder(asked) / "files" / "lib" / "data.txt").read_text() == "v1"


async def test_folder_and_token_are_the_owners_alone(host: Host) -> None:
    asked = job()
    await host.build(asked)

    folder = host.folder(asked)
    (token,) = folder.glob("agents/*/token")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == "pba_k1_token"


async def test_an_agent_gets_an_allow_listed_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREBUILDS_PROVISIONER_KEY", "PREBUILDS_DATABASE_URL", "NATS_URL", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a secret")
    asked = job()
    await host.build(asked)
    await host.agent(asked)

    environment = dict(
        line.split("=", 1) for line in (host.folder(asked) / "env.txt").read_text().splitlines() if "=" in line
    )

    folder = host.folder(asked)
    harmless = {"PATH", "LANG", "LANGUAGE", "TZ", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_"}
    assert {name for name in environment if name not in harmless and not name.startswith("LC_")} == {
        "HOME",
        "TMPDIR",
        "PREBUILDS_AGENT_TOKEN_FILE",
        "PREBUILDS_AGENT_FOLDER",
        "PREBUILDS_GATEWAY_URL",
    }
    assert environment["HOME"] == str(folder / "home")
    assert environment["PREBUILDS_GATEWAY_URL"] == "127.0.0.1:7083"
    assert "pba_" not in (folder / "env.txt").read_text()


async def test_the_token_is_in_no_process_argument(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)

    for process in belonging_to(host.folder(asked)):
        assert "pba_" not in " ".join(process.cmdline())


async def test_a_second_attempt_adopts_what_the_first_left(host: Host) -> None:
    asked = job()
    await host.build(asked)
    agent = await host.agent(asked)

    await host.build(replace(asked, lease=JobLease(asked.lease.job_id, uuid4(), 2, timedelta(seconds=30))))

    assert agent.is_running()
    assert host.pids(asked) == [agent.pid]


async def test_a_claim_build_keeps_the_agent_and_tells_the_new_owner(host: Host) -> None:
    asked = job()
    await host.build(asked)
    agent = await host.agent(asked)

    await host.build(
        replace(
            asked,
            reason=BuildReason.CLAIM,
            owner_name="alice",
            workspace_name="mine",
            is_prebuild=False,
            is_prebuild_claim=True,
            generation=1,
        )
    )

    facts = json.loads((host.folder(asked) / "workspace.json").read_text())
    assert (facts["owner"], facts["name"], facts["is_prebuild_claim"]) == ("alice", "mine", True)
    assert agent.is_running()
    assert host.pids(asked) == [agent.pid]


async def test_an_agent_with_another_token_is_begun_anew(host: Host) -> None:
    asked = job()
    await host.build(asked)
    first = await host.agent(asked)

    await host.build(replace(asked, agents=[replace(asked.agents[0], token="pba_k1_other")]))

    second = await host.agent(asked, 2)
    assert not first.is_running()
    assert second.is_running()


async def test_an_agent_that_a_version_no_longer_has_is_stopped(host: Host) -> None:
    asked = job()
    side = JobAgent(uuid4(), "side", "pba_k1_side")
    both = replace(asked, agents=[*asked.agents, side])
    await host.build(both)
    assert agents.is_supervised(host.folder(asked) / "agents" / str(side.id))

    await host.build(asked)

    assert not agents.is_supervised(host.folder(asked) / "agents" / str(side.id))
    assert not (host.folder(asked) / "agents" / str(side.id)).exists()


async def test_an_agent_that_dies_is_started_again(host: Host) -> None:
    asked = job()
    await host.build(asked)
    first = await host.agent(asked)

    first.kill()

    assert (await host.agent(asked, 2)).is_running()
    (log,) = host.folder(asked).glob("agents/*/agent.log")
    assert "agent ended with -9" in log.read_text()


async def test_a_stop_ends_the_agent_and_keeps_the_folder(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)

    await host.build(replace(asked, transition=Transition.STOP))

    assert not belonging_to(host.folder(asked))
    assert (host.folder(asked) / "files").is_dir()


async def test_a_start_after_a_stop_brings_the_agent_back(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)
    await host.build(replace(asked, transition=Transition.STOP))

    await host.build(asked)

    assert (await host.agent(asked, 2)).is_running()


async def test_a_delete_leaves_nothing(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)
    locked_up = host.folder(asked) / "home" / "read-only"
    locked_up.mkdir()
    (locked_up / "file").touch()
    locked_up.chmod(0o500)
    delete = replace(asked, transition=Transition.DELETE)

    await host.build(delete)

    assert not host.folder(asked).exists()
    assert not list((host.root / "locks").iterdir())
    assert not belonging_to(host.folder(asked))
    await host.build(delete)


async def test_what_ignores_sigterm_is_killed_after_the_grace(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "agent.sh"
    script.write_text(AGENT.replace("exec sleep 1000", "trap '' TERM; (trap '' TERM; setsid sleep 1000) & wait; wait"))
    asked = job()
    await host.build(asked)
    await host.agent(asked)
    await eventually(lambda: len(belonging_to(host.folder(asked))) >= 3)

    await host.backend(stop_grace=0.1).build(replace(asked, transition=Transition.STOP), JobLog())

    assert not belonging_to(host.folder(asked))


async def test_a_killed_supervisor_leaves_no_second_agent(host: Host) -> None:
    asked = job()
    await host.build(asked)
    first = await host.agent(asked)
    (agent_folder,) = host.folder(asked).glob("agents/*")
    supervisor = agents.supervisor_of(agent_folder)
    assert supervisor is not None
    supervisor.kill()
    await eventually(lambda: not agents.is_supervised(agent_folder))

    await host.build(asked)

    assert (await host.agent(asked, 2)).is_running()
    assert not first.is_running()


async def test_an_agent_whose_folder_was_taken_away_ends(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)

    shutil.rmtree(host.root)

    await eventually(lambda: not belonging_to(host.folder(asked)), 30)


async def test_builds_of_one_workspace_wait_for_each_other(host: Host) -> None:
    asked = job()

    await asyncio.gather(*(host.build(asked) for _ in range(4)))

    assert (await host.agent(asked)).is_running()


async def test_a_log_begins_anew_when_it_is_too_large(host: Host, tmp_path: Path) -> None:
    (tmp_path / "agent.sh").write_text("#!/bin/sh\nhead -c 20000 /dev/zero | tr '\\0' x\nexit 3\n")
    asked = job()

    await host.backend(log_size=4096).build(asked, JobLog())

    (agent_folder,) = host.folder(asked).glob("agents/*")
    await eventually((agent_folder / "agent.log.1").exists)
    assert (agent_folder / "agent.log").stat().st_size < 100_000


async def test_a_program_that_cannot_run_fails_the_build(host: Host) -> None:
    host.command = ["/nowhere/agent"]

    with pytest.raises(BuildFailedError) as failed:
        await host.build(job())

    assert failed.value.failure_class is FailureClass.INFRASTRUCTURE


@pytest.mark.parametrize("name", ["../escaped", "/absolute"])
async def test_an_archive_that_leaves_its_folder_is_the_templates_fault(host: Host, name: str) -> None:
    with pytest.raises(BuildFailedError) as failed:
        await host.build(job(source_archive=make_archive({name: "x"})))

    assert failed.value.failure_class is FailureClass.TEMPLATE
    assert not list(host.root.rglob("escaped"))


async def test_nonsense_is_no_archive(host: Host) -> None:
    with pytest.raises(BuildFailedError) as failed:
        await host.build(job(source_archive=b"nonsense"))

    assert failed.value.failure_class is FailureClass.TEMPLATE


async def test_an_agent_outlives_the_daemon_that_started_it(host: Host, tmp_path: Path) -> None:
    asked = job()
    program = tmp_path / "daemon.py"
    program.write_text(
        "import asyncio, pickle, sys\n"
        "asked, host = pickle.load(open(sys.argv[1], 'rb'))\n"
        "asyncio.run(host.build(asked))\n"
        "import os, signal; os.killpg(0, signal.SIGKILL)\n"
    )
    (tmp_path / "job").write_bytes(pickle.dumps((asked, host)))
    root = Path(__file__).parents[3]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        str(tmp_path / "job"),
        cwd=root,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert await daemon.wait() == -signal.SIGKILL

    agent = await host.agent(asked)
    await host.build(asked)

    assert agent.is_running()
    assert host.pids(asked) == [agent.pid]


async def test_what_should_run_comes_back_after_the_hosts_reboot(host: Host) -> None:
    asked = job()
    await host.build(asked)
    agent = await host.agent(asked)
    agents.kill_all_of(host.folder(asked))
    (supervised,) = host.folder(asked).glob("agents/*")
    await eventually(lambda: not agents.is_supervised(supervised))

    assert await host.backend().resume() == 1

    assert (await host.agent(asked, 2)).pid != agent.pid
    assert await host.backend().resume() == 0


async def test_what_a_job_stopped_does_not_come_back(host: Host) -> None:
    asked = job()
    await host.build(asked)
    await host.agent(asked)
    await host.build(replace(asked, transition=Transition.STOP))

    assert await host.backend().resume() == 0

    assert not belonging_to(host.folder(asked))


async def test_a_suspended_host_runs_nothing_until_it_resumes(host: Host) -> None:
    asked = [job(), job()]
    for each in asked:
        await host.build(each)
        await host.agent(each)

    assert await host.backend().suspend() == 2
    await eventually(lambda: not belonging_to(host.root), what="nothing runs")
    assert await host.backend().resume() == 2

    for each in asked:
        assert (await host.agent(each, 2)).is_running()

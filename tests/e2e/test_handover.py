"""The path of a claim through real processes, with some of them killed on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from prebuilds.embedded.keys import ORGANIZATION
from prebuilds.v1 import claim_pb2, workspace_service_pb2
from tests.support.stack import PATIENCE, RunningSystem
from tests.support.waiting import eventually

TELL = 'echo "$PREBUILDS_OWNER" >> entries'
# For a person the startup waits for a file, so that a test can do something between Reinit and acknowledgement.
GATED = f"""{TELL}
if [ "$PREBUILDS_IS_PREBUILD" != true ]; then
  while [ ! -e go ]; do sleep 0.05; done
fi"""


async def _claim(system: RunningSystem, template: str) -> str:
    created = await system.alice.create_workspace(ORGANIZATION, template, preset="p")
    assert created.outcome == claim_pb2.CREATION_OUTCOME_HIT
    return created.workspace.id


def _acknowledged(system: RunningSystem, workspace_id: str) -> bool:
    return system.claim_state(workspace_id) == "acknowledged"


@pytest.mark.parametrize("strategy", ["provision", "instant"])
async def test_a_claimed_prebuild_is_reinitialized_for_its_owner_once(system: RunningSystem, strategy: str) -> None:
    template = await system.warm_pool(startup=TELL, strategy=strategy)

    workspace_id = await _claim(system, template)
    last = await system.alice.wait_for_workspace(workspace_id)

    assert last.claim.state == claim_pb2.CLAIM_STATE_ACKNOWLEDGED
    assert last.workspace.ready
    assert system.agent_says(workspace_id)["owner"] == "alice"
    assert system.entries(workspace_id) == ["prebuilds", "alice"]


async def test_a_gateway_killed_before_the_acknowledgement_delays_it_and_no_more(system: RunningSystem) -> None:
    template = await system.warm_pool(startup=GATED)
    workspace_id = await _claim(system, template)
    await eventually(lambda: system.entries(workspace_id) == ["prebuilds", "alice"], PATIENCE)

    system.kill("agent-gateway")
    (system.folder_of(workspace_id) / "go").touch()

    await eventually(lambda: _acknowledged(system, workspace_id), PATIENCE, what="the claim is acknowledged")
    assert system.entries(workspace_id) == ["prebuilds", "alice"]


async def test_a_gateway_killed_before_the_reinit_delays_it_and_no_more(system: RunningSystem) -> None:
    template = await system.warm_pool(startup=TELL)
    with system.halted("agent-gateway"):
        workspace_id = await _claim(system, template)
        await eventually(lambda: system.claim_state(workspace_id) == "handing_over", PATIENCE)
        system.kill("agent-gateway")

    await eventually(lambda: _acknowledged(system, workspace_id), PATIENCE, what="the claim is acknowledged")
    assert system.entries(workspace_id) == ["prebuilds", "alice"]


async def test_an_agent_restarted_while_its_claim_build_runs_acknowledges_nothing(system: RunningSystem) -> None:
    template = await system.warm_pool(startup=TELL)
    (prebuild,) = system.rows(
        "SELECT p.workspace_id, a.incarnation FROM prebuilds p JOIN agents a USING (workspace_id)"
        " JOIN templates t ON t.id = p.template_id WHERE t.name = %(name)s",
        name=template,
    )
    agent = system.agent_says(str(prebuild["workspace_id"]))
    with system.halted("provisioner-daemon"):
        workspace_id = await _claim(system, template)
        assert workspace_id == str(prebuild["workspace_id"])

        os.kill(int(agent["pid"]), signal.SIGKILL)
        await eventually(lambda: _ready_again(system, workspace_id, int(prebuild["incarnation"])), PATIENCE)

        assert system.claim_state(workspace_id) == "building"
        assert system.agent_says(workspace_id)["owner"] == "prebuilds"

    await eventually(lambda: _acknowledged(system, workspace_id), PATIENCE, what="the claim is acknowledged")
    assert system.entries(workspace_id) == ["prebuilds", "prebuilds", "alice"]


def _ready_again(system: RunningSystem, workspace_id: str, incarnation: int) -> bool:
    (agent,) = system.rows("SELECT incarnation, state FROM agents WHERE workspace_id = %(id)s", id=workspace_id)
    return bool(agent["incarnation"] > incarnation and agent["state"] == "ready")


async def test_agents_outlive_the_restart_of_their_daemon(system: RunningSystem) -> None:
    template = await system.warm_pool(startup=TELL)
    (prebuild,) = system.rows(
        "SELECT workspace_id FROM prebuilds p JOIN templates t ON t.id = p.template_id WHERE t.name = %(name)s",
        name=template,
    )
    workspace_id = str(prebuild["workspace_id"])
    pid = system.agent_says(workspace_id)["pid"]
    restarts = system.stack.supervisors["provisioner-daemon"].restarts

    system.kill("provisioner-daemon")
    await eventually(lambda: system.stack.supervisors["provisioner-daemon"].restarts > restarts, PATIENCE)
    claimed = await _claim(system, template)
    await eventually(lambda: _acknowledged(system, claimed), PATIENCE, what="the claim is acknowledged")

    assert claimed == workspace_id
    assert system.agent_says(workspace_id)["pid"] == pid


async def test_a_deleted_workspace_leaves_no_process_and_no_folder(system: RunningSystem) -> None:
    template = await system.warm_pool(startup=TELL)
    workspace_id = await _claim(system, template)
    await system.alice.wait_for_workspace(workspace_id)
    folder = system.folder_of(workspace_id)
    pid = int(system.agent_says(workspace_id)["pid"])

    await system.alice.call(
        system.alice.workspaces.DeleteWorkspace, workspace_service_pb2.DeleteWorkspaceRequest(id=workspace_id)
    )

    await eventually(lambda: not folder.exists(), PATIENCE, what="the folder is gone")
    await eventually(lambda: not Path(f"/proc/{pid}").exists(), PATIENCE, what="the agent is gone")

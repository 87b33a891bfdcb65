"""From an empty system to a claimed workspace: organisation, daemon key, template, warm pool, claim, refilled pool."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Final, cast

import grpc

from prebuilds.domain.principals import Role
from prebuilds.embedded.keys import ORGANIZATION, write_secret
from prebuilds.embedded.stack import HOST_TAG, Stack
from prebuilds.embedded.steps import Step, Steps
from prebuilds.sdk.client import PrebuildsClient, open_client
from prebuilds.sdk.errors import PrebuildsError
from prebuilds.v1 import (
    admin_pb2,
    admin_service_pb2,
    claim_pb2,
    pool_pb2,
    pool_service_pb2,
    template_service_pb2,
    workspace_service_pb2,
)

OPERATOR: Final = "operator"
ADMIN: Final = "admin"
DEVELOPER: Final = "alice"
PATIENCE: Final = timedelta(seconds=120)

_SETTLED_WITHIN: Final = timedelta(seconds=15)
_POLL: Final = 0.1  # seconds


class TourError(Exception):
    """The tour cannot go on; the text says why."""


async def take_tour(stack: Stack, steps: Steps, template: Path) -> float | None:
    """Bring the stack to the point where people can work, showing each step.

    On a state that people have used already, what is there is left as it is, and the tour ends with the daemon up.
    Answers after how many seconds the first workspace was claimed and its agent ready; None where there was one before.
    """
    async with AsyncExitStack() as opened:

        async def client_of(token: str) -> PrebuildsClient:
            return await opened.enter_async_context(
                open_client(reconciler=stack.grpc["reconciler"], claims=stack.grpc["claims"], token=token)
            )

        admin = await client_of(stack.keys.issue(ADMIN, roles=(Role.OWNER,)))
        developer = await client_of(stack.keys.issue(DEVELOPER, roles=(Role.MEMBER,)))
        with steps.step("organization and provisioner daemon"):
            await prepare(stack)
            write_client_file(stack)
        with steps.step("what is there") as step:
            if await _is_used(admin):
                step.result = await _settle(admin, step)
                return None
            step.result = "nothing yet"
        with steps.step("push the template") as step:
            pushed = await admin.push_template(template, ORGANIZATION, activate=True)
            step.result = f"{pushed.template.name} {pushed.version.name}"
        with steps.step("pool is warm") as step:
            pool = await _wait_until_full(admin, pushed.template.name, step)
        await _claim(stack, developer, pool, steps)
        seconds = steps.total()
        with steps.step("pool is full again") as step:
            await _wait_until_full(admin, pushed.template.name, step)
        return seconds


async def prepare(stack: Stack) -> None:
    """Make the organization and the daemon's key, if they are missing, and start the daemon."""
    token = stack.keys.issue(OPERATOR, operator=True)
    async with open_client(reconciler=stack.grpc["reconciler"], claims=stack.grpc["claims"], token=token) as operator:
        await _make_organization_and_key(stack, operator)
    await stack.start_daemon()


async def _make_organization_and_key(stack: Stack, operator: PrebuildsClient) -> None:
    organization = admin_pb2.Organization(name=ORGANIZATION)
    try:
        await operator.call(
            operator.admin.CreateOrganization, admin_service_pb2.CreateOrganizationRequest(organization=organization)
        )
    except PrebuildsError as error:
        if error.code is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    if not stack.keys.daemon_key_file.exists():
        # A name of its own: an earlier run may have ended between making the key and writing it down.
        name = f"{HOST_TAG}-{secrets.token_hex(4)}"
        key = admin_pb2.ProvisionerKey(name=name, tags={"host": HOST_TAG})
        created = await operator.call(
            operator.admin.CreateProvisionerKey,
            admin_service_pb2.CreateProvisionerKeyRequest(organization=ORGANIZATION, provisioner_key=key),
        )
        write_secret(stack.keys.daemon_key_file, created.secret)


async def _is_used(admin: PrebuildsClient) -> bool:
    request = template_service_pb2.ListTemplatesRequest(organization=ORGANIZATION)
    return bool((await admin.call(admin.templates.ListTemplates, request)).templates)


async def _settle(admin: PrebuildsClient, step: Step) -> str:
    """Give agents a moment to come back; answers what there is in a few words."""
    deadline = monotonic() + _SETTLED_WITHIN.total_seconds()
    while True:
        listed = await admin.call(admin.pools.ListPools, pool_service_pb2.ListPoolsRequest(organization=ORGANIZATION))
        eligible = sum(pool.counts.eligible for pool in listed.pools)
        target = sum(pool.target.instances for pool in listed.pools)
        step.tell(f"{eligible} of {target} prebuilds ready")
        if eligible >= target or monotonic() > deadline:
            break
        await asyncio.sleep(_POLL)
    request = workspace_service_pb2.ListWorkspacesRequest(organization=ORGANIZATION, page_size=500)
    workspaces = (await admin.call(admin.workspaces.ListWorkspaces, request)).workspaces
    return f"{eligible} of {target} prebuilds ready, {len(workspaces)} workspaces"


async def _wait_until_full(admin: PrebuildsClient, template: str, step: Step) -> pool_pb2.Pool:
    deadline = monotonic() + PATIENCE.total_seconds()
    while True:
        pool = await _pool(admin, template)
        if pool is not None:
            step.tell(f"{pool.counts.eligible} of {pool.target.instances} ready, {pool.counts.starting} starting")
            if pool.counts.eligible >= pool.target.instances:
                step.result = f"{pool.counts.eligible} ready"
                return pool
            if pool.counts.failed > pool.target.instances:
                raise TourError(
                    "prebuilds fail: see `prebuilds workspaces list --filter is_prebuild=true` and the logs"
                )
        if monotonic() > deadline:
            raise TourError(f"the pool was not full within {PATIENCE.seconds} s: see the logs")
        await asyncio.sleep(_POLL)


async def _pool(admin: PrebuildsClient, template: str) -> pool_pb2.Pool | None:
    listed = await admin.call(admin.pools.ListPools, pool_service_pb2.ListPoolsRequest(organization=ORGANIZATION))
    return next((pool for pool in listed.pools if pool.template_name == template and pool.active), None)


async def _claim(stack: Stack, developer: PrebuildsClient, pool: pool_pb2.Pool, steps: Steps) -> None:
    with steps.step(f"{DEVELOPER} asks for a workspace") as step:
        created = await developer.create_workspace(ORGANIZATION, pool.template_name, preset=pool.name)
        if created.outcome != claim_pb2.CREATION_OUTCOME_HIT:
            raise TourError("the pool was full, and yet no prebuild was claimed")
        step.result = f"{created.workspace.name}, claimed"
    with steps.step("the agent reinitializes for her") as step:
        async with (
            asyncio.timeout(PATIENCE.total_seconds()),
            aclosing(developer.watch_workspace(created.workspace.id)) as states,
        ):
            async for state in states:
                step.tell(claim_pb2.ClaimState.Name(state.claim.state).removeprefix("CLAIM_STATE_").lower())
        step.result = _what_the_agent_says(stack, created.workspace.id)


def _what_the_agent_says(stack: Stack, workspace_id: str) -> str:
    for file in sorted((stack.state.workspaces / "workspaces" / workspace_id).rglob("agent.json")):
        said = cast("dict[str, object]", json.loads(file.read_text()))
        return f"agent {said.get('state')}: owner {said.get('owner')}, generation {said.get('generation')}"
    raise TourError(f"no agent of workspace {workspace_id} has written its state")


def write_client_file(stack: Stack) -> None:
    """Write down where the stack is, for the command-line client."""
    token_file = stack.keys.token_file(ADMIN).relative_to(stack.state.path)
    lines = {
        "organization": ORGANIZATION,
        "reconciler": stack.grpc["reconciler"],
        "claims": stack.grpc["claims"],
        "token_file": str(token_file),
    }
    stack.state.client_file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()))

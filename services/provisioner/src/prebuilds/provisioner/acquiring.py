"""The long poll for jobs: look at once, after each hint, and every second in between (behaviour section 7)."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from opentelemetry.metrics import Meter

from prebuilds.chassis import deadline
from prebuilds.chassis.calls import Draining, draining_refusal
from prebuilds.domain.agents import mint_agent_token
from prebuilds.domain.builds import BackendKind
from prebuilds.domain.ids import AgentId
from prebuilds.domain.principals import Daemon
from prebuilds.domain.refusals import Refusal, Violation
from prebuilds.provisioner.hints import QueueHints
from prebuilds.provisioner.queries.acquired import AgentFacts, JobFacts, read_job_agents, read_job_facts
from prebuilds.store.database import Database
from prebuilds.store.jobs.leasing import Lease, Reach, acquire
from prebuilds.store.transactions import Transaction

HOST_TAG: Final = "host"
"""The tag of keys and jobs that ties workspaces to the host that built them."""

LOOK_EVERY: Final = timedelta(seconds=1)
ANSWER_BEFORE_DEADLINE: Final = timedelta(milliseconds=500)
"""A job taken too late to be answered would wait for its lease to expire."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DaemonOnCall:
    """What a daemon says of itself."""

    name: str
    host_id: str
    version: str
    backends: Collection[BackendKind]


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """The keys that sign agents' tokens; `newest` is for epochs that begin now."""

    keys: Mapping[str, bytes] = field(repr=False)
    newest: str


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """An agent to bring to life, with its secret."""

    id: AgentId
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Acquired:
    """A job with everything that is needed to do it."""

    lease: Lease
    lease_for: timedelta
    facts: JobFacts
    agents: Sequence[AgentGrant]
    gateway_address: str


class Acquisitions:
    """Hands out jobs."""

    def __init__(
        self,
        database: Database,
        *,
        keys: TokenKeys,
        hints: QueueHints,
        draining: Draining,
        lease_for: timedelta,
        gateway_address: str,
        meter: Meter,
    ) -> None:
        """`gateway_address` is where agents find the gateway."""
        self._database = database
        self._keys = keys
        self._hints = hints
        self._draining = draining
        self._lease_for = lease_for
        self._gateway_address = gateway_address
        self._waited = meter.create_histogram(
            "prebuilds_job_queue_wait_seconds",
            unit="s",
            description="From a job's queueing, or the loss of its lease, to a daemon's taking it.",
        )

    async def acquire(self, key: Daemon, daemon: DaemonOnCall, max_wait: timedelta) -> Acquired | None:
        """Take the next job within the key's reach, waiting up to `max_wait`; None where none came.

        Raises Refusal INVALID_FIELDS where the daemon and its key disagree, DRAINING when this server is about to stop.
        """
        _check(key, daemon)
        left = deadline.remaining()
        if left is not None:
            max_wait = min(max_wait, left - ANSWER_BEFORE_DEADLINE)
        ends_at = time.monotonic() + max_wait.total_seconds()
        while True:
            if self._draining.is_set():
                raise draining_refusal()
            seen = self._hints.count
            acquired = await self._database.run("acquire job", lambda tx: self._take(tx, key, daemon))
            if acquired is not None:
                self._note(acquired, daemon)
                return acquired
            pause = min(LOOK_EVERY, timedelta(seconds=ends_at - time.monotonic()))
            if pause <= timedelta(0):
                return None
            await self._hints.after(seen, self._draining, pause)

    async def _take(self, tx: Transaction, key: Daemon, daemon: DaemonOnCall) -> Acquired | None:
        lease = await acquire(
            tx,
            Reach(key.key_id, key.organization_id, key.tags),
            backends=daemon.backends,
            daemon=daemon.name,
            lease_for=self._lease_for,
            token_key_id=self._keys.newest,
            known_key_ids=self._keys.keys,
        )
        if lease is None:
            return None
        facts = await read_job_facts(tx, lease.job_id)
        agents = await read_job_agents(tx, lease.job_id)
        grants = [AgentGrant(agent.id, agent.name, self._token(agent)) for agent in agents]
        return Acquired(lease, self._lease_for, facts, grants, self._gateway_address)

    def _token(self, agent: AgentFacts) -> str:
        return mint_agent_token(self._keys.keys, agent.token_key_id, agent.id, agent.token_epoch)

    def _note(self, acquired: Acquired, daemon: DaemonOnCall) -> None:
        lease, facts = acquired.lease, acquired.facts
        self._waited.record(
            lease.queued_for.total_seconds(), {"transition": facts.transition.value, "reason": facts.reason.value}
        )
        _log.info(
            "job acquired",
            job=str(lease.job_id),
            build=str(lease.build_id),
            workspace=str(lease.workspace_id),
            transition=facts.transition,
            reason=facts.reason,
            attempt=lease.attempt,
            daemon=daemon.name,
            host=daemon.host_id,
        )


def _check(key: Daemon, daemon: DaemonOnCall) -> None:
    """The key decides what a daemon may do; what the daemon says of itself must not contradict it."""
    violations: list[Violation] = []
    host = key.tags.get(HOST_TAG)
    if host is not None and host != daemon.host_id:
        violations.append(Violation("daemon.host_id", f"the key is bound to the host {host!r}"))
    if host is None and BackendKind.PROCESS in daemon.backends:
        # Its later jobs would carry a tag that no key has.
        violations.append(Violation("daemon.backends", "process needs a key with the tag `host`"))
    if violations:
        raise Refusal.invalid(*violations)

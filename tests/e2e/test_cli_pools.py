"""Pools and templates as their admin steers them, by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml

from prebuilds.embedded.tour import OPERATOR, write_client_file
from tests.support.shell import Shell
from tests.support.stack import PATIENCE, RunningSystem
from tests.support.waiting import eventually

MONDAY = date.today() + timedelta(days=14 - date.today().weekday())  # noqa: DTZ011 - any Monday to come
OFFICE_HOURS = {"timezone": "Asia/Kolkata", "schedule": [{"cron": "* 9-17 * * 1-5", "instances": 2}]}


class Template:
    """A template of the test's own, in a folder that can be changed and pushed again."""

    def __init__(self, admin: Shell, folder: Path) -> None:
        self.name = f"t-{uuid4().hex[:8]}"
        self.pool = f"{self.name}/p"
        self._admin = admin
        self._folder = folder / self.name
        self._folder.mkdir()

    def push(self, *, instances: int = 1, startup: str = "exit 0", **prebuilds: Any) -> None:
        manifest = {
            "name": self.name,
            "backend": "process",
            "presets": [{"name": "p", "default": True, "prebuilds": {"instances": instances, **prebuilds}}],
            "process": {"startup": "./startup.sh"},
        }
        (self._folder / "template.yaml").write_text(yaml.safe_dump(manifest))
        (self._folder / "startup.sh").write_text(f"#!/bin/sh\n{startup}\n")
        (self._folder / "startup.sh").chmod(0o755)
        self._admin.say("templates", "push", str(self._folder))

    def fill(self) -> None:
        self._admin.say("pools", "watch", self.name, "--until-full")

    def prebuilds(self) -> set[str]:
        filter_ = f"template={self.name} AND is_prebuild=true"
        return {each["id"] for each in self._admin.read("workspaces", "list", "--filter", filter_)}

    def pools(self) -> dict[str, Any]:
        """By version."""
        listed = self._admin.read("pools", "list", "--filter", f"template={self.name}")
        return {pool["version_name"]: pool for pool in listed}


def facts(said: str) -> dict[str, str]:
    """What is told of a thing, by the names of the facts."""
    told: dict[str, str] = {}
    name = ""
    for line in said.splitlines():
        key, _, value = line.partition("  ")
        name = key or name
        told[name] = f"{told[name]}\n{value.strip()}" if name in told else value.strip()
    return told


@pytest.fixture
def admin(system: RunningSystem, tmp_path: Path) -> Shell:
    write_client_file(system.stack)
    return Shell(tmp_path, PREBUILDS_CLIENT_FILE=str(system.stack.state.client_file))


@pytest.fixture
def operator(system: RunningSystem, admin: Shell) -> Shell:
    token_file = str(system.stack.keys.token_file(OPERATOR))
    return Shell(admin.folder, **{**admin.environment, "PREBUILDS_TOKEN_FILE": token_file})


@pytest.fixture
def template(admin: Shell, tmp_path: Path) -> Iterator[Template]:
    made = Template(admin, tmp_path)
    yield made
    admin.type("templates", "delete", made.name, "--yes")


async def test_an_invalidation_replaces_every_prebuild(admin: Shell, template: Template) -> None:
    template.push(instances=2)
    template.fill()
    before = template.prebuilds()

    counted = admin.say("pools", "invalidate", template.name, "--dry-run")
    unasked = admin.type("pools", "invalidate", template.name)
    assert template.prebuilds() == before
    done = admin.read("pools", "invalidate", template.pool, "--yes")
    template.fill()

    assert counted == f"2 prebuilds of 1 preset of {template.name} would expire\n"
    assert unasked.returncode == 2
    assert done["prebuild_count"] == 2
    assert "invalidated" in facts(admin.say("pools", "show", template.pool))
    await eventually(lambda: not template.prebuilds() & before, PATIENCE, what="the invalidated ones are gone")


async def test_a_new_version_fills_while_the_old_one_drains_and_a_rollback_turns_that_round(
    admin: Shell, template: Template
) -> None:
    template.push()
    template.fill()

    template.push(startup="echo new")
    template.fill()
    await eventually(lambda: set(template.pools()) == {"v2"}, PATIENCE, what="v1 has drained")
    rolled_back = admin.say("templates", "promote", template.name, "--previous")
    template.fill()
    await eventually(lambda: set(template.pools()) == {"v1"}, PATIENCE, what="v2 has drained")
    drained = admin.say("pools", "show", template.pool, "--version", "v2")
    no_older = admin.type("templates", "promote", template.name, "--previous")
    newest = admin.say("templates", "promote", template.name)
    again = admin.say("templates", "promote", template.name, "v2")
    shown = admin.read("templates", "show", template.name)

    assert rolled_back == f"{template.name} v1 is active\n"
    assert facts(drained)["target"] == "0, because v1 is active"
    assert no_older.returncode == 1
    assert newest == f"{template.name} v2 is active\n"
    assert again == f"{template.name} v2 is active already\n"
    assert [(version["name"], version["active"]) for version in shown["versions"]] == [("v2", True), ("v1", False)]


async def test_a_paused_pool_is_left_alone_until_every_pause_is_ended(admin: Shell, template: Template) -> None:
    template.push()
    template.fill()

    paused = admin.say("pools", "pause", template.pool, "-m", "looking at it")
    paused_again = admin.say("pools", "pause", template.pool, "-m", "mine")
    admin.say("pools", "pause", "--template", template.name, "-m", "new base image")
    admin.say("pools", "invalidate", template.name, "--yes")
    statistics = admin.read("pools", "reconcile", template.pool)
    shown = admin.say("pools", "show", template.pool)
    planned = admin.say("pools", "plan", template.pool)
    never_full = admin.type("pools", "watch", template.name, "--until-full")
    resumed = admin.say("pools", "resume", template.pool)
    still = template.pools()["v1"]
    last = admin.say("pools", "resume", template.name)
    never = admin.say("pools", "resume", template.name)
    template.fill()

    assert paused.startswith(f"{template.pool} is paused, by admin ")
    assert paused.endswith(": looking at it\n")
    assert paused_again.startswith(f"{template.pool} was already paused, by admin ")
    assert paused_again.endswith(": looking at it; your message was not taken\n")
    assert never_full.returncode == 1
    assert never_full.stderr.startswith(f"error: {template.pool}: paused (")
    assert (statistics["presets_paused"], statistics["created"], statistics["deleted"]) == (1, 0, 0)
    assert facts(shown)["state"] == "paused"
    assert "paused (preset) by admin" in facts(shown)["blocked by"]
    assert "\nlooking at it" in facts(shown)["blocked by"]
    assert facts(shown)["ends with"].splitlines() == [
        f"`prebuilds pools resume {template.name}`",
        f"`prebuilds pools resume {template.pool}`",
    ]
    assert facts(shown)["next pass"] == "nothing, because it is paused"
    assert facts(planned)["next pass"] == (
        "nothing, because it is paused; else: delete 1: expired; create 1: below the target"
    )
    assert f"{template.pool} still is paused (template) by admin" in resumed
    assert (still["counts"]["eligible"], still["counts"]["expired"]) == (0, 1)
    assert "it was paused by admin" in last
    assert never == f"{template.name} was not paused\n"


def test_the_pause_of_an_older_version_is_ended_by_what_is_told_to_end_it(admin: Shell, template: Template) -> None:
    template.push()
    template.fill()
    admin.say("pools", "pause", template.pool)
    template.push(startup="echo new")

    remedy = facts(admin.say("pools", "show", template.pool, "-V", "v1"))["ends with"]
    not_retried = admin.type("pools", "retry", template.pool, "-V", "v1")
    ended = admin.say(*shlex.split(remedy.strip("`").removeprefix("prebuilds ")))

    assert remedy == f"`prebuilds pools resume {template.pool} -V v1`"
    assert not_retried.returncode == 1
    assert not_retried.stderr == f"error: {template.pool} v1: not retried: it is not active\n"
    assert ended.startswith(f"{template.pool} v1 is resumed; it was paused by admin ")


def test_the_whole_deployment_is_paused_by_operators_only(admin: Shell, operator: Shell, template: Template) -> None:
    template.push()
    template.fill()

    refused = admin.type("pools", "pause", "--deployment")
    try:
        operator.say("pools", "pause", "--deployment", "-m", "maintenance")
        shown = admin.say("pools", "show", template.pool)
    finally:
        operator.say("pools", "resume", "--deployment")

    assert refused.returncode == 1
    assert refused.stderr.endswith("[PERMISSION_DENIED]\n")
    assert "paused (deployment) by operator" in shown
    assert "paused" not in admin.say("pools", "show", template.pool)


def test_a_plan_for_another_moment_follows_the_schedule_of_that_moment(admin: Shell, template: Template) -> None:
    template.push(instances=0, scheduling=OFFICE_HOURS)

    at_work = admin.say("pools", "plan", template.pool, "--at", f"{MONDAY} 09:00")
    before = admin.say("pools", "plan", template.pool, "--at", f"{MONDAY} 03:29Z")
    planned = admin.read("pools", "plan", template.pool, "--at", f"{MONDAY} 17:59:59")
    nonsense = admin.type("pools", "plan", template.pool, "--at", "tea time")
    nothing = admin.type("pools", "plan", template.pool, "--at", "")
    no_version = admin.type("pools", "pause", template.name, "-V", "v1")
    too_far = admin.type("pools", "plan", template.pool, "--at", "2100-01-01")

    assert facts(at_work)["target"] == "2, by schedule `* 9-17 * * 1-5` in Asia/Kolkata"
    assert facts(at_work)["next change"] == f"to 0 at Mon {MONDAY} 18:00 Asia/Kolkata (+05:30), in 9h"
    assert facts(at_work)["next pass"] == "create 2: below the target"
    assert facts(before)["target"] == "0, by the preset's instances, no schedule holds"
    assert facts(before)["next change"] == f"to 2 at Mon {MONDAY} 09:00 Asia/Kolkata (+05:30), in 1m"
    assert planned["pool"]["target"]["instances"] == 2
    assert (nonsense.returncode, nothing.returncode, no_version.returncode, too_far.returncode) == (2, 2, 2, 1)
    assert template.pools()["v1"]["counts"]["starting"] == 0


async def test_a_broken_template_is_stopped_at_its_limit_and_tried_again_by_hand(
    admin: Shell, template: Template, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    template.push(instances=3, startup=f"test -e {mirror} || {{ echo no route to mirror >&2; exit 7; }}")

    stopped = admin.type("pools", "watch", template.name, "--until-full")
    shown = admin.say("pools", "show", template.pool)
    mirror.touch()
    retried = admin.say("pools", "retry", template.pool)

    def is_healthy() -> bool:
        pool = template.pools()["v1"]
        return pool["status"] == "PRESET_STATUS_HEALTHY" and pool["counts"]["eligible"] >= 1

    await eventually(is_healthy, PATIENCE, what="the retry made it healthy")
    again = admin.say("pools", "retry", template.pool)

    assert stopped.returncode == 1
    assert stopped.stderr.startswith(f"error: {template.pool}: hard limited since ")
    assert "no route to mirror" in facts(shown)["blocked by"]
    assert facts(shown)["ends with"] == f"a new version, or `prebuilds pools retry {template.pool}`"
    assert retried == f"{template.pool}: one prebuild is tried\n"
    assert again == f"{template.pool}: not retried: it is not hard limited\n"


async def test_a_deprecated_template_drains_and_a_deleted_one_is_gone(admin: Shell, template: Template) -> None:
    template.push()
    template.fill()

    admin.say("templates", "deprecate", template.name, "use the other one")
    await eventually(lambda: not template.pools(), PATIENCE, what="its pool has drained")
    drained = admin.say("pools", "show", template.name)
    lifted = admin.say("templates", "deprecate", template.name, "--lift")
    lifted_again = admin.say("templates", "deprecate", template.name, "--lift")
    template.fill()
    unasked = admin.type("templates", "delete", template.name)
    deleted = admin.say("templates", "delete", template.name, "--yes")

    assert facts(drained)["target"] == "0, because the template is deprecated: use the other one"
    assert lifted == f"{template.name} is no longer deprecated\n"
    assert lifted_again == f"{template.name} was not deprecated\n"
    assert unasked.returncode == 2
    assert "Nobody can be asked here: say --yes" in unasked.stderr
    assert deleted == (
        f"{template.name} is deleted: 1 prebuild goes, 0 workspaces of people stay and cannot be started again\n"
    )
    assert admin.type("templates", "show", template.name).stderr.endswith("[NOT_FOUND]\n")
    await eventually(lambda: not template.prebuilds(), PATIENCE, what="its prebuild is gone")


@pytest.mark.parametrize("answer, code, remains", [("n", 1, True), ("y", 0, False)])
def test_on_a_terminal_one_is_asked_before_something_is_deleted(
    admin: Shell, template: Template, answer: str, code: int, remains: bool
) -> None:
    template.push(instances=0)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())

    done = admin.type("templates", "delete", template.name, stdin=theirs)
    os.close(ours)
    os.close(theirs)

    assert f"Delete {template.name}? 0 prebuilds go, 0 workspaces of people stay" in done.stderr
    assert done.returncode == code
    assert (admin.type("templates", "show", template.name).returncode == 0) is remains


async def test_a_watch_goes_on_where_the_server_was_cut_off(
    system: RunningSystem, admin: Shell, template: Template
) -> None:
    template.push()
    template.fill()
    watch = admin.begin("pools", "watch", template.pool, "-o", "json")
    stdout = watch.stdout
    assert stdout is not None

    async def is_paused() -> bool:
        # In a thread: who starts the server again lives in this loop.
        return (await asyncio.to_thread(admin.type, "pools", "pause", template.name)).returncode == 0

    try:
        first = json.loads(await asyncio.to_thread(stdout.readline))
        system.kill("reconciler")
        await eventually(is_paused, PATIENCE, what="the server is back")
        seen = json.loads(await asyncio.to_thread(stdout.readline))
    finally:
        watch.terminate()
        watch.communicate()

    assert first["synced"]
    assert [pool["counts"]["eligible"] for pool in first["pools"]] == [1]
    assert [block["kind"] for block in seen["pools"][0]["blocked_by"]] == ["BLOCK_KIND_PAUSED"]


def test_on_a_terminal_a_watch_is_a_table(admin: Shell, template: Template) -> None:
    template.push()
    ours, theirs = pty.openpty()
    watch = admin.begin("pools", "watch", template.name, "--until-full", stdout=theirs)
    os.close(theirs)

    shown = b""
    with closing(os.fdopen(ours, "rb", buffering=0)) as screen, suppress(OSError):
        while read := screen.read(4096):
            shown += read
    _, errors = watch.communicate()

    assert watch.returncode == 0, errors
    assert b"ELIGIBLE" in shown
    assert template.pool.encode() in shown
    assert b"full" in shown


@pytest.mark.parametrize(
    "words, said",
    [
        (("pools", "show", "no-such/p"), "[NOT_FOUND]\n"),
        (("pools", "show", "Not A Name/p"), "or an id\n"),
        (("pools", "pause"), "and --deployment\n"),
        (("pools", "pause", "a/b", "--template", "a"), "and --deployment\n"),
        (("pools", "show", str(UUID(int=1))), "[NOT_FOUND]\n"),
        (("pools", "reconcile", "a/b", "--everywhere"), "or say --everywhere\n"),
        (("templates", "show", "no-such"), "[NOT_FOUND]\n"),
        (("templates", "promote", "t", "v1", "--previous"), "or say --previous\n"),
        (("templates", "deprecate", "t"), "or --lift\n"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(admin: Shell, words: tuple[str, ...], said: str) -> None:
    done = admin.type(*words)

    assert done.returncode in {1, 2}
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_pool_is_named_by_its_preset_its_id_or_the_template_that_has_no_other(
    admin: Shell, template: Template
) -> None:
    template.push(instances=0)

    pool = admin.read("pools", "show", template.pool)
    pool_id, template_id = pool["id"], pool["template_id"]

    assert admin.read("pools", "show", pool_id)["id"] == pool_id
    assert admin.read("pools", "show", template_id)["id"] == pool_id
    assert admin.read("pools", "show", f"{template_id.upper()}/p")["id"] == pool_id
    assert admin.say("pools", "pause", template_id).startswith(f"{template.name} is paused")
    assert admin.say("pools", "resume", template_id).startswith(f"{template.name} is resumed")
    assert admin.read("pools", "show", template.name)["id"] == pool_id


def test_a_pass_by_hand_tells_what_it_did(admin: Shell, operator: Shell, template: Template) -> None:
    template.push(instances=0)

    assert admin.say("pools", "reconcile", template.pool).startswith("pools      1 seen")
    assert admin.type("pools", "reconcile", "--everywhere").returncode == 1
    assert operator.type("pools", "reconcile", "--everywhere").returncode == 0

"""The command line against a running system: what people read, what programs read, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import jwt
import pytest

from prebuilds.embedded.tour import write_client_file
from prebuilds.sdk.keys import SigningKey
from tests.support.shell import Shell
from tests.support.stack import RunningSystem


@pytest.fixture
def admin(system: RunningSystem, tmp_path: Path) -> Shell:
    write_client_file(system.stack)
    return Shell(tmp_path, PREBUILDS_CLIENT_FILE=str(system.stack.state.client_file))


@pytest.fixture
def alice(system: RunningSystem, admin: Shell, tmp_path: Path) -> Shell:
    return Shell(tmp_path, **{**admin.environment, "PREBUILDS_TOKEN_FILE": str(system.stack.keys.token_file("alice"))})


async def test_a_workspace_is_created_shown_listed_and_deleted(system: RunningSystem, alice: Shell) -> None:
    template = await system.warm_pool()

    created = alice.read("workspaces", "create", template, "--name", f"{template}-w")
    shown = alice.read("workspaces", "show", f"{template}-w")
    listed = alice.read("workspaces", "list")
    deleted = alice.type("workspaces", "delete", f"{template}-w", "--watch")

    assert created["outcome"] == "CREATION_OUTCOME_HIT"
    assert shown["id"] == created["workspace"]["id"]
    assert shown["id"] in {workspace["id"] for workspace in listed}
    assert deleted.returncode == 0, deleted.stderr
    assert shown["id"] not in {workspace["id"] for workspace in alice.read("workspaces", "list")}


async def test_a_watch_tells_programs_one_json_object_a_line(system: RunningSystem, alice: Shell) -> None:
    template = await system.warm_pool()

    done = alice.type("workspaces", "create", template, "--watch", "-o", "json")

    first, *states = (cast("dict[str, Any]", json.loads(line)) for line in done.stdout.splitlines())
    assert first["outcome"] == "CREATION_OUTCOME_HIT"
    assert states[-1]["workspace"]["ready"] is True
    assert states[-1]["claim"]["state"] == "CLAIM_STATE_ACKNOWLEDGED"


async def test_all_that_is_wrong_with_a_template_is_told_at_once(admin: Shell, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/template.yaml").write_text("name: Not A Name\nbackend: magic\ncolour: red\n")

    done = admin.type("templates", "push", "t")

    assert done.returncode == 1
    assert [field for field in ("name", "backend", "colour") if f"\n  {field}: " in done.stderr] == [
        *("name", "backend", "colour")
    ]
    assert admin.type("templates", "push", "nowhere").stderr == "error: nowhere has no template.yaml\n"


@pytest.mark.parametrize(
    "words, reason",
    [
        (("workspaces", "create", "no-such-template"), "NOT_FOUND"),
        (("templates", "push", "t"), "PERMISSION_DENIED"),
        (("pools", "list", "-O", "other"), "NOT_FOUND"),
    ],
)
def test_a_refusal_ends_with_1_and_its_reason(
    alice: Shell, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/template.yaml").write_text("name: t\nbackend: process\n")

    done = alice.type(*words)

    assert done.returncode == 1
    assert done.stderr.endswith(f"[{reason}]\n")
    assert not done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("workspaces", "create", "t", "--mode", "fast"),
        ("workspaces", "create", "t", "-p", "size"),
        ("tokens", "issue", "bob", "--key", "no-such-file"),
        ("pools", "list"),
    ],
)
def test_what_cannot_be_meant_ends_with_2(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = Shell(tmp_path).type(*words)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variable, what", [("PREBUILDS_TOKEN_FILE", "token file"), ("PREBUILDS_CLIENT_FILE", "client file")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, variable: str, what: str) -> None:
    missing = str(tmp_path / "missing")

    done = Shell(tmp_path, **{variable: missing}).type("pools", "list")

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the {what}")
    assert missing in done.stderr


def test_a_token_is_issued_for_the_issuer_and_audience_that_the_servers_environment_names(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(SigningKey.generate().pem())
    shell = Shell(tmp_path, PREBUILDS_TOKEN_ISSUER="here", PREBUILDS_TOKEN_AUDIENCE="there")

    token = shell.type("tokens", "issue", "bob", "--key", "key.pem").stdout.strip()

    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("here", "there", "bob")


async def test_an_issued_token_is_that_person(system: RunningSystem, admin: Shell) -> None:
    key = str(system.stack.keys.folder / "people.pem")
    issued = admin.type("tokens", "issue", "bob", "--key", key, "--role", "default=member")
    bob = Shell(admin.folder, **{**admin.environment, "PREBUILDS_TOKEN": issued.stdout.strip()})

    assert bob.type("pools", "list").returncode == 0
    assert bob.read("workspaces", "list") == []

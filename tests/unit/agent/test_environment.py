from __future__ import annotations

import pytest

from prebuilds.agent.environment import OWNERSHIP, parameter_variable, script_environment
from prebuilds.v1.agent_pb2 import Manifest

MANIFEST = Manifest(
    workspace_id="w1",
    workspace_name="one",
    owner_name="alice",
    generation=1,
    agent_name="main",
    template_name="python-dev",
    parameters={"size": "small", "dot-files.url": "https://example.com"},
    env={"PATH": "/opt/bin", "EDITOR": "vi", "PREBUILDS_OWNER": "mallory"},
)


def test_scripts_see_whom_they_run_for_and_what_was_asked_for() -> None:
    environment = script_environment({}, MANIFEST, "/agents/1")
    assert environment == {
        OWNERSHIP: "/agents/1",
        "PATH": "/opt/bin",
        "EDITOR": "vi",
        "PREBUILDS_WORKSPACE_ID": "w1",
        "PREBUILDS_WORKSPACE_NAME": "one",
        "PREBUILDS_OWNER": "alice",
        "PREBUILDS_GENERATION": "1",
        "PREBUILDS_IS_PREBUILD": "false",
        "PREBUILDS_AGENT_NAME": "main",
        "PREBUILDS_TEMPLATE": "python-dev",
        "PREBUILDS_PARAMETER_SIZE": "small",
        "PREBUILDS_PARAMETER_DOT_FILES_URL": "https://example.com",
    }


def test_of_the_agents_own_environment_scripts_see_an_allow_listed_part() -> None:
    own = {
        "PATH": "/bin",
        "HOME": "/home/dev",
        "LC_ALL": "C.UTF-8",
        "PREBUILDS_AGENT_TOKEN_FILE": "/run/token",
        "PREBUILDS_GATEWAY_URL": "http://gateway:1",
        "AWS_SECRET_ACCESS_KEY": "no",
        "LD_PRELOAD": "no",
    }
    environment = script_environment(own, Manifest(), "/agents/1")
    passed_on = {name: value for name, value in environment.items() if not name.startswith("PREBUILDS_")}
    assert passed_on == {"PATH": "/bin", "HOME": "/home/dev", "LC_ALL": "C.UTF-8"}
    assert "/run/token" not in environment.values()
    assert "http://gateway:1" not in environment.values()


@pytest.mark.parametrize("name, variable", [("size", "SIZE"), ("a-b.c d", "A_B_C_D"), ("grün2", "GR_N2")])
def test_a_parameter_becomes_a_variable(name: str, variable: str) -> None:
    assert parameter_variable(name) == f"PREBUILDS_PARAMETER_{variable}"

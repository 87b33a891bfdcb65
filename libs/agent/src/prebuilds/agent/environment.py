"""The environment of startup scripts: allow-listed of the agent's own, the manifest's, and whom the work is for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from prebuilds.v1.agent_pb2 import Manifest

_PASSED_ON: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "PWD"}
)
_PASSED_ON_PREFIX: Final = "LC_"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Z0-9]")

OWNERSHIP: Final = "PREBUILDS_WORK_OF"
"""Names the agent folder in everything that scripts start: by it the work of an owner is found again and ended."""


def script_environment(own: Mapping[str, str], manifest: Manifest, ownership: str) -> dict[str, str]:
    """The whole environment of a script; later ones win: the agent's allow-listed, the manifest's, `PREBUILDS_...`.

    Of `PREBUILDS_...` a script sees what is set here and nothing else, least of all where the token is.
    """
    environment = {name: value for name, value in own.items() if _is_passed_on(name)}
    environment.update((name, value) for name, value in manifest.env.items() if not name.startswith("PREBUILDS_"))
    environment.update(
        {
            OWNERSHIP: ownership,
            "PREBUILDS_WORKSPACE_ID": manifest.workspace_id,
            "PREBUILDS_WORKSPACE_NAME": manifest.workspace_name,
            "PREBUILDS_OWNER": manifest.owner_name,
            "PREBUILDS_GENERATION": str(manifest.generation),
            "PREBUILDS_IS_PREBUILD": "true" if manifest.is_prebuild else "false",
            "PREBUILDS_AGENT_NAME": manifest.agent_name,
            "PREBUILDS_TEMPLATE": manifest.template_name,
        }
    )
    environment.update((parameter_variable(name), value) for name, value in manifest.parameters.items())
    return environment


def parameter_variable(name: str) -> str:
    """The variable of a parameter: `PREBUILDS_PARAMETER_` and its name in capitals, other characters as `_`."""
    return "PREBUILDS_PARAMETER_" + _NOT_IN_NAMES.sub("_", name.upper())


def _is_passed_on(name: str) -> bool:
    return name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)

"""Settings of the agent program, by flag or by environment (prefix `PREBUILDS_`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, FilePath
from pydantic_settings import BaseSettings, SettingsConfigDict

from prebuilds.sdk.channels import Target

ENV_PREFIX: Final = "PREBUILDS_"


LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["json", "console"]


def _check_url(value: str) -> str:
    Target.of(value)
    return value


class AgentSettings(BaseSettings):
    """What the agent is told from outside; what it runs stands in its manifest."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_prog_name="prebuilds-agent",
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    agent_token_file: FilePath = Field(
        description="File with the agent's token, read anew at every call; the token itself is never an argument."
    )
    gateway_url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="Where the agent gateway is: host:port, http://host:port or https://host[:port]."
    )
    gateway_ca_file: FilePath | None = Field(
        None, description="PEM authorities of an https gateway. Default: those of the system."
    )
    agent_folder: Path = Field(
        Path(), description="Folder for agent.json and startup.log; made if missing. Default: the current one."
    )
    agent_stop_grace: float = Field(
        5.0, ge=0, le=300, description="Seconds between SIGTERM and SIGKILL for what the startup left running."
    )
    log_level: LogLevel = Field("info", description="Least severe level that is logged.")
    log_format: LogFormat = Field("json", description="json for machines, console for people.")

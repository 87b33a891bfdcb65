"""Settings of the provisioner daemon."""

from __future__ import annotations

import os
import platform
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from prebuilds.chassis.settings import ByteSize, Duration, ProcessSettings
from prebuilds.sdk.channels import Target


def _check_url(value: str) -> str:
    Target.of(value)
    return value


class DaemonSettings(ProcessSettings):
    """Everything that a provisioner daemon can be told."""

    provisioner_address: Annotated[str, AfterValidator(_check_url)] = Field(
        description="Where the provisioner service is: host:port, http://host:port or https://host[:port]."
    )
    provisioner_ca_file: Path | None = Field(
        None, description="PEM authorities of an https provisioner service. Default: those of the system."
    )
    provisioner_key: SecretStr = Field(description="The daemon's key, pbd_...; it carries the tags.")
    name: str = Field(
        "",
        max_length=63,
        description="Name among the daemons of this host. Default: daemon-<process id>.",
    )
    host_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="Id of this host, the same for all that share the state root. Default: the host's name.",
    )
    state_root: Path = Field(description="Folder that holds the workspaces of the process backend.")
    jobs_at_once: int = Field(4, ge=1, le=1000, description="How many jobs run at once.")
    drain_grace: Duration = Field(
        timedelta(seconds=30),
        ge=timedelta(0),
        le=timedelta(hours=1),
        description="How long running jobs may go on after the daemon was asked to stop; then their leases expire.",
    )
    agent_command: str = Field(
        "", description="Command that runs an agent, in the shell's quoting. Default: this release's agent."
    )
    agent_stop_grace: Duration = Field(
        timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(minutes=10),
        description="How long an agent may take to stop before it is killed.",
    )
    agent_log_size: ByteSize = Field(
        1024**2, ge=4096, le=1024**3, description="Size at which an agent's log begins anew; one older file is kept."
    )

    @property
    def own_name(self) -> str:
        """The name, given or made."""
        return self.name or f"daemon-{os.getpid()}"

    @property
    def own_host(self) -> str:
        """The host's id, given or made of its name."""
        return self.host_id or re.sub(r"[^A-Za-z0-9]+", "-", platform.node()).strip("-")[:64] or "local"

    suspend_at_exit: bool = Field(
        default=False,
        description="Whether agents end with the daemon and come back with it, as on a laptop; else they outlive it.",
    )

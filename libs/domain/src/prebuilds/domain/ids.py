"""Distinct types for the identifiers of distinct things, so that a checker refuses to mix them up."""

from __future__ import annotations

from typing import NewType
from uuid import UUID

OrganizationId = NewType("OrganizationId", UUID)
UserId = NewType("UserId", UUID)
GroupId = NewType("GroupId", UUID)
TemplateId = NewType("TemplateId", UUID)
VersionId = NewType("VersionId", UUID)
PresetId = NewType("PresetId", UUID)
WorkspaceId = NewType("WorkspaceId", UUID)
BuildId = NewType("BuildId", UUID)
JobId = NewType("JobId", UUID)
AgentId = NewType("AgentId", UUID)
GatewayId = NewType("GatewayId", UUID)
ConnectionId = NewType("ConnectionId", UUID)
ClaimId = NewType("ClaimId", UUID)
ProvisionerKeyId = NewType("ProvisionerKeyId", UUID)

SYSTEM_USER_ID = UserId(UUID("00000000-0000-7000-8000-000000000001"))
"""The system user `prebuilds`, owner of every unclaimed prebuild; the first migration inserts its row."""

SYSTEM_USER_NAME = "prebuilds"

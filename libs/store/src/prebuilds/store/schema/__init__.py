"""The tables of design section 5 as typed models; nothing here opens a connection."""

from __future__ import annotations

from prebuilds.store.schema.agents import Agent, Gateway
from prebuilds.store.schema.base import Base
from prebuilds.store.schema.ddl import IS_ELIGIBLE, SYSTEM_USER
from prebuilds.store.schema.jobs import Job, JobLog
from prebuilds.store.schema.people import (
    Group,
    GroupMember,
    Organization,
    OrganizationMember,
    ProvisionerKey,
    QuotaUsage,
    User,
)
from prebuilds.store.schema.pool import PoolEvent, PoolEventTotal, Prebuild, Waiting
from prebuilds.store.schema.records import AuditEvent, Notification, NotificationRead, Outbox, Request, Setting
from prebuilds.store.schema.templates import (
    Preset,
    PresetParameter,
    PresetSchedule,
    Template,
    TemplateParameter,
    TemplateVersion,
)
from prebuilds.store.schema.workspaces import Build, Claim, Workspace

__all__ = [
    "IS_ELIGIBLE",
    "SYSTEM_USER",
    "Agent",
    "AuditEvent",
    "Base",
    "Build",
    "Claim",
    "Gateway",
    "Group",
    "GroupMember",
    "Job",
    "JobLog",
    "Notification",
    "NotificationRead",
    "Organization",
    "OrganizationMember",
    "Outbox",
    "PoolEvent",
    "PoolEventTotal",
    "Prebuild",
    "Preset",
    "PresetParameter",
    "PresetSchedule",
    "ProvisionerKey",
    "QuotaUsage",
    "Request",
    "Setting",
    "Template",
    "TemplateParameter",
    "TemplateVersion",
    "User",
    "Waiting",
    "Workspace",
]

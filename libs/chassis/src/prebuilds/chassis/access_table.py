"""The access table: every method of `prebuilds.v1` and who may call it.

A row says who gets in at all; the comment of each method in `protos/` says what the method itself checks beyond that:
that the right holds in the organisation at hand, and for the thing at hand where it reaches only to one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prebuilds.chassis.policy import AccessTable, Action, Grant, Resource, agents, daemons, people, services, signed_in
from prebuilds.domain.principals import ServiceName

_CREATE, _READ, _UPDATE, _DELETE = Action.CREATE, Action.READ, Action.UPDATE, Action.DELETE
_LIFECYCLE: Final = (ServiceName.RECONCILER,)
"""The lifecycle executor starts and stops workspaces as the reconciler, never as their owners."""


def _service(name: str, rows: Mapping[str, Grant]) -> dict[str, Grant]:
    return {f"/prebuilds.v1.{name}/{method}": row for method, row in rows.items()}


ACCESS_TABLE: Final[AccessTable] = {
    **_service(
        "TemplateService",
        {
            "CreateTemplate": people((Resource.TEMPLATE, _CREATE)),
            "PushTemplateVersion": people((Resource.TEMPLATE, _UPDATE)),
            "PromoteTemplateVersion": people((Resource.TEMPLATE, _UPDATE)),
            "UpdateTemplate": people((Resource.TEMPLATE, _UPDATE)),
            "DeprecateTemplate": people((Resource.TEMPLATE, _UPDATE)),
            "DeleteTemplate": people((Resource.TEMPLATE, _DELETE)),
            "GetTemplate": people((Resource.TEMPLATE, _READ)),
            "ListTemplates": people((Resource.TEMPLATE, _READ)),
            "GetTemplateVersion": people((Resource.TEMPLATE, _READ)),
            "ListTemplateVersions": people((Resource.TEMPLATE, _READ)),
            "GetPreset": people((Resource.TEMPLATE, _READ)),
            "ListPresets": people((Resource.TEMPLATE, _READ)),
        },
    ),
    **_service(
        "PoolService",
        {
            "ListPools": people((Resource.POOL, _READ)),
            "GetPool": people((Resource.POOL, _READ)),
            "PlanPool": people((Resource.POOL, _READ)),
            "InvalidatePresets": people((Resource.POOL, _UPDATE)),
            "RetryPreset": people((Resource.POOL, _UPDATE)),
            "PauseReconciliation": people((Resource.POOL, _UPDATE)),
            "ResumeReconciliation": people((Resource.POOL, _UPDATE)),
            "ReconcileNow": people((Resource.POOL, _UPDATE)),
            "Nudge": services(ServiceName.CLAIMS),
            "WatchPools": people((Resource.POOL, _READ)),
        },
    ),
    **_service(
        "AdminService",
        {
            "CreateOrganization": people((Resource.ORGANIZATION, _CREATE)),
            "GetOrganization": people((Resource.ORGANIZATION, _READ)),
            "ListOrganizations": signed_in(),
            "UpdateOrganization": people((Resource.ORGANIZATION, _UPDATE)),
            "DeleteOrganization": people((Resource.ORGANIZATION, _DELETE)),
            "CreateMember": people((Resource.MEMBER, _CREATE)),
            "GetMember": people((Resource.MEMBER, _READ)),
            "ListMembers": people((Resource.ORGANIZATION, _READ)),
            "UpdateMember": people((Resource.MEMBER, _UPDATE)),
            "DeleteMember": people((Resource.MEMBER, _DELETE)),
            "CreateGroup": people((Resource.GROUP, _CREATE)),
            "GetGroup": people((Resource.GROUP, _READ)),
            "ListGroups": people((Resource.GROUP, _READ)),
            "UpdateGroup": people((Resource.GROUP, _UPDATE)),
            "DeleteGroup": people((Resource.GROUP, _DELETE)),
            "AddGroupMembers": people((Resource.GROUP, _UPDATE)),
            "RemoveGroupMembers": people((Resource.GROUP, _UPDATE)),
            "CreateUser": people((Resource.USER, _CREATE)),
            "GetUser": signed_in(),
            "ListUsers": people((Resource.USER, _READ)),
            "UpdateUser": signed_in(),
            "DeleteUser": people((Resource.USER, _DELETE)),
            "CreateProvisionerKey": people((Resource.PROVISIONER_KEY, _CREATE)),
            "GetProvisionerKey": people((Resource.PROVISIONER_KEY, _READ)),
            "ListProvisionerKeys": people((Resource.PROVISIONER_KEY, _READ)),
            "UpdateProvisionerKey": people((Resource.PROVISIONER_KEY, _UPDATE)),
            "RevokeProvisionerKey": people((Resource.PROVISIONER_KEY, _DELETE)),
            "ListAuditEvents": people((Resource.AUDIT_EVENT, _READ)),
            "ListDeadLetters": people((Resource.DEAD_LETTER, _READ)),
            "ReplayDeadLetters": people((Resource.DEAD_LETTER, _UPDATE)),
        },
    ),
    **_service(
        "WorkspaceService",
        {
            "CreateWorkspace": people((Resource.WORKSPACE, _CREATE)),
            "BatchCreateWorkspaces": people((Resource.WORKSPACE, _CREATE)),
            "GetWorkspace": people((Resource.WORKSPACE, _READ)),
            "ListWorkspaces": people((Resource.WORKSPACE, _READ)),
            "StartWorkspace": people((Resource.WORKSPACE, _UPDATE), services=_LIFECYCLE),
            "StopWorkspace": people((Resource.WORKSPACE, _UPDATE), services=_LIFECYCLE),
            "DeleteWorkspace": people(
                (Resource.WORKSPACE, _DELETE), (Resource.PREBUILT_WORKSPACE, _DELETE), services=_LIFECYCLE
            ),
            "UpdateWorkspace": people((Resource.WORKSPACE, _UPDATE), services=_LIFECYCLE),
            "CancelBuild": people((Resource.WORKSPACE, _UPDATE), (Resource.PREBUILT_WORKSPACE, _UPDATE)),
            "WatchWorkspace": people((Resource.WORKSPACE, _READ)),
            "ListBuilds": people((Resource.WORKSPACE, _READ)),
            "WatchBuildLogs": people((Resource.WORKSPACE, _READ)),
        },
    ),
    **_service(
        "ClaimService",
        {
            "GetClaim": people((Resource.CLAIM, _READ)),
            "ListClaims": people((Resource.CLAIM, _READ)),
            "ListWaiting": people((Resource.WAITING, _READ)),
        },
    ),
    **_service(
        "NotificationService",
        {
            "ListNotifications": people((Resource.NOTIFICATION, _READ)),
            "MarkRead": people((Resource.NOTIFICATION, _UPDATE)),
        },
    ),
    **_service(
        "AgentGatewayService",
        {"GetManifest": agents(), "ReportState": agents(), "StreamReinit": agents()},
    ),
    **_service(
        "ProvisionerService",
        {
            "AcquireJob": daemons(),
            "UpdateJob": daemons(),
            "CompleteJob": daemons(),
            "FailJob": daemons(),
            "GetJob": people((Resource.JOB, _READ)),
            "ListJobs": people((Resource.JOB, _READ)),
            "CancelJob": people((Resource.JOB, _UPDATE), (Resource.PREBUILT_WORKSPACE, _UPDATE)),
        },
    ),
}
"""Full method name -> row; complete by test, and a server does not start with a method that is not in it."""

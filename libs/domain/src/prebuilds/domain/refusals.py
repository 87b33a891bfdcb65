"""An expected no, with its reason: domain code raises `Refusal`, the edge of a service turns it into a gRPC status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """The canonical gRPC status codes that a refusal can have."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """Everything a caller may have to tell apart; the spelling of `ErrorInfo.reason` and of the proto enum `Reason`."""

    INVALID_FIELDS = "INVALID_FIELDS"
    INVALID_MANIFEST = "INVALID_MANIFEST"
    INVALID_ARCHIVE = "INVALID_ARCHIVE"
    ARCHIVE_TOO_LARGE = "ARCHIVE_TOO_LARGE"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"  # noqa: S105 - a reason's name, no secret
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    CREDENTIALS_INVALID = "CREDENTIALS_INVALID"
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105 - a reason's name, no secret
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    NAME_TAKEN = "NAME_TAKEN"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    SYSTEM_OWNED = "SYSTEM_OWNED"
    ORGANIZATION_IN_USE = "ORGANIZATION_IN_USE"
    LAST_OWNER = "LAST_OWNER"
    TEMPLATE_DELETED = "TEMPLATE_DELETED"
    TEMPLATE_DEPRECATED = "TEMPLATE_DEPRECATED"
    NO_ACTIVE_VERSION = "NO_ACTIVE_VERSION"
    BUILD_UNFINISHED = "BUILD_UNFINISHED"
    NO_LONGER_DUE = "NO_LONGER_DUE"
    BUILD_FAILED = "BUILD_FAILED"
    BUILD_CANCELED = "BUILD_CANCELED"
    STARTUP_FAILED = "STARTUP_FAILED"
    OVER_QUOTA = "OVER_QUOTA"
    REQUESTED_COLD = "REQUESTED_COLD"
    NO_MATCHING_PRESET = "NO_MATCHING_PRESET"
    NO_POOL = "NO_POOL"
    VALIDATION_FAILED = "VALIDATION_FAILED"
    HARD_LIMITED = "HARD_LIMITED"
    PAUSED = "PAUSED"
    ROTATING = "ROTATING"
    NONE_READY = "NONE_READY"
    POOL_EMPTY = "POOL_EMPTY"
    WAIT_TIMEOUT = "WAIT_TIMEOUT"
    NOT_A_PREBUILD = "NOT_A_PREBUILD"
    STALE_INCARNATION = "STALE_INCARNATION"
    STREAM_REPLACED = "STREAM_REPLACED"
    LEASE_LOST = "LEASE_LOST"
    JOB_FINISHED = "JOB_FINISHED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    TRANSACTION_CONFLICT = "TRANSACTION_CONFLICT"
    METHOD_NOT_BUILT = "METHOD_NOT_BUILT"
    DEPENDENCY_UNAVAILABLE = "DEPENDENCY_UNAVAILABLE"
    DRAINING = "DRAINING"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


CODES: Final[Mapping[Reason, Code]] = {
    Reason.INVALID_FIELDS: Code.INVALID_ARGUMENT,
    Reason.INVALID_MANIFEST: Code.INVALID_ARGUMENT,
    Reason.INVALID_ARCHIVE: Code.INVALID_ARGUMENT,
    Reason.ARCHIVE_TOO_LARGE: Code.INVALID_ARGUMENT,
    Reason.PAGE_TOKEN_INVALID: Code.INVALID_ARGUMENT,
    Reason.CREDENTIALS_MISSING: Code.UNAUTHENTICATED,
    Reason.CREDENTIALS_INVALID: Code.UNAUTHENTICATED,
    Reason.TOKEN_REVOKED: Code.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: Code.PERMISSION_DENIED,
    Reason.NOT_FOUND: Code.NOT_FOUND,
    Reason.ALREADY_EXISTS: Code.ALREADY_EXISTS,
    Reason.NAME_TAKEN: Code.ALREADY_EXISTS,
    Reason.REQUEST_ID_REUSED: Code.ALREADY_EXISTS,
    Reason.SYSTEM_OWNED: Code.FAILED_PRECONDITION,
    Reason.ORGANIZATION_IN_USE: Code.FAILED_PRECONDITION,
    Reason.LAST_OWNER: Code.FAILED_PRECONDITION,
    Reason.TEMPLATE_DELETED: Code.FAILED_PRECONDITION,
    Reason.TEMPLATE_DEPRECATED: Code.FAILED_PRECONDITION,
    Reason.NO_ACTIVE_VERSION: Code.FAILED_PRECONDITION,
    Reason.BUILD_UNFINISHED: Code.FAILED_PRECONDITION,
    Reason.NO_LONGER_DUE: Code.FAILED_PRECONDITION,
    Reason.BUILD_FAILED: Code.FAILED_PRECONDITION,
    Reason.BUILD_CANCELED: Code.FAILED_PRECONDITION,
    Reason.STARTUP_FAILED: Code.FAILED_PRECONDITION,
    Reason.OVER_QUOTA: Code.RESOURCE_EXHAUSTED,
    Reason.REQUESTED_COLD: Code.RESOURCE_EXHAUSTED,
    Reason.NO_MATCHING_PRESET: Code.RESOURCE_EXHAUSTED,
    Reason.NO_POOL: Code.RESOURCE_EXHAUSTED,
    Reason.VALIDATION_FAILED: Code.RESOURCE_EXHAUSTED,
    Reason.HARD_LIMITED: Code.RESOURCE_EXHAUSTED,
    Reason.PAUSED: Code.RESOURCE_EXHAUSTED,
    Reason.ROTATING: Code.RESOURCE_EXHAUSTED,
    Reason.NONE_READY: Code.RESOURCE_EXHAUSTED,
    Reason.POOL_EMPTY: Code.RESOURCE_EXHAUSTED,
    Reason.WAIT_TIMEOUT: Code.RESOURCE_EXHAUSTED,
    Reason.NOT_A_PREBUILD: Code.FAILED_PRECONDITION,
    Reason.STALE_INCARNATION: Code.ABORTED,
    Reason.STREAM_REPLACED: Code.UNAVAILABLE,
    Reason.LEASE_LOST: Code.ABORTED,
    Reason.JOB_FINISHED: Code.FAILED_PRECONDITION,
    Reason.LIMIT_EXCEEDED: Code.RESOURCE_EXHAUSTED,
    Reason.TRANSACTION_CONFLICT: Code.ABORTED,
    Reason.METHOD_NOT_BUILT: Code.UNIMPLEMENTED,
    Reason.DEPENDENCY_UNAVAILABLE: Code.UNAVAILABLE,
    Reason.DRAINING: Code.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
    Reason.INTERNAL: Code.INTERNAL,
}
"""The one table from reason to status; complete by test."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong, by its path in the request or manifest (`presets[0].parameters.size`)."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class MissingResource:
    """What was asked for and does not exist for this caller."""

    kind: str
    name: str


class Refusal(Exception):  # noqa: N818 - an expected answer, no error of the system
    """An expected no: nothing was changed, and the caller is told why."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        resource: MissingResource | None = None,
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`message` is for people and holds no secret; the rest becomes `google.rpc` details."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = violations
        self.resource = resource
        self.retry_after = retry_after
        self.metadata: Mapping[str, str] = metadata or {}

    @property
    def code(self) -> Code:
        """The canonical status of this refusal's reason."""
        return CODES[self.reason]

    @classmethod
    def invalid(cls, *violations: Violation) -> Refusal:
        """Bad input, all of it at once."""
        fields = ", ".join(violation.field for violation in violations)
        return cls(Reason.INVALID_FIELDS, f"invalid: {fields}", violations=violations)

    @classmethod
    def not_found(cls, kind: str, name: str) -> Refusal:
        """No such thing for this caller; also the answer for another organisation's things (design section 8)."""
        return cls(Reason.NOT_FOUND, f"{kind} {name!r} not found", resource=MissingResource(kind, name))

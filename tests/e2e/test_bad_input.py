"""Nothing that a caller can write into a request is a fault of the server's (invariant 12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from prebuilds.embedded.keys import ORGANIZATION
from prebuilds.sdk.channels import open_channel
from prebuilds.sdk.errors import error_of
from prebuilds.v1 import (
    admin_service_pb2,
    claim_service_pb2,
    notification_service_pb2,
    pool_service_pb2,
    template_service_pb2,
    workspace_service_pb2,
)
from tests.support.stack import RunningSystem

SERVERS: Final = {
    "reconciler": (template_service_pb2, pool_service_pb2, admin_service_pb2),
    "claims": (workspace_service_pb2, claim_service_pb2, notification_service_pb2),
}
HOSTILE: Final = (
    "\0",
    "a\0b",
    "9" * 5000,
    "-" * 200_000,
    "\u0663 8 * * *",
    "\U0001f4a5\u202e",
    "' OR 1=1 --",
    "%(id)s {} %s",
    "../../etc/passwd",
    "name=\0",
    "status=9",
    "W10=",
    str(uuid4()),
    str(uuid4()).upper(),
)
FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


def _methods(server: str) -> Iterator[tuple[ServiceDescriptor, MethodDescriptor]]:
    for module in cast("Any", SERVERS[server]):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                if not method.server_streaming:
                    yield service, method


def _requests(method: MethodDescriptor) -> Iterator[tuple[str, Message]]:
    """A request for each text field, at the top or one message down, and each hostile text in it."""
    kind = cast("type[Any]", GetMessageClass(method.input_type))
    for field in method.input_type.fields:
        for hostile in HOSTILE:
            request = kind()
            if "organization" in method.input_type.fields_by_name and _is_text(
                method.input_type.fields_by_name["organization"]
            ):
                request.organization = ORGANIZATION
            if _fill(request, field, hostile):
                yield f"{field.name}={hostile[:20]!r}", request


def _fill(request: Any, field: FieldDescriptor, hostile: str) -> bool:
    if _is_map(field):
        entry = cast("Any", field.message_type)
        if not _is_text(entry.fields_by_name["value"]):
            return False
        getattr(request, field.name)[hostile] = hostile
        return True
    if _is_text(field):
        if field.is_repeated:
            getattr(request, field.name).append(hostile)
        else:
            setattr(request, field.name, hostile)
        return True
    if field.message_type is None or field.is_repeated:
        return False
    inner = getattr(request, field.name)
    filled = [
        each
        for each in field.message_type.fields
        if _is_text(each) and not each.is_repeated and setattr(inner, each.name, hostile) is None
    ]
    return bool(filled)


def _is_text(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@pytest.mark.parametrize("server", SERVERS)
async def test_no_text_in_any_request_is_a_fault_of_the_server(system: RunningSystem, server: str) -> None:
    token = system.stack.keys.issue("hostile", operator=True)
    faults: list[str] = []
    asked = 0
    async with open_channel(system.stack.grpc[server], token=token) as channel:
        for service, method in _methods(server):
            call: Any = channel.unary_unary(
                f"/{service.full_name}/{method.name}",
                request_serializer=cast("Any", Message).SerializeToString,
                response_deserializer=cast("Any", GetMessageClass(method.output_type)).FromString,
            )
            for what, request in _requests(method):
                asked += 1
                try:
                    await call(request, timeout=10)
                except grpc.aio.AioRpcError as failure:
                    if failure.code() in FAULTS:
                        faults.append(f"{method.name} {what}: {error_of(failure)}")
    assert not faults, "\n".join(faults)
    assert asked > 100

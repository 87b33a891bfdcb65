"""`ProvisionerService`: what provisioner daemons call."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeAlias, TypeVar

import grpc.aio

from prebuilds.chassis.caller import current_caller
from prebuilds.provisioner.acquiring import Acquisitions
from prebuilds.provisioner.reporting import Reports
from prebuilds.provisioner.rpc import messages, requests
from prebuilds.v1 import provisioner_service_pb2 as pb
from prebuilds.v1.provisioner_service_pb2_grpc import ProvisionerServiceServicer

Request = TypeVar("Request")
Response = TypeVar("Response")
Context: TypeAlias = grpc.aio.ServicerContext[Request, Awaitable[Response]]


class ProvisionerServicer(ProvisionerServiceServicer):
    """Reads requests, asks the use cases, answers."""

    def __init__(self, acquisitions: Acquisitions, reports: Reports) -> None:
        """The use cases."""
        self._acquisitions = acquisitions
        self._reports = reports

    async def AcquireJob(
        self, request: pb.AcquireJobRequest, context: Context[pb.AcquireJobRequest, pb.AcquireJobResponse]
    ) -> pb.AcquireJobResponse:
        """Hand out the next job, or nothing in the end."""
        daemon, max_wait = requests.read_acquire(request)

        acquired = await self._acquisitions.acquire(current_caller().daemon(), daemon, max_wait)

        return pb.AcquireJobResponse(job=None if acquired is None else messages.acquired_job(acquired))

    async def UpdateJob(
        self, request: pb.UpdateJobRequest, context: Context[pb.UpdateJobRequest, pb.UpdateJobResponse]
    ) -> pb.UpdateJobResponse:
        """Renew a lease and take log lines."""
        held, logs = requests.read_update(request)

        state = await self._reports.update(current_caller().daemon(), held, logs)

        return messages.lease_state(state)

    async def CompleteJob(
        self, request: pb.CompleteJobRequest, context: Context[pb.CompleteJobRequest, pb.CompleteJobResponse]
    ) -> pb.CompleteJobResponse:
        """End a job well."""
        held, completion = requests.read_complete(request)

        job = await self._reports.complete(current_caller().daemon(), held, completion)

        return pb.CompleteJobResponse(job=messages.job(job))

    async def FailJob(
        self, request: pb.FailJobRequest, context: Context[pb.FailJobRequest, pb.FailJobResponse]
    ) -> pb.FailJobResponse:
        """End a job badly."""
        held, failure = requests.read_fail(request)

        job = await self._reports.fail(current_caller().daemon(), held, failure)

        return pb.FailJobResponse(job=messages.job(job))

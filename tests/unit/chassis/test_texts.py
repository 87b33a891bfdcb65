from __future__ import annotations

import pytest
from google.protobuf.message import Message

from prebuilds.chassis.texts import fields_with_nul
from prebuilds.v1 import job_pb2, provisioner_service_pb2, template_pb2, workspace_service_pb2


@pytest.mark.parametrize(
    "message, paths",
    [
        (workspace_service_pb2.CreateWorkspaceRequest(organization="a\0"), ["organization"]),
        (workspace_service_pb2.CreateWorkspaceRequest(parameters={"size": "s\0"}), ["parameters['size']"]),
        (workspace_service_pb2.CreateWorkspaceRequest(parameters={"si\0ze": "s"}), ["parameters['si?ze']"]),
        (
            workspace_service_pb2.BatchCreateWorkspacesRequest(
                requests=[
                    workspace_service_pb2.CreateWorkspaceRequest(name="fine"),
                    workspace_service_pb2.CreateWorkspaceRequest(name="\0", template="\0"),
                ]
            ),
            ["requests[1].template", "requests[1].name"],
        ),
        (template_pb2.TemplateVersion(agent_names=["main", "\0"]), ["agent_names[1]"]),
        (
            provisioner_service_pb2.UpdateJobRequest(logs=[job_pb2.JobLog(sequence=1, text="a\0b")]),
            ["logs[0].text"],
        ),
        (provisioner_service_pb2.CompleteJobRequest(provisioner_state=b"\0"), []),
        (job_pb2.JobLog(sequence=256), []),
    ],
)
def test_texts_with_nul_are_found_wherever_they_are(message: Message, paths: list[str]) -> None:
    assert list(fields_with_nul(message)) == paths

from __future__ import annotations

import json

import grpc.aio
import pytest

from prebuilds.sdk.channels import Target, Tls, outfit, service_config
from prebuilds.v1 import pool_service_pb2, workspace_service_pb2


@pytest.mark.parametrize(
    "address, host_and_port, is_secure",
    [
        ("localhost:8080", "localhost:8080", False),
        ("[::1]:8080", "[::1]:8080", False),
        ("http://gateway:80", "gateway:80", False),
        ("https://gateway.example.com", "gateway.example.com:443", True),
        ("https://gateway.example.com:8443/", "gateway.example.com:8443", True),
        ("https://[::1]:8443", "[::1]:8443", True),
    ],
)
def test_an_address_says_where_and_whether_by_tls(address: str, host_and_port: str, is_secure: bool) -> None:
    target = Target.of(address)
    assert (target.host_and_port, target.is_secure) == (host_and_port, is_secure)


def test_host_and_port_use_tls_where_it_is_set_up() -> None:
    assert Target.of("gateway:443", Tls()).is_secure


@pytest.mark.parametrize(
    "address",
    ["", "gateway", "http://gateway", "ftp://gateway:21", "https://gateway/path", "https://me:secret@gateway", "a:b"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"address|[Pp]ort"):
        Target.of(address)


def test_tls_for_a_plain_address_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="no TLS"):
        Target.of("http://gateway:80", Tls())


def test_grpc_repeats_what_only_reads() -> None:
    services = [
        pool_service_pb2.DESCRIPTOR.services_by_name["PoolService"],
        workspace_service_pb2.DESCRIPTOR.services_by_name["WorkspaceService"],
    ]
    config = json.loads(service_config(services))["methodConfig"][0]
    methods = {name["method"] for name in config["name"]}
    assert {"ListPools", "GetPool", "PlanPool", "GetWorkspace", "ListBuilds"} <= methods
    assert not {"CreateWorkspace", "WatchWorkspace", "Nudge", "DeleteWorkspace"} & methods
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_a_token_that_changes_is_asked_for_at_every_call() -> None:
    tokens = iter(["first", "second"])
    seen = [outfit(grpc.aio.Metadata(), lambda: next(tokens))["authorization"] for _ in range(2)]
    assert seen == ["Bearer first", "Bearer second"]


def test_a_call_that_brings_its_own_authorization_keeps_it() -> None:
    metadata = outfit(grpc.aio.Metadata(("authorization", "Bearer mine")), "other")
    assert metadata.get_all("authorization") == ["Bearer mine"]

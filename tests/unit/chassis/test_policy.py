"""Roles, scopes, and the table of methods: deny by default."""

from __future__ import annotations

import importlib
import pkgutil
from uuid import uuid4

import pytest
from google.protobuf import descriptor

import prebuilds.v1
from prebuilds.chassis.access_table import ACCESS_TABLE
from prebuilds.chassis.caller import Caller, Scope
from prebuilds.chassis.policy import ROLE_TABLE, Action, Extent, Grant, Resource, extent, people, rows_missing
from prebuilds.domain.ids import AgentId, OrganizationId, ProvisionerKeyId, UserId
from prebuilds.domain.principals import Agent, Daemon, Person, Principal, Role, Service, ServiceName
from prebuilds.domain.refusals import Reason, Refusal

HERE = OrganizationId(uuid4())
ELSEWHERE = OrganizationId(uuid4())
SOMEBODY_ELSE = UserId(uuid4())
AGENT = Agent(AgentId(uuid4()), "pba_x")
DAEMON = Daemon(ProvisionerKeyId(uuid4()), None, {})


def person(*roles: Role, operator: bool = False) -> Person:
    return Person(UserId(uuid4()), "p", {HERE: frozenset(roles)} if roles else {}, operator)


def methods_of_the_api() -> set[str]:
    found: set[str] = set()
    for module in pkgutil.iter_modules(prebuilds.v1.__path__):
        if module.name.endswith("_pb2"):
            file: descriptor.FileDescriptor = importlib.import_module(f"prebuilds.v1.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return found


def test_every_method_of_the_api_has_a_row_and_every_row_a_method() -> None:
    methods = methods_of_the_api()
    assert len(methods) > 70, "the walk has missed services"
    assert set(ACCESS_TABLE) == methods


def test_no_row_is_empty() -> None:
    assert [name for name, row in ACCESS_TABLE.items() if row == Grant()] == []


def test_missing_rows_are_all_named() -> None:
    assert rows_missing(["/a/C", "/a/B", "/a/A"], {"/a/B": people()}) == ["/a/A", "/a/C"]


def test_every_role_has_a_table() -> None:
    assert set(ROLE_TABLE) == set(Role)


@pytest.mark.parametrize(
    "principal", [person(Role.OWNER), person(operator=True), AGENT, DAEMON, Service(ServiceName.CLAIMS)]
)
def test_an_empty_row_admits_nobody(principal: Principal) -> None:
    assert not Grant().admits(principal)


@pytest.mark.parametrize(
    "role, resource, action, expected",
    [
        (Role.MEMBER, Resource.WORKSPACE, Action.CREATE, Extent.OWN),
        (Role.MEMBER, Resource.WORKSPACE, Action.DELETE, Extent.OWN),
        (Role.MEMBER, Resource.TEMPLATE, Action.READ, Extent.ANY),
        (Role.MEMBER, Resource.TEMPLATE, Action.UPDATE, None),
        (Role.MEMBER, Resource.POOL, Action.READ, Extent.ANY),
        (Role.MEMBER, Resource.CLAIM, Action.READ, Extent.OWN),
        (Role.MEMBER, Resource.AUDIT_EVENT, Action.READ, None),
        (Role.MEMBER, Resource.PREBUILT_WORKSPACE, Action.DELETE, None),
        (Role.TEMPLATE_ADMIN, Resource.TEMPLATE, Action.DELETE, Extent.ANY),
        (Role.TEMPLATE_ADMIN, Resource.POOL, Action.UPDATE, Extent.ANY),
        (Role.TEMPLATE_ADMIN, Resource.WORKSPACE, Action.READ, Extent.ANY),
        (Role.TEMPLATE_ADMIN, Resource.WORKSPACE, Action.DELETE, Extent.OWN),
        (Role.TEMPLATE_ADMIN, Resource.PREBUILT_WORKSPACE, Action.DELETE, Extent.ANY),
        (Role.TEMPLATE_ADMIN, Resource.MEMBER, Action.CREATE, None),
        (Role.AUDITOR, Resource.AUDIT_EVENT, Action.READ, Extent.ANY),
        (Role.AUDITOR, Resource.WORKSPACE, Action.READ, Extent.ANY),
        (Role.AUDITOR, Resource.WORKSPACE, Action.DELETE, Extent.OWN),
        (Role.AUDITOR, Resource.TEMPLATE, Action.UPDATE, None),
        (Role.OWNER, Resource.WORKSPACE, Action.DELETE, Extent.ANY),
        (Role.OWNER, Resource.PROVISIONER_KEY, Action.CREATE, Extent.ANY),
        (Role.OWNER, Resource.ORGANIZATION, Action.UPDATE, Extent.ANY),
        (Role.OWNER, Resource.ORGANIZATION, Action.DELETE, None),
        (Role.OWNER, Resource.USER, Action.DELETE, None),
        (Role.OWNER, Resource.NOTIFICATION, Action.READ, Extent.OWN),
    ],
)
def test_what_a_role_may_do(role: Role, resource: Resource, action: Action, expected: Extent | None) -> None:
    assert extent(person(role), HERE, (resource, action)) == expected
    assert extent(person(role), ELSEWHERE, (resource, action)) is None


def test_roles_add_up_to_the_widest_right() -> None:
    both = person(Role.MEMBER, Role.TEMPLATE_ADMIN)
    assert extent(both, HERE, (Resource.WORKSPACE, Action.READ)) is Extent.ANY


def test_an_operator_may_do_everything_everywhere() -> None:
    operator = person(operator=True)
    assert all(extent(operator, ELSEWHERE, (r, a)) is Extent.ANY for r in Resource for a in Action)
    assert Caller(operator).organizations_for(Resource.DEAD_LETTER, Action.READ) == Scope(everywhere=True)


@pytest.mark.parametrize("name", sorted(ACCESS_TABLE))
def test_agents_and_daemons_call_nothing_of_peoples_and_people_nothing_of_theirs(name: str) -> None:
    row = ACCESS_TABLE[name]
    kinds = [bool(row.people or row.everybody), row.agents, row.daemons]
    assert sum(kinds) <= 1
    assert not (row.agents and row.services)


def test_a_person_without_any_organisation_gets_in_nowhere_but_to_see_itself() -> None:
    open_to_all = {name for name, row in ACCESS_TABLE.items() if row.admits(person())}
    assert open_to_all == {
        "/prebuilds.v1.AdminService/ListOrganizations",
        "/prebuilds.v1.AdminService/GetUser",
        "/prebuilds.v1.AdminService/UpdateUser",
    }


def test_only_the_claims_service_may_nudge() -> None:
    row = ACCESS_TABLE["/prebuilds.v1.PoolService/Nudge"]
    assert [name for name in ServiceName if row.admits(Service(name))] == [ServiceName.CLAIMS]
    assert not row.admits(person(operator=True))


def test_a_query_is_scoped_by_organisation_and_by_own() -> None:
    other = OrganizationId(uuid4())
    who = Person(UserId(uuid4()), "p", {HERE: frozenset({Role.MEMBER}), other: frozenset({Role.OWNER})})
    scope = Caller(who).organizations_for(Resource.WORKSPACE, Action.READ)
    assert scope == Scope(everywhere=False, full=frozenset({other}), own=frozenset({HERE}), user_id=who.user_id)
    assert scope.covers(other, SOMEBODY_ELSE)
    assert scope.covers(HERE, who.user_id)
    assert not scope.covers(HERE, SOMEBODY_ELSE)
    assert not scope.covers(HERE)
    assert not scope.covers(ELSEWHERE, who.user_id)


def refused(caller: Caller, organization: OrganizationId, owner: UserId | None) -> Reason | None:
    try:
        caller.require(organization, Resource.WORKSPACE, Action.DELETE, owner_id=owner)
    except Refusal as refusal:
        return refusal.reason
    return None


def test_another_organisation_does_not_exist_while_ones_own_denies() -> None:
    who = person(Role.MEMBER)
    assert refused(Caller(who), ELSEWHERE, who.user_id) is Reason.NOT_FOUND
    assert refused(Caller(who), HERE, SOMEBODY_ELSE) is Reason.PERMISSION_DENIED
    assert refused(Caller(who), HERE, None) is Reason.PERMISSION_DENIED
    assert refused(Caller(who), HERE, who.user_id) is None


def test_a_service_that_was_let_in_is_not_bound_to_organisations() -> None:
    caller = Caller(Service(ServiceName.RECONCILER))
    assert refused(caller, HERE, SOMEBODY_ELSE) is None
    assert caller.organizations_for(Resource.WORKSPACE, Action.READ).everywhere


@pytest.mark.parametrize("principal", [AGENT, DAEMON])
def test_agents_and_daemons_have_no_rights_of_people(principal: Principal) -> None:
    caller = Caller(principal)
    assert refused(caller, HERE, SOMEBODY_ELSE) is Reason.PERMISSION_DENIED
    with pytest.raises(Refusal):
        caller.organizations_for(Resource.WORKSPACE, Action.READ)
    with pytest.raises(Refusal):
        caller.person()


def test_each_kind_of_caller_has_a_key_of_its_own() -> None:
    keys = {Caller(p).key.partition(":")[0] for p in (person(), AGENT, DAEMON, Service(ServiceName.CLAIMS))}
    assert keys == {"person", "agent", "daemon", "service"}

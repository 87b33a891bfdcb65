"""AdminService: its methods stand by subject in the modules beside this one."""

from __future__ import annotations

from dataclasses import dataclass

from prebuilds.reconciler.administering import Administering
from prebuilds.reconciler.auditing import Auditing
from prebuilds.reconciler.groups import Groups
from prebuilds.reconciler.keys import Keys
from prebuilds.reconciler.members import Members
from prebuilds.reconciler.rpc.admin_groups import GroupMethods
from prebuilds.reconciler.rpc.admin_keys import KeyMethods
from prebuilds.reconciler.rpc.admin_organizations import OrganizationMethods
from prebuilds.reconciler.rpc.admin_records import RecordMethods
from prebuilds.reconciler.rpc.admin_users import UserMethods
from prebuilds.reconciler.users import Users
from prebuilds.store.database import Database


@dataclass(frozen=True, slots=True)
class AdminUseCases:
    """What AdminService reads requests for."""

    administering: Administering
    members: Members
    groups: Groups
    users: Users
    keys: Keys
    auditing: Auditing

    @classmethod
    def of(cls, database: Database) -> AdminUseCases:
        """All of them, in this database."""
        return cls(
            Administering(database),
            Members(database),
            Groups(database),
            Users(database),
            Keys(database),
            Auditing(database),
        )


class AdminServicer(OrganizationMethods, GroupMethods, UserMethods, KeyMethods, RecordMethods):
    """Organisations, their people and their keys."""

    def __init__(self, use_cases: AdminUseCases) -> None:
        """Reads requests for these."""
        self._administering = use_cases.administering
        self._members = use_cases.members
        self._groups = use_cases.groups
        self._users = use_cases.users
        self._keys = use_cases.keys
        self._auditing = use_cases.auditing

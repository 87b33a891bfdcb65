"""AdminService: its methods stand by subject in the modules beside this one."""

from __future__ import annotations

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


class AdminServicer(OrganizationMethods, GroupMethods, UserMethods, KeyMethods, RecordMethods):
    """Organisations, their people and their keys."""

    def __init__(
        self,
        *,
        administering: Administering,
        members: Members,
        groups: Groups,
        users: Users,
        keys: Keys,
        auditing: Auditing,
    ) -> None:
        """Reads requests for these."""
        self._administering = administering
        self._members = members
        self._groups = groups
        self._users = users
        self._keys = keys
        self._auditing = auditing

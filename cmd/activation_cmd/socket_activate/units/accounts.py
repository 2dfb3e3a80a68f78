"""The users and groups that units name: User=, Group= and WorkingDirectory=~ of systemd.exec(5), SocketUser=."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import ServiceUnit

NOBODY: Final = 65534
"""The user ``nobody``, who has no home, whatever /etc/passwd says."""


def find_user(text: str) -> pwd.struct_passwd:
    """The user of that name or number.

    Raises:
        ValueError: there is no such user.
    """
    try:
        return pwd.getpwuid(int(text)) if _is_id(text) else pwd.getpwnam(text)
    except KeyError:
        raise ValueError("there is no such user; expected a name or a number of /etc/passwd") from None


def find_group(text: str) -> grp.struct_group:
    """The group of that name or number.

    Raises:
        ValueError: there is no such group.
    """
    try:
        return grp.getgrgid(int(text)) if _is_id(text) else grp.getgrnam(text)
    except KeyError:
        raise ValueError("there is no such group; expected a name or a number of /etc/group") from None


def _is_id(text: str) -> bool:
    """Whether it is a number that a user or a group can have. (uid_t) -1 is no such number."""
    return bool(re.fullmatch("0|[1-9][0-9]{0,9}", text)) and int(text) < (1 << 32) - 1


class Account(NamedTuple):
    """Whom a program runs as.

    Attributes:
        groups: the groups of the user; None where they stay what they are.
        more: those of SupplementaryGroups=.
    """

    name: str
    uid: int
    gid: int
    groups: Sequence[int] | None
    more: Sequence[int]


def account(unit: ServiceUnit) -> Account | None:
    """The account that User=, Group= and SupplementaryGroups= name; None if they say nothing.

    Raises:
        ValueError: there is no such user, or group.
    """
    if not unit.user and not unit.group and not unit.supplementary_groups:
        return None
    try:
        user = find_user(unit.user or str(os.getuid()))
    except ValueError as error:
        raise ValueError(f"User={unit.user}: {error}") from None
    try:
        group = find_group(unit.group).gr_gid if unit.group else user.pw_gid
    except ValueError as error:
        raise ValueError(f"Group={unit.group}: {error}") from None
    # systemd sets the user's own groups only for a User= whose group is not root's.
    groups = os.getgrouplist(user.pw_name, group) if unit.user and group else None
    more = [find_group(name).gr_gid for name in unit.supplementary_groups]
    return Account(user.pw_name, user.pw_uid, group, groups, more)


def home(unit: ServiceUnit, account: Account | None) -> str:
    """The home that ``WorkingDirectory=~`` stands for; "" if the unit does not say so.

    Raises:
        ValueError: it says so, and the user has no home.
    """
    if unit.working_directory != "~":
        return ""
    uid = account.uid if account else os.getuid()
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise ValueError(f"WorkingDirectory=~: user {uid} has no home") from None


def variables(account: Account) -> dict[str, str]:
    """The variables that User= sets. As in systemd, HOME and SHELL are left out if they are only for show."""
    user = pwd.getpwuid(account.uid)
    found = {"LOGNAME": user.pw_name, "USER": user.pw_name}
    if user.pw_dir not in ("", "/") and account.uid != NOBODY:
        found["HOME"] = user.pw_dir
    if user.pw_shell and os.path.basename(user.pw_shell) not in ("nologin", "false", "true"):
        found["SHELL"] = user.pw_shell
    return found

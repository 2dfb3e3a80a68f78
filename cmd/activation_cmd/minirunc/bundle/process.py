"""``process`` of config.json: the program, its user and what it may do."""

from __future__ import annotations

import os

from .kernel import CAPABILITIES, CAPABILITY_SETS, LARGEST_ID, RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .unapplied import Unapplied
    from .values import Value


class Process:
    """The container's process.

    Attributes:
        capabilities: a set of bits for each of CAPABILITY_SETS.
        rlimits: soft and hard limits by name.
        oom_score_adj: None to leave it as it is.
    """

    def __init__(self, process: Value, unapplied: Unapplied) -> None:
        if process["terminal"].boolean():
            raise process["terminal"].wrong(
                "false: minirunc makes no pseudoterminal, the container has minirunc's own standard streams"
            )
        self.args = process["args"].strings()
        if not self.args or not self.args[0]:
            raise process["args"].wrong("the program and its arguments")
        self.env = dict(_variable(item) for item in process["env"].array())
        self.cwd = os.path.normpath(process["cwd"].absolute_path())
        self.no_new_privileges = process["noNewPrivileges"].boolean()
        score = process["oomScoreAdj"]
        self.oom_score_adj = None if score.raw is None else score.integer(-1000, 1000)

        user = process["user"]
        self.uid, self.gid = (user[key].integer(0, LARGEST_ID, 0) for key in ("uid", "gid"))
        self.additional_gids = [item.integer(0, LARGEST_ID) for item in user["additionalGids"].array()]
        self.umask = user["umask"].integer(0, 0o777, 0o022)

        self.rlimits = _rlimits(process["rlimits"])
        self.capabilities = _capabilities(process["capabilities"], self.uid, unapplied)


def _variable(item: Value) -> tuple[str, str]:
    name, equals, value = item.string().partition("=")
    if not (name and equals):
        raise item.wrong("NAME=value")
    return name, value


def _rlimits(value: Value) -> dict[str, tuple[int, int]]:
    limits: dict[str, tuple[int, int]] = {}
    for limit in value.array():
        name = limit["type"].one_of(RLIMITS)
        if name in limits:
            raise limit["type"].wrong("each limit once")
        hard = limit["hard"].integer(0, (1 << 64) - 1)
        limits[name] = limit["soft"].integer(0, hard), hard
    return limits


def _capabilities(value: Value, uid: int, unapplied: Unapplied) -> dict[str, int]:
    sets = dict.fromkeys(CAPABILITY_SETS, 0)
    for name in CAPABILITY_SETS:
        for item in value[name].array():
            if (capability := item.string()) in CAPABILITIES:
                sets[name] |= 1 << CAPABILITIES[capability]
            else:
                unapplied.add("capabilities", f"{item.path} ({capability})")
    # The kernel lets no other capability into the ambient set. It makes no difference to root, whose program has
    # whatever the bounding set has; and ``runc spec`` writes such a set for root.
    if uid != 0 and (beyond := sets["ambient"] & ~(sets["permitted"] & sets["inheritable"])):
        names = " ".join(each for each, number in CAPABILITIES.items() if beyond >> number & 1)
        unapplied.add(
            "capabilities", f"{value['ambient'].path} ({names}), which must be permitted and inheritable as well"
        )
    return sets

"""A long storm of restarts and kills under a real systemd, by hand: ``make storm``.

The tests in test_durable.py run a short one. This one takes minutes, up to hours, and prints figures: how many lines
were said and answered, how long the longest answer took, how many connections were lost, and the memory and the
descriptors of PID 1 and of the daemon as they go along, so that one sees whether anything grows. It ends with status 1
if a client that had an answer loses its connection, or gets an answer that is wrong, twice, or out of order.

``python -m tests.systemd.storm --help`` tells what can be chosen. ``make storm STORM="--restarts 10000 --clients 10"``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tests.children import open_descriptors
from tests.commands import free_port
from tests.durable_clients import COUNTER, crowd

from .daemons import processes
from .manager import Manager, missing

if TYPE_CHECKING:
    from tests.durable_clients import Crowd

SERVICE = "storm.service"
SOCKET = "storm.socket"
SOCKET_UNIT = (
    "[Socket]\nListenStream=/run/storm.sk\nListenStream={host}:{port}\nTriggerLimitIntervalSec=0\nBacklog=16384\n"
)
# The kernel counts the descriptors that wait in queues by user: this daemon gets one of its own.
SERVICE_UNIT = (
    "[Unit]\nStartLimitIntervalSec=0\n"
    "[Service]\nType=notify\nExecStart=stormd\nDynamicUser=yes\nFileDescriptorStoreMax=4\nRestart=on-failure\n"
    "RestartSec=1ms\n"
)
RELOAD_EVERY, REEXEC_EVERY = 50, 130
"""So many restarts and kills lie between two daemon-reload, and between two daemon-reexec."""
IN_THE_START = 0.2
"""Seconds after the fork within which a kill hits a daemon that starts."""


@attrs.frozen
class Footprint:
    """What the manager and the daemon have, in KiB and in numbers of descriptors."""

    manager_memory: int
    manager_descriptors: int
    memory: int
    descriptors: int
    slots: int

    def __str__(self) -> str:
        return (
            f"PID 1 {self.manager_memory:,} KiB, {self.manager_descriptors} descriptors; "
            f"the daemon {self.memory:,} KiB, {self.descriptors} descriptors; the memfd {self.slots:,} KiB"
        )


def resident(pid: int) -> int:
    """A process's own memory in KiB, without what it shares with files and with others."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


def footprint(manager: Manager) -> Footprint | None:
    """What there is now; None while the daemon starts or ends."""
    try:
        (pid,) = processes(manager, SERVICE)
        descriptors = open_descriptors(pid)
        memfd = next(number for number, what in descriptors.items() if "memfd:activation-durable" in what)
        slots = os.stat(f"/proc/{pid}/fd/{memfd}").st_blocks // 2
        memory = resident(pid)
    except (ValueError, StopIteration, OSError):
        return None
    return Footprint(resident(manager.pid), len(open_descriptors(manager.pid)), memory, len(descriptors), slots)


class Storm:
    """Restarts and kills, in random order and at random moments."""

    def __init__(self, manager: Manager, clients: Crowd, *, each_answered: bool, chance: random.Random) -> None:
        self.manager, self.clients, self.chance = manager, clients, chance
        self.each_answered = each_answered
        self.pid = 0
        self.events = 0

    def run(self, restarts: int, kills: int, *, samples: int) -> None:
        ways = [self.restart] * restarts + [self.kill] * kills
        self.chance.shuffle(ways)
        begin = time.monotonic()
        self.tell(begin)
        for self.events, way in enumerate(ways, 1):
            way()
            if self.events % RELOAD_EVERY == 0:
                self.manager.systemctl("daemon-reload")
            if self.events % REEXEC_EVERY == 0:
                self.manager.systemctl("daemon-reexec")
            if self.events % max(1, len(ways) // samples) == 0:
                self.tell(begin)

    def restart(self) -> None:
        self.clients.until_answers(self.chance.randint(1, 2 * len(self.clients.clients)))
        self.manager.systemctl("restart", SERVICE)
        self.answered()

    def kill(self) -> None:
        """Kill a process that was not killed yet: one that serves, or one that is starting."""
        (pid,) = self.manager.wait_for(self.another, "it is started again")
        if self.chance.random() < 0.5:
            self.clients.until_answers(self.chance.randint(1, 2 * len(self.clients.clients)))
        else:
            time.sleep(self.chance.uniform(0, IN_THE_START))
        os.kill(pid, signal.SIGKILL)
        self.pid = pid
        if self.chance.random() < 0.7:
            self.answered()

    def another(self) -> list[int]:
        pids = processes(self.manager, SERVICE)
        return pids if len(pids) == 1 and pids != [self.pid] else []

    def answered(self) -> None:
        if self.each_answered:
            self.clients.until_all_are_answered()
        else:
            self.clients.until_answers(len(self.clients.clients) // 2)

    def tell(self, begin: float) -> None:
        self.clients.until_all_are_answered()
        what = self.manager.wait_for(lambda: footprint(self.manager), "the daemon serves")
        clients = self.clients
        print(
            f"{time.monotonic() - begin:7.0f} s  {self.events:5} restarts and kills, {clients.answers:,} lines, "
            f"{clients.ended:,} connections ended, {clients.unheard} reset before an answer, longest wait "
            f"{clients.longest:.3f} s, load {os.getloadavg()[0]:.1f}\n           {what}",
            flush=True,
        )


def main() -> int:
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.systemd.storm", description=description)
    parser.add_argument("--clients", type=int, default=100, help="half on a Unix socket, half on TCP (100)")
    parser.add_argument("--restarts", type=int, default=500, help="how many systemctl restart (500)")
    parser.add_argument("--kills", type=int, default=500, help="how many kill -9 (500)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between a receive and its answer (0)")
    parser.add_argument("--come-and-go", action="store_true", help="clients close, half-close, reset, and connect anew")
    parser.add_argument("--samples", type=int, default=10, help="how often to print figures on the way (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the random order (0)")
    options = parser.parse_args()
    if reason := missing():
        print(f"no systemd can run here: {reason}", file=sys.stderr)
        return 1
    pause = f"await trio.sleep({options.pause})" if options.pause else "pass"
    address = ("127.0.0.1", free_port())
    with tempfile.TemporaryDirectory() as folder, Manager(Path(folder, "manager")) as manager:
        manager.add_program("stormd", COUNTER.format(pause=pause))
        manager.add({SOCKET: SOCKET_UNIT.format(host=address[0], port=address[1]), SERVICE: SERVICE_UNIT})
        manager.systemctl("start", SOCKET, SERVICE)
        addresses = [manager.path("/run/storm.sk"), address]
        try:
            with crowd(addresses, options.clients, come_and_go=options.come_and_go) as clients:
                storm = Storm(
                    manager, clients, each_answered=not options.come_and_go, chance=random.Random(options.seed)
                )
                storm.run(options.restarts, options.kills, samples=options.samples)
        except BaseException:
            print(manager.state()[-20_000:], file=sys.stderr)
            raise
        lost = 0 if options.come_and_go else clients.ended
        print(
            f"{lost} connections that had an answer were lost, {clients.unheard} were reset before one; "
            f"each of {clients.answers:,} lines was answered once and in order"
        )
        return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())

"""A container as a unit's service: to systemd it is what the program in it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests import bundles
from tests.bundles import add_bundle, python
from tests.commands import connect, echoed
from tests.minirunc.test_notify_proxy import PRELUDE

from .conftest import UNITS
from .daemons import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import StartManager
    from .manager import Manager

SERVICE = "[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nType=notify\nExecStart=minirunc run -b {bundle} box\n"

# What a program that exits says it with: a container that ends takes its words along.
TELLING = PRELUDE + "print('started', flush=True)\n"


def add_container(
    manager: Manager, name: str, args: list[str], options: str, change: Callable[[dict[str, Any]], object] | None = None
) -> None:
    """Add NAME.service, which runs a container with this process."""
    bundle = add_bundle(manager.folder / name, args, change or (lambda _: None))
    manager.add({f"{name}.service": SERVICE.format(bundle=bundle) + options})


def start_foobar(start_manager: StartManager, options: str = "NotifyAccess=all\n") -> Manager:
    """foobar.socket, and foobard behind it in a container."""
    manager = start_manager(UNITS / "foobar.socket")
    add_container(manager, "foobar", [], options, bundles.with_foobard)
    manager.systemctl("start", "foobar.socket")
    return manager


def namespace_pid(manager: Manager) -> str:
    """The main process's number in its own PID namespace."""
    status = manager.path(f"/proc/{manager.property('foobar.service', 'MainPID')}/status").read_text()
    return status.partition("NSpid:")[2].splitlines()[0].split()[-1]


def check_nothing_is_left(manager: Manager) -> None:
    assert list(manager.path("/run/minirunc").iterdir()) == []
    for name in ("foobar", "box"):
        assert processes(manager, f"{name}.service") == []
    assert "minirunc" not in manager.path("/proc/1/mounts").read_text()


def test_a_container_is_activated_by_its_socket_and_is_the_main_process(start_manager: StartManager) -> None:
    manager = start_foobar(start_manager)
    assert manager.run("client", input="hello\nthere\n").stdout == "connect success !\nhello\nthere\n"
    manager.wait_property("foobar.service", "ActiveState", "active")  # its word goes a longer way than its echo
    assert namespace_pid(manager) == "1"
    manager.wait_for(lambda: "connection" in manager.property("foobar.service", "StatusText"), "its status is known")

    manager.systemctl("stop", "foobar.service")
    assert manager.property("foobar.service", "ActiveState") == "inactive"
    assert manager.property("foobar.service", "Result") == "success"
    check_nothing_is_left(manager)

    assert manager.run("client", input="again\n").stdout == "connect success !\nagain\n"


def test_open_connections_are_drained_when_it_is_stopped(start_manager: StartManager) -> None:
    # Every process of the unit gets SIGTERM: minirunc must not make it two for foobard, to which a second one is the
    # order to cut its clients.
    manager = start_foobar(start_manager)
    with connect(manager.path("/run/foobar.sk")) as sock:
        assert echoed(sock, b"hello") == b"hello"
        manager.wait_property("foobar.service", "ActiveState", "active")
        manager.systemctl("stop", "--no-block", "foobar.service")
        manager.wait_property("foobar.service", "ActiveState", "deactivating")
        for _ in range(20):
            assert echoed(sock, b"still here") == b"still here"
    manager.wait_property("foobar.service", "ActiveState", "inactive")
    assert manager.property("foobar.service", "Result") == "success"
    check_nothing_is_left(manager)


def test_restarts_lose_no_client(start_manager: StartManager) -> None:
    manager = start_foobar(start_manager)
    for _ in range(3):
        with connect(manager.path("/run/foobar.sk")) as sock:
            assert echoed(sock, b"hello") == b"hello"
        manager.systemctl("restart", "foobar.service")
    assert manager.property("foobar.socket", "Result") == "success"


def test_notifications_of_the_main_process_only_are_enough_to_be_ready(start_manager: StartManager) -> None:
    manager = start_foobar(start_manager, "")
    assert manager.run("client", input="hello\n").stdout == "connect success !\nhello\n"
    manager.wait_property("foobar.service", "ActiveState", "active")  # its word goes a longer way than its echo
    assert namespace_pid(manager) == "1"


def test_the_watchdog_is_fed_from_inside(start_manager: StartManager) -> None:
    manager = start_foobar(start_manager, "NotifyAccess=all\nWatchdogSec=1s\n")
    with connect(manager.path("/run/foobar.sk")) as sock:
        assert echoed(sock, b"hello") == b"hello"
        first = manager.property("foobar.service", "WatchdogTimestampMonotonic")
        for _ in range(3):
            before = manager.property("foobar.service", "WatchdogTimestampMonotonic")
            manager.wait_for(
                lambda before=before: manager.property("foobar.service", "WatchdogTimestampMonotonic") != before,  # type: ignore[misc]
                "it was fed again",
            )
        assert int(manager.property("foobar.service", "WatchdogTimestampMonotonic")) > int(first)
        assert echoed(sock, b"still here") == b"still here"
    assert manager.property("foobar.service", "NRestarts") == "0"


def test_a_container_that_hangs_is_ended_by_the_watchdog(start_manager: StartManager) -> None:
    manager = start_manager()
    code = TELLING + "tell('READY=1')\ntell('WATCHDOG=1')\nsignal.pause()"
    # A first process without a handler does not see SIGABRT: the kernel spares it.
    # Nor does it see SIGTERM, where the stop below comes before the watchdog.
    options = "NotifyAccess=all\nWatchdogSec=0.5s\nTimeoutAbortSec=0.5s\nTimeoutStopSec=1s\nRestart=on-watchdog\n"
    add_container(manager, "box", python(code), options)
    manager.systemctl("start", "box.service")
    first = manager.property("box.service", "MainPID")
    manager.wait_for(lambda: int(manager.property("box.service", "NRestarts")) >= 1, "it was started again")
    assert "watchdog" in manager.log.lower()
    manager.wait_for(lambda: manager.property("box.service", "MainPID") not in (first, "0"), "there is another")
    manager.systemctl("stop", "box.service", check=False)
    manager.run("minirunc", "list")  # which removes what SIGKILL left
    check_nothing_is_left(manager)


def test_how_a_container_ends_is_known(start_manager: StartManager) -> None:
    manager = start_manager()
    add_container(manager, "box", python(TELLING + "tell('READY=1')\nbarrier()\nos._exit(7)"), "NotifyAccess=all\n")
    for _ in range(20):
        manager.systemctl("start", "box.service")
        manager.wait_property("box.service", "ActiveState", "failed")
        assert manager.property("box.service", "Result") == "exit-code"
        assert manager.property("box.service", "ExecMainStatus") == "7"
        check_nothing_is_left(manager)
        manager.systemctl("reset-failed", "box.service")


def test_a_bundle_that_cannot_be_run_fails_the_unit(start_manager: StartManager) -> None:
    manager = start_manager()
    add_container(manager, "box", ["/no/such"], "NotifyAccess=all\n")
    manager.systemctl("start", "box.service", check=False)
    assert manager.property("box.service", "Result") == "exit-code"
    assert "minirunc: process.args[0] is '/no/such'" in manager.log
    check_nothing_is_left(manager)


def test_descriptors_are_stored_and_come_back(start_manager: StartManager) -> None:
    manager = start_manager()
    code = """
names = os.environ.get("LISTEN_FDNAMES")
if names:
    found = os.read(3 + names.split(":").index("kept"), 100).decode()
    tell("READY=1\\nSTATUS=found " + names + " " + found)
else:
    reading, writing = os.pipe()
    os.write(writing, b"from the first")
    tell("FDSTORE=1\\nFDNAME=kept", [reading])
    tell("FDSTORE=1\\nFDNAME=too", [writing])
    tell("READY=1\\nSTATUS=stored")
    barrier()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    signal.sigtimedwait([], 0.05)
"""
    add_container(manager, "box", python(PRELUDE + code), "NotifyAccess=all\nFileDescriptorStoreMax=5\n")
    manager.systemctl("start", "box.service")
    manager.wait_property("box.service", "NFileDescriptorStore", "2")
    manager.systemctl("restart", "box.service")
    found = manager.property("box.service", "StatusText")
    assert found in ("found kept:too from the first", "found too:kept from the first")


def test_a_reload_is_one_reload(start_manager: StartManager) -> None:
    manager = start_manager()
    code = """
count = 0
def reload(*_):
    global count
    count += 1
    tell(f"RELOADING=1\\nSTATUS=reload {count}")
    tell("READY=1")
signal.signal(signal.SIGHUP, reload)
tell("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""
    add_container(manager, "box", python(PRELUDE + code), "NotifyAccess=all\nExecReload=kill -HUP $MAINPID\n")
    manager.systemctl("start", "box.service")
    main = manager.property("box.service", "MainPID")
    for number in (1, 2):
        manager.systemctl("reload", "box.service")
        manager.wait_property("box.service", "StatusText", f"reload {number}")
        manager.wait_property("box.service", "SubState", "running")
    manager.systemctl("kill", "-s", "HUP", "box.service")  # every process of the unit, minirunc among them
    manager.wait_property("box.service", "StatusText", "reload 3")
    assert manager.property("box.service", "MainPID") == main
    assert manager.property("box.service", "StatusText") == "reload 3"


def test_nothing_is_left_when_everything_is_killed(start_manager: StartManager) -> None:
    manager = start_foobar(start_manager)
    with connect(manager.path("/run/foobar.sk")) as sock:
        assert echoed(sock, b"hello") == b"hello"
    manager.systemctl("kill", "-s", "KILL", "foobar.service")
    manager.wait_for(lambda: not processes(manager, "foobar.service"), "all of it has ended")
    assert manager.run("minirunc", "list", "-q").stdout == ""
    check_nothing_is_left(manager)
    assert manager.run("client", input="again\n").stdout == "connect success !\nagain\n"

"""Socket activation for trio daemons: the sockets that systemd, or another activator, passed to this process.

A port of go-systemd's ``activation`` package. ``import activation`` loads neither trio nor attrs; a name that needs
them loads them when it is first used.
"""

from ._environment import ActivationError
from ._files import File, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._descriptor_store import DescriptorStore
    from ._exec import exec_process
    from ._listeners import listeners, listeners_with_names, tls_listeners, tls_listeners_with_names
    from ._notify import (
        READY,
        RELOADING,
        STOPPING,
        WATCHDOG,
        monotonic_usec,
        notify,
        notify_barrier,
        watchdog_enabled,
    )
    from ._packet_conns import packet_conns, packet_conns_with_names
    from ._process import open_process
    from ._receiver import Notification, NotifyReceiver
    from ._seqpacket import SeqpacketChannel, SeqpacketListener, seqpacket_listeners
    from ._serve import serve
    from ._streams import streams

__version__ = "0.1.0"

__all__ = [
    "READY",
    "RELOADING",
    "STOPPING",
    "WATCHDOG",
    "ActivationError",
    "DescriptorStore",
    "File",
    "Notification",
    "NotifyReceiver",
    "SeqpacketChannel",
    "SeqpacketListener",
    "exec_process",
    "files",
    "listeners",
    "listeners_with_names",
    "monotonic_usec",
    "notify",
    "notify_barrier",
    "open_process",
    "packet_conns",
    "packet_conns_with_names",
    "seqpacket_listeners",
    "serve",
    "streams",
    "tls_listeners",
    "tls_listeners_with_names",
    "watchdog_enabled",
]

if not TYPE_CHECKING:
    _HOMES = {
        "_descriptor_store": ("DescriptorStore",),
        "_exec": ("exec_process",),
        "_listeners": ("listeners", "listeners_with_names", "tls_listeners", "tls_listeners_with_names"),
        "_notify": (
            *("READY", "RELOADING", "STOPPING", "WATCHDOG"),
            *("monotonic_usec", "notify", "notify_barrier", "watchdog_enabled"),
        ),
        "_packet_conns": ("packet_conns", "packet_conns_with_names"),
        "_process": ("open_process",),
        "_receiver": ("Notification", "NotifyReceiver"),
        "_seqpacket": ("SeqpacketChannel", "SeqpacketListener", "seqpacket_listeners"),
        "_serve": ("serve",),
        "_streams": ("streams",),
    }

    def __getattr__(name):
        for home, names in _HOMES.items():
            if name in names:
                # Not importlib: loading that takes longer than some of the modules.
                value = getattr(__import__(f"{__name__}.{home}", fromlist=[name]), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})

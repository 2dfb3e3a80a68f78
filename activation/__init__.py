"""Socket activation for trio daemons: the sockets that systemd, or another activator, passed to this process.

A port of go-systemd's ``activation`` package. ``import activation`` loads neither trio nor attrs: a name that needs
them loads them when it is first used. What is listed here is listed in ``__init__.pyi`` too, where editors and type
checkers read it.
"""

from ._environment import ActivationError
from ._files import File, files, why_nothing_was_passed

__version__ = "0.1.0"

_HOMES = {
    "_datagrams": ("DatagramClient", "receive_datagram", "send_datagram"),
    "_descriptor_store": ("DescriptorStore",),
    "_durable_options": ("Durable",),
    "_durable_stream": ("DurableStream",),
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
    "_stopping": ("busy", "stop", "until_stopping"),
    "_store": ("store", "store_state", "stored_state", "unstore"),
    "_streams": ("streams",),
}

__all__ = sorted(
    [
        *("ActivationError", "File", "files", "why_nothing_was_passed"),
        *(name for names in _HOMES.values() for name in names),
    ]
)


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

"""Socket activation for trio daemons: the sockets that systemd, or another activator, passed to this process.

A port of go-systemd's ``activation`` package. ``import activation`` loads neither trio nor attrs; a name that needs
them loads them when it is first used.
"""

from ._files import ActivationError, File, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._exec import exec_process
    from ._listeners import listeners, listeners_with_names, tls_listeners, tls_listeners_with_names
    from ._packet_conns import packet_conns, packet_conns_with_names
    from ._process import open_process
    from ._streams import streams

__all__ = [
    "ActivationError",
    "File",
    "exec_process",
    "files",
    "listeners",
    "listeners_with_names",
    "open_process",
    "packet_conns",
    "packet_conns_with_names",
    "streams",
    "tls_listeners",
    "tls_listeners_with_names",
]

if not TYPE_CHECKING:
    _HOMES = {
        "listeners": "_listeners",
        "listeners_with_names": "_listeners",
        "tls_listeners": "_listeners",
        "tls_listeners_with_names": "_listeners",
        "packet_conns": "_packet_conns",
        "packet_conns_with_names": "_packet_conns",
        "streams": "_streams",
        "open_process": "_process",
        "exec_process": "_exec",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})

# jedi takes a stub's import for an export only where it says `as`; mypy wants __all__.
from ._datagrams import (
    DatagramClient as DatagramClient,
    receive_datagram as receive_datagram,
    send_datagram as send_datagram,
)
from ._descriptor_store import DescriptorStore as DescriptorStore
from ._durable_options import Durable as Durable
from ._durable_stream import DurableStream as DurableStream
from ._environment import ActivationError as ActivationError
from ._exec import exec_process as exec_process
from ._files import File as File, files as files, why_nothing_was_passed as why_nothing_was_passed
from ._listeners import (
    listeners as listeners,
    listeners_with_names as listeners_with_names,
    tls_listeners as tls_listeners,
    tls_listeners_with_names as tls_listeners_with_names,
)
from ._notify import (
    READY as READY,
    RELOADING as RELOADING,
    STOPPING as STOPPING,
    WATCHDOG as WATCHDOG,
    monotonic_usec as monotonic_usec,
    notify as notify,
    notify_barrier as notify_barrier,
    watchdog_enabled as watchdog_enabled,
)
from ._packet_conns import packet_conns as packet_conns, packet_conns_with_names as packet_conns_with_names
from ._process import open_process as open_process
from ._receiver import Notification as Notification, NotifyReceiver as NotifyReceiver
from ._seqpacket import (
    SeqpacketChannel as SeqpacketChannel,
    SeqpacketListener as SeqpacketListener,
    seqpacket_listeners as seqpacket_listeners,
)
from ._serve import serve as serve
from ._stopping import busy as busy, stop as stop, until_stopping as until_stopping
from ._store import (
    store as store,
    store_state as store_state,
    stored_state as stored_state,
    unstore as unstore,
)
from ._streams import streams as streams

__version__: str

__all__ = [
    "READY",
    "RELOADING",
    "STOPPING",
    "WATCHDOG",
    "ActivationError",
    "DatagramClient",
    "DescriptorStore",
    "Durable",
    "DurableStream",
    "File",
    "Notification",
    "NotifyReceiver",
    "SeqpacketChannel",
    "SeqpacketListener",
    "busy",
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
    "receive_datagram",
    "send_datagram",
    "seqpacket_listeners",
    "serve",
    "stop",
    "store",
    "store_state",
    "stored_state",
    "streams",
    "tls_listeners",
    "tls_listeners_with_names",
    "unstore",
    "until_stopping",
    "watchdog_enabled",
    "why_nothing_was_passed",
]

"""The settings of socket units that are done here: each key, the field that it fills, and how its value is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import listens, values
from .model import Listen
from .names import UnitName
from .setting import Context, Setting, plain, refused, replaced, word_list

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .model import Kind


def _listen(kind: Kind, check: Callable[[str], str]) -> Setting:
    def read(text: str, context: Context) -> list[Listen]:
        return [Listen(kind, check(context.replace(text)), context.where)]

    return Setting(["listen"], read, repeated=True)


def _service_name(text: str, context: Context) -> UnitName:
    name = UnitName.parse(context.replace(text))
    if name.type != "service" or name.instance == "":
        raise ValueError("expected the name of a service such as foobar.service")
    return name


def _whole_seconds(text: str) -> int | None:
    """For the kernel, which takes no parts of seconds, and refuses what is too much; 0 leaves its own."""
    return int(min(values.time_span(text), values.INT_MAX + 1)) or None


def _size(text: str) -> int | None:
    return values.size(text) or None


def _count(text: str) -> int | None:
    return values.number(text) or None


def _flag(field: str) -> Setting:
    return plain(field, values.boolean)


_NETWORK: Final = "sockets are made in socket-activate's own network"
_CLIENTS: Final = "every client of the sockets is served"

SOCKET: Final[Mapping[str, Mapping[str, Setting]]] = {
    "Unit": {},
    "Socket": {
        "ListenStream": _listen("stream", listens.address),
        "ListenDatagram": _listen("datagram", listens.address),
        "ListenSequentialPacket": _listen("seqpacket", listens.unix_address),
        "ListenFIFO": _listen("fifo", values.absolute_path),
        "ListenSpecial": _listen("special", values.absolute_path),
        "ListenNetlink": _listen("netlink", listens.netlink),
        "ListenMessageQueue": _listen("mqueue", listens.message_queue),
        "ListenUSBFunction": refused("no USB function is passed"),
        "SocketProtocol": plain("protocol", values.choice("", "udplite", "sctp", "mptcp")),
        "SocketMode": plain("socket_mode", values.mode),
        "DirectoryMode": plain("directory_mode", values.mode),
        "SocketUser": replaced("socket_user", values.user),
        "SocketGroup": replaced("socket_group", values.group),
        "Backlog": plain("backlog", values.number),
        "BindIPv6Only": plain("bind_ipv6_only", values.bind_ipv6_only),
        "FreeBind": _flag("free_bind"),
        "ReusePort": _flag("reuse_port"),
        "NoDelay": _flag("no_delay"),
        "KeepAlive": _flag("keep_alive"),
        "KeepAliveTimeSec": plain("keep_alive_time", _whole_seconds),
        "KeepAliveIntervalSec": plain("keep_alive_interval", _whole_seconds),
        "KeepAliveProbes": plain("keep_alive_probes", _count),
        "DeferAcceptSec": plain("defer_accept", _whole_seconds),
        "Broadcast": _flag("broadcast"),
        "PassCredentials": _flag("pass_credentials"),
        "PassSecurity": _flag("pass_security"),
        "PassPIDFD": _flag("pass_pidfd"),
        "AcceptFileDescriptors": _flag("accept_file_descriptors"),
        "PassPacketInfo": _flag("pass_packet_info"),
        "Timestamping": plain("timestamping", values.timestamping),
        "Priority": plain("priority", values.optional_number),
        "Mark": plain("mark", values.optional_number),
        "IPTOS": plain("ip_tos", values.type_of_service),
        "IPTTL": plain("ip_ttl", values.optional_number),
        "TCPCongestion": plain("tcp_congestion", str),
        "Transparent": _flag("transparent"),
        "BindToDevice": plain("bind_to_device", values.device),
        "ReceiveBuffer": plain("receive_buffer", _size),
        "SendBuffer": plain("send_buffer", _size),
        "PipeSize": plain("pipe_size", _size),
        "Writable": _flag("writable"),
        "MessageQueueMaxMessages": plain("message_queue_max_messages", _count),
        "MessageQueueMessageSize": plain("message_queue_message_size", _count),
        "Symlinks": word_list("symlinks", values.absolute_path),
        "RemoveOnStop": _flag("remove_on_stop"),
        "FlushPending": _flag("flush_pending"),
        "FileDescriptorName": replaced("descriptor_name", values.descriptor_name),
        "Accept": _flag("accept"),
        "MaxConnections": plain("max_connections", values.number),
        "MaxConnectionsPerSource": plain("max_connections_per_source", values.number),
        "TriggerLimitIntervalSec": plain("trigger_limit_interval", values.time_span),
        "TriggerLimitBurst": plain("trigger_limit_burst", values.number),
        "Service": Setting(["service"], _service_name),
        # What decides which sockets these are, and who reaches them.
        "PrivateNetwork": refused(_NETWORK),
        "NetworkNamespacePath": refused(_NETWORK),
        "PrivateIPC": refused("message queues are made in socket-activate's own namespace"),
        "IPCNamespacePath": refused("message queues are made in socket-activate's own namespace"),
        "IPAddressDeny": refused(_CLIENTS),
        "IPIngressFilterPath": refused(_CLIENTS),
        "SocketBindDeny": refused("sockets are bound to every address that is listed"),
        "RestrictNetworkInterfaces": refused(_CLIENTS),
    },
}

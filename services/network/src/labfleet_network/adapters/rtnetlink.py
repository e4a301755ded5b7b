"""The few route-netlink messages of a container's start, many to one system call (ADR 0007).

Wire form after rtnetlink(7): a header of 16 bytes, a fixed part by type, then attributes of a length,
a type and a value, each padded to four bytes.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from labfleet_proto.errors import InternalError

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE, _DELROUTE = 16, 17, 20, 24, 25
_ERROR = 2
_REQUEST_ACK = 0x1 | 0x4
_CREATE_NEW = 0x400 | 0x200
_CREATE_OR_REPLACE = 0x400 | 0x100
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_NET_NS_FD = 18, 1, 2, 28
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_IFF_UP = 1
_TABLE_MAIN, _PROTOCOL_BOOT, _UNICAST = 254, 3, 1
_LOOPBACK = 1
_LINK_LOCAL_PREFIX, _SCOPE_LINK = 16, 253
_NO_DETECTION = 0x02
"""IFA_F_NODAD: good at once."""

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True)
class Interface:
    """One interface of a container and its end on the host."""

    veth: str
    """Name of the host's end."""
    bridge: int
    """Index of the bridge that the host's end joins; 0: none."""
    name: str
    """Inside, such as `eth0`."""
    mac: str
    address: str
    prefix_len: int
    gateway: str
    """Empty: no way out."""
    mtu: int
    more: tuple[str, ...] = ()
    """Link-local addresses beside."""
    address6: str = ""
    """Empty: no IPv6."""
    prefix_len6: int = 0
    gateway6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that it may send from."""
        return (self.address, *self.more, *((self.address6,) if self.address6 else ()))


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _talk(requests: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Send all (type, flags, body) in the current namespace; return an errno for each, 0 for done."""
    wire = b"".join(
        _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_ACK | flags, number, 0) + body
        for number, (kind, flags, body) in enumerate(requests)
    )
    found: list[int] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as link:
        link.settimeout(5)
        link.send(wire)
        while len(found) < len(requests):
            found += _results(link.recv(65_536))
    return found


def _results(data: bytes) -> Iterator[int]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind == _ERROR:
            yield -struct.unpack_from("=i", data, offset + _HEADER.size)[0]
        offset += size + -size % 4


def _check(what: Sequence[str], results: Sequence[int]) -> None:
    for words, code in zip(what, results, strict=True):
        if code != 0:
            raise InternalError(f"{words}: {os.strerror(code)}")


def plug(interfaces: Sequence[Interface], namespace_fd: int) -> None:
    """Make the veth pairs, one end on its bridge and up, the other in the namespace.

    Raises InternalError.
    """
    pairs = [_veth(each, namespace_fd) for each in interfaces]
    with _named("make interfaces"):
        results = _talk(pairs)
        for number, code in enumerate(results):
            if code == errno.EEXIST:  # of an older attempt, whose namespace is still being closed
                gone = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, interfaces[number].veth)
                results[number] = _talk([(_DELLINK, 0, gone), pairs[number]])[1]
    _check([f"make interface {each.veth}" for each in interfaces], results)


def _veth(each: Interface, namespace_fd: int) -> tuple[int, int, bytes]:
    peer = (
        _LINK.pack(0, 0, 0, 0, 0)
        + _text(_IFLA_IFNAME, each.name)
        + _attribute(_IFLA_ADDRESS, bytes.fromhex(each.mac.replace(":", "")))
        + _number(_IFLA_MTU, each.mtu)
        + _number(_IFLA_NET_NS_FD, namespace_fd)
    )
    info = _text(_IFLA_INFO_KIND, "veth") + _attribute(
        _IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer)
    )
    body = (
        _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP)
        + _text(_IFLA_IFNAME, each.veth)
        + _number(_IFLA_MTU, each.mtu)
        + _number(_IFLA_MASTER, each.bridge)
        + _attribute(_IFLA_LINKINFO, info)
    )
    return _NEWLINK, _CREATE_NEW, body


def loopback_up() -> None:
    """Set the loopback device of the current namespace up. Raises InternalError."""
    with _named("set lo up"):
        results = _talk([(_NEWLINK, 0, _LINK.pack(0, 0, _LOOPBACK, _IFF_UP, _IFF_UP))])
    _check(["set lo up"], results)


def configure(interfaces: Sequence[Interface]) -> None:
    """Give the interfaces of the current namespace their addresses; the first way out is the route.

    Raises InternalError.
    """
    requests: list[tuple[int, int, bytes]] = []
    what: list[str] = []
    has_route = False
    if any(each.address6 for each in interfaces):
        with _named("turn IPv6 on"):
            _turn_on6(["lo", *(each.name for each in interfaces if each.address6)])
    for each in interfaces:
        with _named(f"find {each.name}"):
            index = socket.if_nametoindex(each.name)
        packed = IPv4Address(each.address).packed
        address = _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
        head = _ADDR.pack(socket.AF_INET, each.prefix_len, 0, 0, index)
        requests.append((_NEWADDR, _CREATE_NEW, head + address))
        what.append(f"give {each.name} the address {each.address}")
        requests.append((_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP)))
        what.append(f"set {each.name} up")
        if each.address6:  # without asking who else has it: the claim says so
            packed = IPv6Address(each.address6).packed
            address = _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
            head = _ADDR.pack(socket.AF_INET6, each.prefix_len6, _NO_DETECTION, 0, index)
            requests.append((_NEWADDR, _CREATE_NEW, head + address))
            what.append(f"give {each.name} the address {each.address6}")
        for text in each.more:
            packed = IPv4Address(text).packed
            address = _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
            head = _ADDR.pack(socket.AF_INET, _LINK_LOCAL_PREFIX, 0, _SCOPE_LINK, index)
            requests.append((_NEWADDR, _CREATE_NEW, head + address))
            what.append(f"give {each.name} the address {text}")
        if each.gateway and not has_route:
            has_route = True
            for gateway in filter(None, (each.gateway, each.gateway6)):
                requests.append((_NEWROUTE, _CREATE_NEW, _default_route(gateway, index)))
                what.append(f"route through {gateway}")
    if requests:
        with _named("configure interfaces"):
            results = _talk(requests)
        _check(what, results)


def _turn_on6(names: Sequence[str]) -> None:
    """Let interfaces have IPv6, without any word of other hosts: addresses come from us alone."""
    for name in names:
        for key, value in (("accept_ra", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")):
            Path(f"/proc/sys/net/ipv6/conf/{name}/{key}").write_text(value)


def _default_route(gateway: str, index: int) -> bytes:
    address = ip_address(gateway)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    head = _ROUTE.pack(family, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, 0, _UNICAST, 0)
    way = _attribute(_RTA_GATEWAY, address.packed)
    return head + way + _number(_RTA_OIF, index)


def set_way_out(gateway: str, gateway6: str, name: str) -> None:
    """Make the default routes of the current namespace lead through gateways; empty: nowhere.

    Raises InternalError.
    """
    for family, each in ((socket.AF_INET, gateway), (socket.AF_INET6, gateway6)):
        if each:
            with _named(f"route through {each}"):
                route = _default_route(each, socket.if_nametoindex(name))
                results = _talk([(_NEWROUTE, _CREATE_OR_REPLACE, route)])
            _check([f"route through {each}"], results)
            continue
        with _named("remove the default route"):
            head = _ROUTE.pack(family, 0, 0, 0, _TABLE_MAIN, 0, 0, 0, 0)
            results = _talk([(_DELROUTE, 0, head)])
        if results[0] not in (errno.ESRCH, errno.ENOENT):  # there is none
            _check(["remove the default route"], results)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InternalError(f"{what}: {exc}") from exc

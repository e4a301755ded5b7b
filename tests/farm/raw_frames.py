"""What a program with raw sockets could send from a container, and what arrives in another.

This file is also the program that sends and listens in a container's network namespace, from outside: no
filter of system calls stands before it. Frames carry the name of their case, by which the listener knows them.
"""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

MARK = b"labfleet-frame:"
_ARP, _IP, _VLAN, _IP6 = 0x0806, 0x0800, 0x8100, 0x86DD
_ICMP6, _ECHO, _ADVERTISEMENT = 58, 128, 136
_ALL = 3
_PORT = 4000


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ether(to: str, source: str, kind: int, body: bytes) -> bytes:
    return _mac(to) + _mac(source) + struct.pack("!H", kind) + body


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _udp(source: str, to: str, body: bytes, port: int = _PORT) -> bytes:
    size = 8 + len(body)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, 17, 0)
    head += ip_address(source).packed + ip_address(to).packed
    head = head[:10] + struct.pack("!H", _sum(head)) + head[12:]
    return head + struct.pack("!HHHH", port, port, size, 0) + body


def _arp(mac: str, address: str, to_mac: str, to: str) -> bytes:
    head = struct.pack("!HHBBH", 1, _IP, 6, 4, 2)
    return head + _mac(mac) + ip_address(address).packed + _mac(to_mac) + ip_address(to).packed


def frames(own: dict[str, str], victim: dict[str, str], other: dict[str, str]) -> dict[str, bytes]:
    """Frames by the name of their case: to a victim, those that lie in the name of another; `own` does not."""

    def marked(name: str) -> bytes:
        return MARK + name.encode() + b";"

    mac, ip = own["mac"], own["ip"]
    to_mac, to = victim["mac"], victim["ip"]
    honest = _udp(ip, to, marked("own"))
    found = {
        "own": _ether(to_mac, mac, _IP, honest),
        "ip": _ether(to_mac, mac, _IP, _udp(other["ip"], to, marked("ip"))),
        "mac": _ether(to_mac, other["mac"], _IP, _udp(ip, to, marked("mac"))),
        "both": _ether(to_mac, other["mac"], _IP, _udp(other["ip"], to, marked("both"))),
        "dhcp": _ether(to_mac, mac, _IP, _udp(ip, to, marked("dhcp"), 67)),
        "vlan": _ether(
            to_mac, mac, _VLAN, struct.pack("!HH", 1, _IP) + _udp(ip, to, marked("vlan"))
        ),
        "strange": _ether(to_mac, mac, 0x88B5, marked("strange")),
    }
    for name, sender, claims, address in (
        ("arp-own", mac, mac, ip),
        ("arp-ip", mac, mac, other["ip"]),
        ("arp-mac", mac, other["mac"], ip),
        ("arp-ether", other["mac"], other["mac"], other["ip"]),
    ):
        body = _arp(claims, address, to_mac, to) + bytes(18) + marked(name)
        found[name] = _ether(to_mac, sender, _ARP, body)
    return found


def _icmp6(source: str, to: str, kind: int, body: bytes) -> bytes:
    """An ICMPv6 message of that type; its checksum is right."""
    ends = ip_address(source).packed + ip_address(to).packed
    message = struct.pack("!BBH", kind, 0, 0) + body + bytes(len(body) % 2)
    total = _sum(ends + struct.pack("!II", len(message), _ICMP6) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    return struct.pack("!IHBB", 6 << 28, len(message), _ICMP6, 255) + ends + message


def frames6(own: dict[str, str], victim: dict[str, str], other: dict[str, str]) -> dict[str, bytes]:
    """As `frames`, with IPv6: echo requests, advertisements of neighbours and routers, a redirect."""
    mac, ip, theirs = own["mac"], own["ip"], other["ip"]
    to_mac, to = victim["mac"], victim["ip"]

    def echo(name: str) -> bytes:
        return bytes(4) + MARK + name.encode() + b";"

    def neighbour(name: str, target: str, link: str) -> bytes:
        option = bytes((2, 1)) + _mac(link)
        return struct.pack("!I", 0x60000000) + ip_address(target).packed + option + echo(name)[4:]

    cases = {
        "own": (mac, ip, _ECHO, echo("own")),
        "ip": (mac, theirs, _ECHO, echo("ip")),
        "mac": (other["mac"], ip, _ECHO, echo("mac")),
        "both": (other["mac"], theirs, _ECHO, echo("both")),
        "nobody": (mac, "::", _ECHO, echo("nobody")),
        "na-own": (mac, ip, _ADVERTISEMENT, neighbour("na-own", ip, mac)),
        "na-ip": (mac, ip, _ADVERTISEMENT, neighbour("na-ip", theirs, mac)),
        "na-gateway": (mac, ip, _ADVERTISEMENT, neighbour("na-gateway", "2001:db8:1::1", mac)),
        "na-both": (mac, theirs, _ADVERTISEMENT, neighbour("na-both", theirs, mac)),
        "router": (mac, ip, 134, bytes(12) + echo("router")[4:]),
        "redirect": (mac, ip, 137, bytes(36) + echo("redirect")[4:]),
    }
    return {
        name: _ether(to_mac, sender, _IP6, _icmp6(source, to, kind, body))
        for name, (sender, source, kind, body) in cases.items()
    }


def _send(device: str, rounds: int, what: dict[str, str]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((device, 0))
        for _ in range(rounds):
            for frame in what.values():
                link.send(bytes.fromhex(frame))
            time.sleep(0.05)


def _hear(device: str) -> None:
    """Print the name of each case when it is first heard, for ever."""
    heard = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as link:
        link.bind((device, 0))
        os.write(1, b"ready\n")
        while True:
            frame, about = link.recvfrom(4096)
            _, mark, rest = frame.partition(MARK)
            name = rest.partition(b";")[0].decode()
            if mark and about[2] != socket.PACKET_OUTGOING and name not in heard:
                heard.add(name)
                os.write(1, f"{name}\n".encode())


def _program(pid: int, *words: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, __file__, *words]


@contextlib.contextmanager
def heard(pid: int, device: str = "eth0") -> Iterator[Callable[[], set[str]]]:
    """Listen in the network namespace of a process; call what is given to know what came so far."""
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(_program(pid, "hear", device), stdout=output) as listener,
    ):

        def so_far() -> set[str]:
            output.seek(0)
            return set(output.read().split())

        try:
            end_s = time.monotonic() + 10
            while "ready" not in so_far():
                assert time.monotonic() < end_s, "the listener does not begin"
                time.sleep(0.05)
            yield lambda: so_far() - {"ready"}
        finally:
            listener.kill()


def sending(
    pid: int, what: dict[str, bytes], rounds: int, device: str = "eth0"
) -> "subprocess.Popen[bytes]":
    """Send frames from the network namespace of a process, all of them so many times."""
    document = json.dumps({name: frame.hex() for name, frame in what.items()})
    return subprocess.Popen(_program(pid, "send", device, str(rounds), document))


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))
    else:
        _hear(sys.argv[2])

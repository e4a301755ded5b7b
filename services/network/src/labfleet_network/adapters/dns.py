"""The DNS server on each network's gateway: our names first, then the asker's resolvers or the host's."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from labfleet_chassis.logs import Log
from labfleet_network.adapters import resolving
from labfleet_network.adapters.resolving import Resolvers
from labfleet_network.core.addresses import is_ipv6
from labfleet_network.core.answers import Directory
from labfleet_network.metrics import QUERIES
from labfleet_proto.ids import NetworkId

_TTL_S = 0
_MOST_UPSTREAM = 64
_LEAST_UDP_BYTES = 512
"""What every asker takes in one datagram (RFC 1035); more is said by EDNS."""
_IN = dns.rdataclass.IN

ResolversOf = Callable[[str, NetworkId | None], Resolvers]
"""Whom to ask for other names than ours, for an asker at an address of a network, if that is known."""


class DnsServer:
    """Answers on any number of addresses with one directory."""

    def __init__(
        self, directory: Callable[[], Directory], resolvers: ResolversOf, log: Log
    ) -> None:
        self._directory = directory
        self._resolvers = resolvers
        self._log = log
        self._upstream = asyncio.Semaphore(_MOST_UPSTREAM)
        self._udp: dict[str, asyncio.DatagramTransport] = {}
        self._tcp: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def addresses(self) -> set[str]:
        """Where it listens: a network each, or an address that was given without one."""
        return set(self._udp)

    async def listen(
        self,
        address: str,
        network: NetworkId | None = None,
        sockets: tuple[socket.socket, socket.socket] | None = None,
    ) -> None:
        """Listen on an address, UDP and TCP; again is nothing. Raises OSError.

        `network`: whose names are asked for there; None: of the networks that have the asker's
        address. `sockets` were bound in another namespace.
        """
        key = network or address
        if key in self._udp:
            return
        loop = asyncio.get_running_loop()
        udp, tcp = sockets or bound(address)
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Udp(self, network), sock=udp
            )
        except OSError:
            udp.close()
            tcp.close()
            raise

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve_tcp(reader, writer, network)

        try:
            self._tcp[key] = await asyncio.start_server(serve, sock=tcp)
        except OSError:
            transport.close()
            tcp.close()
            raise
        self._udp[key] = transport

    def quiet(self, key: str) -> None:
        """Stop listening for a network, or on an address given without one; unknown is success."""
        transport = self._udp.pop(key, None)
        if transport is not None:
            transport.close()
        server = self._tcp.pop(key, None)
        if server is not None:
            server.close()

    def spawn_answer(
        self, data: bytes, peer: str, network: NetworkId | None, reply: Callable[[bytes], None]
    ) -> None:
        """Answer one datagram in a task of its own."""

        async def answer() -> None:
            said = await self.answer(data, peer, network, is_datagram=True)
            if said is not None:
                reply(said)

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_tcp(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        network: NetworkId | None,
    ) -> None:
        peer = str(writer.get_extra_info("peername")[0])
        task = asyncio.current_task()
        if task is not None:  # nothing else keeps it from the collector once the peer half-closes
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                while True:
                    async with asyncio.timeout(10):
                        size = int.from_bytes(await reader.readexactly(2), "big")
                        data = await reader.readexactly(size)
                    said = await self.answer(data, peer, network)
                    if said is None:
                        break
                    writer.write(len(said).to_bytes(2, "big") + said)
                    await writer.drain()
        finally:
            writer.close()

    async def answer(
        self,
        data: bytes,
        peer: str,
        network: NetworkId | None = None,
        *,
        is_datagram: bool = False,
    ) -> bytes | None:
        """Answer one query from `peer`; None for what is no query.

        What the asker cannot take in one datagram is cut, and marked so: it asks again over TCP.
        """
        try:
            query = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError):
            QUERIES.labels("malformed").inc()
            return None
        if not query.question or query.flags & dns.flags.QR:
            return None
        if query.opcode() != dns.opcode.QUERY:
            said = dns.message.make_response(query)
            said.set_rcode(dns.rcode.NOTIMP)
            return said.to_wire()
        answer = self._own(query, peer, network)
        if answer is None:
            resolvers = self._resolvers(peer, network)
            answer = await self._forward(query, resolvers, is_datagram=is_datagram)
        if not is_datagram:
            return answer.to_wire()
        most = max(query.payload, _LEAST_UDP_BYTES)
        return answer.to_wire(max_size=most, prefer_truncation=True)

    def _own(
        self, query: dns.message.Message, peer: str, network: NetworkId | None
    ) -> dns.message.Message | None:
        """Answer from the directory; None if the name is none of ours."""
        question = query.question[0]
        directory = self._directory()
        if question.rdtype == dns.rdatatype.PTR:
            return self._own_reverse(query, directory, peer, network)
        found = directory.forward(peer, question.name.to_text(omit_final_dot=True), network)
        if found is None:
            return None
        QUERIES.labels("own").inc()
        said = dns.message.make_response(query, recursion_available=True)
        for kind, addresses in (
            (dns.rdatatype.A, [each for each in found if not is_ipv6(each)]),
            (dns.rdatatype.AAAA, [each for each in found if is_ipv6(each)]),
        ):
            if addresses and question.rdtype in (kind, dns.rdatatype.ANY):
                answer = dns.rrset.from_text(question.name, _TTL_S, _IN, kind, *addresses)
                said.answer.append(answer)
        return said

    def _own_reverse(
        self,
        query: dns.message.Message,
        directory: Directory,
        peer: str,
        network: NetworkId | None,
    ) -> dns.message.Message | None:
        question = query.question[0]
        try:
            address = dns.reversename.to_address(question.name)
        except dns.exception.DNSException:
            return None
        names = directory.reverse(peer, address, network)
        if names is None:
            return None
        QUERIES.labels("own").inc()
        said = dns.message.make_response(query, recursion_available=True)
        # A container's name may be longer than a label, or end a label with nothing in it.
        fitting = [f"{name}." for name in names if _is_dns_name(name)]
        if fitting:
            said.answer.append(dns.rrset.from_text(question.name, _TTL_S, _IN, "PTR", *fitting))
        return said

    async def _forward(
        self, query: dns.message.Message, resolvers: Resolvers, *, is_datagram: bool
    ) -> dns.message.Message:
        """Ask resolvers in turn, as we were asked; SERVFAIL if none answers."""
        async with self._upstream:
            for server in resolvers.servers:
                try:
                    said = await resolving.ask(
                        query, server, resolvers.open, is_datagram=is_datagram
                    )
                except (dns.exception.DNSException, OSError, TimeoutError, EOFError) as exc:
                    self._log.debug("dns.upstream", server=server, error=str(exc))
                    continue
                QUERIES.labels("forwarded").inc()
                return said
        QUERIES.labels("failed").inc()
        said = dns.message.make_response(query, recursion_available=True)
        said.set_rcode(dns.rcode.SERVFAIL)
        return said

    def close(self) -> None:
        """Stop listening everywhere."""
        for key in list(self._udp):
            self.quiet(key)


def bound(address: str) -> tuple[socket.socket, socket.socket]:
    """Sockets for UDP and TCP on an address of the current namespace. Raises OSError."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (udp, tcp):
            one.setblocking(False)
            one.bind((address, 53))
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def _is_dns_name(name: str) -> bool:
    try:
        dns.name.from_text(name)
    except dns.exception.DNSException:
        return False
    return True


class _Udp(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, server: DnsServer, network: NetworkId | None) -> None:
        self._server = server
        self._network = network
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for answers; uvloop's is no subclass of asyncio's."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query."""

        def reply(said: bytes) -> None:
            if self._transport is not None and not self._transport.is_closing():
                self._transport.sendto(said, addr)

        self._server.spawn_answer(data, str(addr[0]), self._network, reply)

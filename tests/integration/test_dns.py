"""The DNS server of a network on real sockets, at port 53 of a network namespace of the test's own."""

import asyncio
import ctypes
import gc
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.reversename
import dns.rrset
import pytest
import uvloop
from dns.message import Message
from tests.unit.proto.records import address_record, network_id

from labfleet_chassis import logs
from labfleet_network.adapters import resolving, rtnetlink
from labfleet_network.adapters.dns import DnsServer
from labfleet_network.adapters.resolving import Resolvers
from labfleet_network.core.answers import Directory
from labfleet_proto.ids import NetworkId

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]

_CLONE_NEWNET = 0x40000000
_LIMIT_S = 5.0
HERE = "127.0.0.1"
UPSTREAM, DEAD = "127.0.0.53", "127.0.0.54"
WEB, DB, STRANGER = "127.1.0.2", "127.1.0.3", "127.9.0.1"
CHOOSER = "127.1.0.9"
"""The loopback holds all of 127/8, so each container asks from an address of its own."""
MANY = [f"127.2.{number // 200}.{number % 200 + 1}" for number in range(300)]
FLEET = Directory.of(
    [
        address_record(WEB, number=1, names=("web", "node")),
        address_record(DB, number=2, names=("db", "node", "a" * 80)),
        address_record(CHOOSER, number=5, names=("chooser",)),
        *(address_record(each, number=9, names=("many",)) for each in MANY),
        address_record("127.3.0.2", network=3, number=3, names=("secret",)),
        address_record("127.1.0.80", number=4, names=("b" * 80,)),
    ],
    {network_id(1): "front", network_id(3): "other"},
)

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine in a thread whose network namespace has nothing but a loopback."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    troubles: list[dict[str, Any]] = []

    def leave() -> None:
        assert ctypes.CDLL(None).unshare(_CLONE_NEWNET) == 0
        rtnetlink.loopback_up()

    def work(main: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, what: troubles.append(what))
            async with asyncio.timeout(_LIMIT_S * 3):
                await main()
            rest = asyncio.all_tasks() - {asyncio.current_task()}  # connections that ended just now
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await asyncio.sleep(0.01)  # their transports close
            gc.collect()  # a task that failed tells so when it is collected

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(guarded())

    with ThreadPoolExecutor(max_workers=1, initializer=leave) as thread:
        yield lambda main: thread.submit(work, main).result(_LIMIT_S * 4)
    assert troubles == []


@pytest.fixture(autouse=True)
def resolvers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Resolvers of the host: none, unless a test adds some."""
    known: list[str] = []
    monkeypatch.setattr(resolving, "of_host", lambda: known)
    monkeypatch.setattr(resolving, "_LIMIT_S", 0.3)
    return known


def resolvers_of(asker: str, _network: NetworkId | None) -> Resolvers:
    """The host's, but for one that has resolvers of its own."""
    return Resolvers([UPSTREAM] if asker == CHOOSER else resolving.of_host())


@asynccontextmanager
async def serving() -> AsyncIterator[DnsServer]:
    server = DnsServer(lambda: FLEET, resolvers_of, logs.get("test"))
    await server.listen(HERE)
    try:
        yield server
    finally:
        server.close()


def query(name: str, kind: str = "A", **options: Any) -> Message:
    return dns.message.make_query(name, kind, **options)


async def ask(question: Message | str, asker: str = WEB, kind: str = "A") -> Message:
    if isinstance(question, str):
        question = query(question, kind)
    return await dns.asyncquery.udp(question, HERE, timeout=_LIMIT_S, source=asker)


async def ask_tcp(question: Message, asker: str = WEB) -> Message:
    return await dns.asyncquery.tcp(question, HERE, timeout=_LIMIT_S, source=asker)


def texts(said: Message) -> list[str]:
    """Records of an answer. Their order is another each time, which spreads the askers."""
    return [record.to_text() for rrset in said.answer for record in rrset]


class Upstream(asyncio.DatagramProtocol):
    """A resolver outside: tells what it was asked, and answers with its tables."""

    def __init__(self, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, count: int = 1) -> None:
        self.asked: list[str] = []
        self._rcode = rcode
        self._count = count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def say(self, data: bytes) -> Message:
        question = dns.message.from_wire(data)
        self.asked.append(question.question[0].name.to_text())
        said = dns.message.make_response(question, recursion_available=True)
        said.set_rcode(self._rcode)
        if self._rcode == dns.rcode.NOERROR:
            addresses = [f"192.0.2.{number}" for number in range(1, self._count + 1)]
            said.answer = [
                dns.rrset.from_text(question.question[0].name, 60, "IN", "A", *addresses)
            ]
        return said

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        said = self.say(data).to_wire(max_size=512, prefer_truncation=True)
        self._transport.sendto(said, addr)  # type: ignore[attr-defined]

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        said = self.say(await reader.readexactly(size)).to_wire()
        writer.write(struct.pack("!H", len(said)) + said)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def outside(resolvers: list[str], **tables: Any) -> AsyncIterator[Upstream]:
    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(
        lambda: Upstream(**tables), local_addr=(UPSTREAM, 53)
    )
    tcp = await asyncio.start_server(upstream.serve_tcp, UPSTREAM, 53)
    resolvers.append(UPSTREAM)
    try:
        yield upstream
    finally:
        transport.close()
        tcp.close()


# -- names of ours


def test_a_name_has_its_address(run: Run) -> None:
    async def main() -> None:
        async with serving():
            for name in ("db", "DB", "db.front"):
                said = await ask(name)
                assert (said.rcode(), texts(said)) == (dns.rcode.NOERROR, [DB])
                assert said.flags & dns.flags.RA

    run(main)


def test_a_shared_name_has_all_addresses(run: Run) -> None:
    async def main() -> None:
        async with serving():
            assert set(texts(await ask("node"))) == {WEB, DB}

    run(main)


def test_an_address_has_its_name(run: Run) -> None:
    async def main() -> None:
        async with serving():
            name = dns.reversename.from_address(DB).to_text()
            assert texts(await ask(name, kind="PTR")) == ["db.front."]

    run(main)


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "HTTPS"])
def test_a_known_name_without_such_a_record_exists_all_the_same(run: Run, kind: str) -> None:
    """NXDOMAIN would make resolvers give up on the A record as well."""

    async def main() -> None:
        async with serving():
            said = await ask("db", kind=kind)
            assert (said.rcode(), said.answer) == (dns.rcode.NOERROR, [])

    run(main)


@pytest.mark.parametrize("asker", [STRANGER, "127.3.0.2"])
def test_names_of_other_networks_are_not_told(run: Run, asker: str) -> None:
    async def main() -> None:
        async with serving():
            said = await ask("db", asker)
            assert (said.rcode(), said.answer) == (dns.rcode.SERVFAIL, [])

    run(main)


def test_an_address_whose_name_is_no_dns_name_is_answered(run: Run) -> None:
    """A container's name may be longer than a label."""

    async def main() -> None:
        async with serving():
            name = dns.reversename.from_address("127.1.0.80").to_text()
            said = await ask(name, kind="PTR")
            assert texts(said) == []

    run(main)


# -- large answers


def test_a_large_answer_is_cut_to_the_askers_size(run: Run) -> None:
    async def main() -> None:
        async with serving():
            for size in (0, 1232):
                question = query("many", use_edns=0 if size else -1, payload=size or None)
                said = await dns.asyncquery.udp(
                    question, HERE, timeout=_LIMIT_S, source=MANY[0], raise_on_truncation=False
                )
                assert said.flags & dns.flags.TC
                assert len(said.to_wire()) <= (size or 512)

    run(main)


def test_a_large_answer_is_whole_over_tcp(run: Run) -> None:
    async def main() -> None:
        async with serving():
            assert set(texts(await ask_tcp(query("many"), MANY[0]))) == set(MANY)

    run(main)


# -- other names


def test_an_unknown_name_is_asked_outside(run: Run, resolvers: list[str]) -> None:
    async def main() -> None:
        async with serving(), outside(resolvers) as upstream:
            assert texts(await ask("example.org")) == ["192.0.2.1"]
            assert upstream.asked == ["example.org."]

    run(main)


def test_who_has_resolvers_of_his_own_asks_those_and_knows_our_names(
    run: Run, resolvers: list[str]
) -> None:
    async def main() -> None:
        async with serving(), outside(resolvers, count=2):
            resolvers.clear()  # the host has none
            assert texts(await ask("db", CHOOSER)) == [DB]
            assert len(texts(await ask("example.org", CHOOSER))) == 2
            assert len(texts(await ask_tcp(query("example.org"), CHOOSER))) == 2
            assert (await ask("example.org")).rcode() == dns.rcode.SERVFAIL

    run(main)


def test_a_name_of_ours_is_never_asked_outside(run: Run, resolvers: list[str]) -> None:
    async def main() -> None:
        async with serving(), outside(resolvers) as upstream:
            for kind in ("A", "AAAA", "ANY"):
                await ask("db", kind=kind)
            assert upstream.asked == []

    run(main)


def test_the_outside_says_that_a_name_does_not_exist(run: Run, resolvers: list[str]) -> None:
    async def main() -> None:
        async with serving(), outside(resolvers, rcode=dns.rcode.NXDOMAIN):
            assert (await ask("nowhere.example")).rcode() == dns.rcode.NXDOMAIN

    run(main)


def test_the_next_resolver_is_asked(run: Run, resolvers: list[str]) -> None:
    async def main() -> None:
        resolvers.append(DEAD)
        async with serving(), outside(resolvers):
            assert texts(await ask("example.org")) == ["192.0.2.1"]

    run(main)


@pytest.mark.parametrize("known", [[], [DEAD]])
def test_nobody_outside_answers(run: Run, resolvers: list[str], known: list[str]) -> None:
    async def main() -> None:
        resolvers.extend(known)
        async with serving():
            assert (await ask("example.org")).rcode() == dns.rcode.SERVFAIL

    run(main)


def test_a_large_answer_from_outside_is_whole_over_tcp(run: Run, resolvers: list[str]) -> None:
    async def main() -> None:
        async with serving(), outside(resolvers, count=200):
            assert len(texts(await ask_tcp(query("example.org")))) == 200

    run(main)


def test_questions_do_not_wait_for_one_another(run: Run, resolvers: list[str]) -> None:
    """While the outside is silent, names of ours are answered."""

    async def main() -> None:
        resolvers.append(DEAD)
        async with serving(), asyncio.TaskGroup() as tasks:
            slow = [tasks.create_task(ask(f"x{number}.example")) for number in range(100)]
            assert texts(await ask("db")) == [DB]
            assert not all(task.done() for task in slow)

    run(main)


# -- tcp


def test_names_are_answered_over_tcp(run: Run) -> None:
    async def main() -> None:
        async with serving():
            assert texts(await ask_tcp(query("db"))) == [DB]

    run(main)


async def exchange(data: bytes, *, half_close: bool = False) -> bytes:
    """What comes back over TCP until the server closes."""
    reader, writer = await asyncio.open_connection(HERE, 53, local_addr=(WEB, 0))
    try:
        writer.write(data)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(_LIMIT_S):
            return await reader.read()
    finally:
        writer.close()


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(each)) + each for each in messages)


def test_several_questions_go_over_one_connection(run: Run) -> None:
    async def main() -> None:
        async with serving():
            questions = [query("db"), query("web")]
            data = framed(*(each.to_wire() for each in questions))
            got = await exchange(data, half_close=True)
            size = int.from_bytes(got[:2], "big")
            first, second = got[2 : 2 + size], got[4 + size :]
            assert [texts(dns.message.from_wire(each)) for each in (first, second)] == [[DB], [WEB]]

    run(main)


@pytest.mark.parametrize("data", [framed(b"nonsense"), framed(b""), b"\0", b"\xff\xffshort"])
def test_nonsense_over_tcp_ends_the_connection(run: Run, data: bytes) -> None:
    async def main() -> None:
        async with serving():
            assert await exchange(data, half_close=True) == b""
            assert texts(await ask_tcp(query("db"))) == [DB]

    run(main)


# -- nonsense


async def silent_for(*packets: bytes) -> None:
    """None of the packets is answered: the first answer is that to a good question sent last."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((WEB, 0))
        link.setblocking(False)
        link.connect((HERE, 53))
        for packet in packets:
            await loop.sock_sendall(link, packet)
        question = query("db")
        await loop.sock_sendall(link, question.to_wire())
        async with asyncio.timeout(_LIMIT_S):
            said = dns.message.from_wire(await loop.sock_recv(link, 4096))
    assert (said.id, texts(said)) == (question.id, [DB])


def test_nonsense_is_ignored(run: Run) -> None:
    async def main() -> None:
        async with serving():
            await silent_for(
                b"", b"\0", b"\xff" * 12, b"GET / HTTP/1.1\r\n\r\n", bytes(12), bytes(600)
            )

    run(main)


def test_answers_are_not_answered(run: Run) -> None:
    """Two servers would talk for ever."""

    async def main() -> None:
        async with serving():
            await silent_for(dns.message.make_response(query("db")).to_wire())

    run(main)


def test_damaged_questions_cost_nothing_but_themselves(run: Run) -> None:
    async def main() -> None:
        rng = random.Random(53)
        whole = [
            query("db").to_wire(),
            query("web", "PTR").to_wire(),
            query("x", use_edns=0).to_wire(),
        ]
        async with serving() as server:
            for _ in range(1500):
                packet = bytearray(rng.choice(whole))
                for _ in range(rng.randrange(1, 4)):
                    packet[rng.randrange(len(packet))] = rng.randrange(256)
                await server.answer(bytes(packet[: rng.randrange(1, len(packet) + 1)]), WEB)
            assert texts(await ask("db")) == [DB]

    run(main)


@pytest.mark.parametrize("opcode", [dns.opcode.UPDATE, dns.opcode.NOTIFY, dns.opcode.STATUS])
def test_changes_are_not_carried_outside(
    run: Run, resolvers: list[str], opcode: dns.opcode.Opcode
) -> None:
    async def main() -> None:
        question = query("example.org", "SOA")
        question.set_opcode(opcode)
        async with serving() as server, outside(resolvers) as upstream:
            await server.answer(question.to_wire(), WEB)
            assert upstream.asked == []

    run(main)


# -- listening


def test_listening_again_is_nothing_and_ends_when_told(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            await server.listen(HERE)
            await server.listen("127.0.0.2")
            assert server.addresses() == {HERE, "127.0.0.2"}
            server.quiet("127.0.0.2")
            server.quiet("127.0.0.2")
            assert server.addresses() == {HERE}
            assert texts(await ask("db")) == [DB]
            await asyncio.sleep(0)  # closed sockets go with the next turn of the loop
            await server.listen("127.0.0.2")

    run(main)


def test_an_address_that_is_half_taken_is_tried_again(run: Run) -> None:
    async def main() -> None:
        async with serving() as server:
            with socket.socket() as other:
                other.bind(("127.0.0.2", 53))
                other.listen()
                with pytest.raises(OSError, match=r"in use|Address"):
                    await server.listen("127.0.0.2")
                assert server.addresses() == {HERE}
            await asyncio.sleep(0)
            await server.listen("127.0.0.2")
            said = await dns.asyncquery.tcp(query("db"), "127.0.0.2", timeout=2, source=WEB)
            assert texts(said) == [DB]

    run(main)

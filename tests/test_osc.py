"""OSC: what is read and refused, from real clients over real sockets; that nothing sent to us can stop us."""

from __future__ import annotations

import logging
import math
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc import slip
from pythonosc.osc_message import OscMessage
from pythonosc.osc_tcp_server import MODE_1_0, MODE_1_1
from pythonosc.tcp_client import SimpleTCPClient
from pythonosc.udp_client import SimpleUDPClient
from stylus_daemon import osc_messages
from stylus_daemon.osc_framing import MESSAGE
from stylus_daemon.osc_messages import Argument, Malformed, Message, Peer, Unreadable, decode, encode
from stylus_daemon.osc_server import CONNECTIONS, UNSENT, Server

from tests.programs import need_liblo

HOST = "127.0.0.1"
FUTURE = struct.pack(">Q", 2**64 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ADDRESSES = st.text(st.characters(categories=["L", "N", "P"]), max_size=60).map(lambda text: f"/{text}")
ARGUMENTS = st.lists(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(width=32) | TEXTS | st.binary(min_size=1),
    max_size=20,
)

Frame = Callable[[bytes], bytes]
FRAMES: dict[str, Frame] = {
    "length": lambda packet: struct.pack(">I", len(packet)) + packet,
    "slip": slip.encode,
    "slip without its first END": lambda packet: slip.encode(packet)[1:],
}


def bundle(*elements: bytes, time: bytes = FUTURE) -> bytes:
    return b"#bundle\0" + time + b"".join(struct.pack(">I", len(element)) + element for element in elements)


def nested(depth: int) -> bytes:
    packet = encode("/deep")
    for _ in range(depth):
        packet = bundle(packet)
    return packet


def padded(raw: bytes) -> bytes:
    return raw + bytes(4 - len(raw) % 4)


def same(some: tuple[Argument, ...], others: tuple[Argument, ...]) -> bool:
    """Equal in value and type; NaN is NaN."""
    return [(type(one), repr(one)) for one in some] == [(type(one), repr(one)) for one in others]


# Packets


@given(ADDRESSES, ARGUMENTS)
def test_what_is_written_is_read(address: str, arguments: list[Argument]) -> None:
    ((read, values),) = decode(encode(address, *arguments))
    assert read == address
    assert same(values, tuple(arguments))


@given(ADDRESSES, ARGUMENTS)
def test_python_osc_reads_the_same(address: str, arguments: list[Argument]) -> None:
    message = OscMessage(encode(address, *arguments))
    assert message.address == address
    assert same(tuple(message.params), tuple(arguments))


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (-(2**31), b"i"),
        (2**31 - 1, b"i"),
        (2**31, b"h"),
        (-(2**31) - 1, b"h"),
        (-(2**63), b"h"),
        (0.5, b"f"),
        (math.inf, b"f"),
        (math.nan, b"f"),
        (1e300, b"d"),
        (-3.5e38, b"d"),
        (True, b"T"),
        (False, b"F"),
        (None, b"N"),
    ],
)
def test_the_smallest_type_that_holds_it(value: Argument, tag: bytes) -> None:
    packet = encode("/a", value)
    assert packet[4:8] == b"," + tag + b"\0\0"
    assert same(decode(packet)[0][1], (value,))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "a\0b", "\udc80", b"", 10**4000])
def test_what_osc_has_no_form_for(value: Argument) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each has its own text
        encode("/a", value)


@pytest.mark.parametrize("address", ["", "a", "#bundle", "/a\0"])
def test_what_is_no_address_is_not_sent(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        encode(address)


def test_the_rarer_types() -> None:
    packet = padded(b"/a") + padded(b",trcmSIdh") + struct.pack(">QIIBBBB", 2**63, 0xFF00FF00, 65, 1, 0x90, 60, 100)
    packet += padded(b"symbol") + struct.pack(">dq", 0.1, -5)
    ((address, arguments),) = decode(packet)
    assert address == "/a"
    assert same(arguments, (2**63, 0xFF00FF00, "A", b"\x01\x90<d", "symbol", math.inf, 0.1, -5))


def test_no_type_tags_are_no_arguments() -> None:
    assert decode(b"/abc\0\0\0\0") == [("/abc", ())]


def test_an_empty_blob_and_an_empty_text() -> None:
    assert decode(b"/a\0\0,bs\0" + bytes(8)) == [("/a", (b"", ""))]


REFUSED = {
    "nothing": b"",
    "no multiple of 4": b"/a\0",
    "no slash": padded(b"a") + b",\0\0\0",
    "no end of the address": b"/abc",
    "too long an address": padded(b"/" + b"a" * 255),
    "an address that is not UTF-8": padded(b"/\xff\xfe"),
    "an address of several lines": padded(b"/a\nb"),
    "no comma": b"/a\0\0i\0\0\0\0\0\0\1",
    "no end of the type tags": b"/a\0\0,iii",
    "type tags that are not UTF-8": b"/a\0\0,\xff\0\0",
    "an unknown type": b"/a\0\0,x\0\0",
    "an array": b"/a\0\0,[i]\0\0\0\0\0\0\0\1",
    "no argument": b"/a\0\0,i\0\0",
    "half an argument": b"/a\0\0,h\0\0\0\0\0\1",
    "an argument too many": b"/a\0\0,i\0\0" + bytes(8),
    "a text that is not UTF-8": b"/a\0\0,s\0\0\xc3\x28\0\0",
    "a text without an end": b"/a\0\0,s\0\0aaaa",
    "a blob longer than the packet": b"/a\0\0,b\0\0\0\0\0\x05aaaa",
    "a blob of 4 GB": b"/a\0\0,b\0\0\xff\xff\xff\xff",
    "a character that is none": b"/a\0\0,c\0\0\0\0\xd8\0",
    "60,000 types": padded(b"/a") + padded(b"," + b"T" * 60_000),
    "60,000 unknown types": padded(b"/a") + padded(b"," + b"x" * 60_000),
    "a bundle without a time": b"#bundle\0",
    "an element without a size": bundle() + bytes(4),
    "an element longer than the bundle": bundle(encode("/a"))[:-4],
    "an element with a size below 0": bundle() + b"\xff\xff\xff\xfc" + encode("/a"),
    "an element with a crooked size": bundle() + struct.pack(">I", 7) + encode("/a"),
    "bundles 9 deep": nested(9),
    "bundles 2,000 deep": nested(2000),
    "a message too many": bundle(*[encode("/a")] * (osc_messages.ELEMENTS + 1)),
    "many arguments in many messages": bundle(*[encode("/a", *[None] * 500)] * 3),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(packet: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Unreadable) as refused:
        decode(packet)
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii()
    assert caplog.records == []


def test_patterns_are_text() -> None:
    for address in ("/" + "*" * 30, "/{a,b}?[!a-z]", "//", "/((((a+)+)+)+)+$"):
        assert decode(encode(address, 1)) == [(address, (1,))]


def test_bundles_in_their_order_and_at_once() -> None:
    one, two, three, four = (encode(f"/{number}", number) for number in range(4))
    packet = bundle(one, bundle(two, bundle(), three, time=bytes(8)), four)
    assert decode(packet) == [(f"/{number}", (number,)) for number in range(4)]
    assert decode(nested(8)) == [("/deep", ())]
    assert len(decode(bundle(*[encode("/a")] * osc_messages.ELEMENTS))) == osc_messages.ELEMENTS
    assert len(decode(encode("/a", *range(osc_messages.ARGUMENTS)))[0][1]) == osc_messages.ARGUMENTS
    assert decode(bundle()) == []


def test_a_bundle_is_read_whole_or_not_at_all() -> None:
    with pytest.raises(Unreadable):
        decode(bundle(encode("/a"), b"/b\0\0,x\0\0"))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda raw: b"#bundle\0" + raw))
def test_anything_is_read_or_refused(packet: bytes) -> None:
    try:
        read = decode(packet)
    except Unreadable:
        return
    assert all(address.startswith("/") for address, _ in read)


@given(ADDRESSES, ARGUMENTS, st.integers(0, 9), st.randoms(use_true_random=False))
def test_anything_damaged_is_read_or_refused(
    address: str, arguments: list[Argument], depth: int, rng: random.Random
) -> None:
    packet = bytearray(encode(address, *arguments))
    for _ in range(depth):
        packet = bytearray(bundle(bytes(packet), encode("/b", 1)))
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(packet))
        match rng.randrange(3):
            case 0:
                packet[at] = rng.randrange(256)
            case 1:
                del packet[at : at + rng.randint(1, 8)]
                packet += b"\0"
            case _:
                packet[at:at] = rng.randbytes(4)
    with suppress(Unreadable):
        decode(bytes(packet))


# Sockets


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server(HOST, 0)) as made:
        yield made


def collect(server: Server, count: int, seconds: float = 20) -> list[Message | Malformed]:
    """What comes, until there is so much of it."""
    found: list[Message | Malformed] = []
    for _ in range(int(seconds * 10)):
        if len(found) >= count:
            break
        found += server.receive(0.1)
    assert len(found) == count
    return found


def messages(server: Server, count: int) -> list[Message]:
    found = collect(server, count)
    assert all(isinstance(one, Message) for one in found), found
    return cast(list[Message], found)


def connect(server: Server) -> socket.socket:
    return socket.create_connection((HOST, server.port), timeout=20)


def read(client: socket.socket, size: int) -> bytes:
    """So many bytes, or what there is before the connection ends."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def is_closed(client: socket.socket) -> bool:
    """Whether the server has ended the connection."""
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_python_osc_over_udp(server: Server) -> None:
    with closing(SimpleUDPClient(HOST, server.port, timeout=20)) as client:
        client.send_message("/stylus/ping", ["rid", 1, 0.5, True, None])
        (message,) = messages(server, 1)
        assert (message.address, message.arguments) == ("/stylus/ping", ("rid", 1, 0.5, True, None))
        assert message.peer.transport == "udp"
        assert server.send(message.peer, "/stylus/reply", "/stylus/ping", "rid", "ü", 2**40)
        answer = OscMessage(client.receive())
        assert (answer.address, answer.params) == ("/stylus/reply", ["/stylus/ping", "rid", "ü", 2**40])


@pytest.mark.parametrize("mode", [MODE_1_0, MODE_1_1])
def test_python_osc_over_tcp(server: Server, mode: str) -> None:
    with closing(SimpleTCPClient(HOST, server.port, mode=mode, timeout=20)) as client:  # type: ignore[no-untyped-call]
        for number in range(3):
            client.send_message("/stylus/ping", [number, "\u06c0 ÀÛ", b"\xc0\xdb\xdc\xdd"])
        for number, message in enumerate(messages(server, 3)):
            assert message.arguments == (number, "\u06c0 ÀÛ", b"\xc0\xdb\xdc\xdd")
            assert message.peer.transport == "tcp"
        assert server.send(message.peer, "/stylus/reply", b"\xc0\xdb\xdc\xdd")
        assert OscMessage(client.receive()[0]).params == [b"\xc0\xdb\xdc\xdd"]


def test_two_framings_at_once(server: Server) -> None:
    with connect(server) as length, connect(server) as slipped:
        clients = ((length, FRAMES["length"]), (slipped, FRAMES["slip"]))
        for number in range(20):
            for client, frame in clients:
                client.sendall(frame(encode("/a", number))[:5])
            assert server.receive(0.001) == []
            for client, frame in clients:
                client.sendall(frame(encode("/a", number))[5:])
            assert [message.arguments for message in messages(server, 2)] == [(number,)] * 2
        for client, frame in clients:
            client.sendall(frame(encode("/who")))
            (message,) = messages(server, 1)
            assert message.peer.port == client.getsockname()[1]
            assert server.send(message.peer, "/you", 1)
            expected = frame(encode("/you", 1))
            assert read(client, len(expected)) == expected


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_liblo(server: Server, transport: str) -> None:
    need_liblo()
    command = ["oscsend", f"osc.{transport}://{HOST}:{server.port}", "/stylus/ping", "sihfdTFNISc"]
    subprocess.run([*command, "grüße", "-7", str(2**40), "0.5", "0.1", "symbol", "c"], check=True)
    (message,) = messages(server, 1)
    assert message.address == "/stylus/ping"
    assert message.arguments == ("grüße", -7, 2**40, 0.5, 0.1, True, False, None, math.inf, "symbol", "c")


def test_liblo_reads_us(server: Server) -> None:
    need_liblo()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(["oscdump", "-L", str(port)], stdout=subprocess.PIPE, text=True) as dump:
        assert dump.stdout is not None
        # It says nothing when it is ready; a closed port refuses what comes before that.
        ready = threading.Event()
        lines: list[str] = []

        def listen(output: Iterator[str]) -> None:
            lines.append(next(output))
            ready.set()

        reader = threading.Thread(target=listen, args=(dump.stdout,))
        reader.start()
        while not ready.wait(0.1):
            assert dump.poll() is None
            server.send(Peer("udp", HOST, port), "/stylus/job/state", 3, "done", 1.5, True, None, 2**40)
        reader.join()
        dump.kill()
    assert lines[0].split(" ", 1)[1].strip() == '/stylus/job/state isfTNh 3 "done" 1.500000 #T Nil 1099511627776'


def test_a_whole_datagram(server: Server) -> None:
    text = "x" * 60_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sendto(encode("/a", text), (HOST, server.port))
        assert messages(server, 1)[0].arguments == (text,)


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_stops_nobody(server: Server, packet: bytes) -> None:
    small = packet[:60_000]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, connect(server) as stream:
        for raw in (small, encode("/fine")):
            client.sendto(raw, (HOST, server.port))
        bad, fine = collect(server, 2)
        assert isinstance(bad, Malformed)
        assert isinstance(fine, Message)
        assert fine.address == "/fine"
        for raw in (packet, encode("/fine")):
            stream.sendall(FRAMES["length"](raw))
        bad, fine = collect(server, 2)
        assert isinstance(bad, Malformed)
        assert bad.peer == fine.peer
        assert isinstance(fine, Message)
        assert fine.address == "/fine"


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_cut_anywhere(server: Server, frame: Frame) -> None:
    packet = encode("/a", "ü\u06c0", b"\xc0\xdb\xdc\xdd\0\xc0", 7)
    whole = frame(packet) * 2
    with connect(server) as client:
        for at in range(1, len(whole)):
            client.sendall(whole[:at])
            found = server.receive(0.002)
            client.sendall(whole[at:])
            found += collect(server, 2 - len(found))
            assert [one.arguments for one in found if isinstance(one, Message)] == [decode(packet)[0][1]] * 2
        found = []
        for byte in whole:
            client.sendall(bytes([byte]))
            found += server.receive(0.002)
        found += collect(server, 2 - len(found))
        assert [one.arguments for one in found if isinstance(one, Message)] == [decode(packet)[0][1]] * 2


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_many_in_one_piece(server: Server, frame: Frame) -> None:
    with connect(server) as client:
        client.sendall(b"".join(frame(encode("/a", number)) for number in range(500)))
        assert [message.arguments for message in messages(server, 500)] == [(number,) for number in range(500)]


def test_ends_between_packets_are_nothing(server: Server) -> None:
    with connect(server) as client:
        client.sendall(slip.END * 100_000 + slip.encode(encode("/a")) + slip.END * 100_000)
        assert [message.address for message in messages(server, 1)] == ["/a"]


def test_a_wrong_escape_costs_one_packet(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"\xc0/\xdb\x01\xc0" + b"\xc0/\xdb\xc0" + slip.encode(encode("/a")))
        first, second, fine = collect(server, 3)
        assert isinstance(first, Malformed)
        assert isinstance(second, Malformed)
        assert isinstance(fine, Message)
        assert fine.address == "/a"


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_the_longest_message(server: Server, frame: Frame) -> None:
    largest = MESSAGE - len(encode("/a", "x")) + 3
    packets = [b"/a\0\0,s\0\0" + padded(b"\xdb\x80" + b"x" * (size - 2)) for size in (largest, largest + 4)]
    assert [len(packet) for packet in packets] == [MESSAGE, MESSAGE + 4]
    with connect(server) as client:
        sender = threading.Thread(target=send_all, args=(client, frame(packets[0]) + frame(packets[1])))
        sender.start()
        fine, bad = collect(server, 2)
        sender.join()
        assert isinstance(fine, Message)
        assert len(str(fine.arguments[0])) == largest - 1
        assert isinstance(bad, Malformed)
        assert is_closed(client)
        assert not server.send(bad.peer, "/a")


def send_all(client: socket.socket, data: bytes) -> None:
    """Send what the server may not want to the end."""
    with suppress(OSError):
        client.sendall(data)


def test_what_never_ends_is_not_waited_for(server: Server) -> None:
    with connect(server) as client:
        sender = threading.Thread(target=send_all, args=(client, b"/" * (4 << 20)))
        sender.start()
        (bad,) = collect(server, 1)
        sender.join()
        assert isinstance(bad, Malformed)
        assert is_closed(client)


@pytest.mark.parametrize("stream", ["http", "tls"])
def test_what_a_web_page_can_have_a_browser_send_is_no_request(server: Server, stream: str) -> None:
    message = slip.encode(encode("/stylus/job/cancel", "rid", 1))
    begins = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" if stream == "http" else b"\x16\x03\x01\x02"
    with connect(server) as client:
        client.sendall(begins + message)
        (bad,) = collect(server, 1)
        assert isinstance(bad, Malformed)
        assert is_closed(client)
    assert server.receive(0.1) == []


def test_nothing_but_escapes(server: Server) -> None:
    with connect(server) as client:
        for count, kind in ((65_000, Message), (66_000, Malformed), (10, Message)):
            packet = b"/a\0\0,b\0\0" + struct.pack(">I", count) + b"\xc0" * count
            packet += bytes(-len(packet) % 4)
            client.sendall(slip.encode(packet))
            assert isinstance(collect(server, 1)[0], kind)


def test_half_closed(server: Server) -> None:
    with connect(server) as client:
        client.sendall(slip.encode(encode("/a")))
        client.shutdown(socket.SHUT_WR)
        (message,) = messages(server, 1)
        assert server.receive(0.05) == []
        assert server.send(message.peer, "/b", "x" * 3000)
        expected = slip.encode(encode("/b", "x" * 3000))
        assert read(client, len(expected)) == expected


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_ended_within_a_packet(server: Server, frame: Frame) -> None:
    with connect(server) as client:
        client.sendall(frame(encode("/a")) + frame(encode("/b", 1))[:6])
    fine, bad = collect(server, 2)
    assert isinstance(fine, Message)
    assert fine.address == "/a"
    assert isinstance(bad, Malformed)
    assert server.receive(0) == []


def test_reset(server: Server) -> None:
    client = connect(server)
    client.sendall(slip.encode(encode("/a")))
    (message,) = messages(server, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert server.receive(0.05) == []
    assert not server.send(message.peer, "/b")


def test_who_does_not_read_is_given_up_and_blocks_nobody(server: Server) -> None:
    with socket.socket() as slow, connect(server) as other:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((HOST, server.port))
        slow.sendall(slip.encode(encode("/slow")))
        (message,) = messages(server, 1)
        sent = 0
        while server.send(message.peer, "/event", "x" * 3900):
            sent += 3900
            assert sent < 100 << 20
            if sent % (3900 * 500) == 0:
                other.sendall(slip.encode(encode("/other")))
                assert messages(server, 1)[0].address == "/other"
        assert sent > UNSENT / 2
        other.sendall(slip.encode(encode("/other")))
        (message,) = messages(server, 1)
        assert server.send(message.peer, "/fine")


def test_who_reads_late_gets_it_all(server: Server) -> None:
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect((HOST, server.port))
        slow.sendall(FRAMES["length"](encode("/slow")))
        (message,) = messages(server, 1)
        expected = b""
        for number in range(250):
            assert server.send(message.peer, "/event", number, "x" * 3900)
            expected += FRAMES["length"](encode("/event", number, "x" * 3900))
        got = bytearray()
        reader = threading.Thread(target=lambda: got.extend(read(slow, len(expected))))
        reader.start()
        while reader.is_alive():
            server.receive(0.01)
        assert got == expected


def test_the_one_silent_for_longest_makes_room(server: Server) -> None:
    clients = []
    try:
        for number in range(CONNECTIONS):
            clients.append(connect(server))
            clients[-1].sendall(slip.encode(encode("/a", number)))
            messages(server, 1)
        clients[0].sendall(slip.encode(encode("/a")))
        clients[9].shutdown(socket.SHUT_WR)
        messages(server, 1)
        server.receive(0.05)
        for _ in range(2):
            clients.append(connect(server))
            clients[-1].sendall(slip.encode(encode("/new")))
            assert messages(server, 1)[0].address == "/new"
        # One had ended, two was the silent one.
        assert is_closed(clients[9])
        assert is_closed(clients[1])
        for client in (clients[0], clients[2], clients[-1]):
            client.sendall(slip.encode(encode("/still")))
            assert messages(server, 1)[0].address == "/still"
    finally:
        for client in clients:
            client.close()


def test_a_flood_starves_nobody(server: Server) -> None:
    with connect(server) as flood, connect(server) as quiet, closing(SimpleUDPClient(HOST, server.port)) as udp:
        quiet.sendall(slip.encode(encode("/quiet")))
        messages(server, 1)
        sender = threading.Thread(target=send_all, args=(flood, slip.encode(encode("/flood")) * 20_000))
        sender.start()
        count = 0
        while count < 1000:
            count += len(server.receive(1))
        quiet.sendall(slip.encode(encode("/quiet")))
        udp.send_message("/quiet", [])
        heard = calls = 0
        while heard < 2:
            found = server.receive(1)
            assert len(found) <= 1000
            heard += sum(isinstance(one, Message) and one.address == "/quiet" for one in found)
            count += len(found)
            calls += 1
            assert calls < 20
        while count < 20_002:
            count += len(server.receive(1))
        sender.join()


def test_wake_from_a_thread(server: Server) -> None:
    caller = threading.Timer(0.05, server.wake)
    caller.start()
    assert server.receive(600) == []
    caller.join()
    for _ in range(100_000):
        server.wake()
    assert server.receive(600) == []
    assert server.receive(0) == []


def test_ports() -> None:
    with closing(Server(HOST, 0)) as first:
        with pytest.raises(OSError, match="in use"):
            Server(HOST, first.port)
        port = first.port
    # Free again at once, and taken where only one of the two kinds is.
    with closing(Server(HOST, port)):
        pass
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind((HOST, 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            with pytest.raises(OSError, match="in use"):
                Server(HOST, taken.getsockname()[1])


def test_closing() -> None:
    server = Server(HOST, 0)
    with connect(server) as client:
        client.sendall(slip.encode(encode("/a")))
        (message,) = messages(server, 1)
        server.close()
        server.close()
        server.wake()
        assert is_closed(client)
        assert not server.send(message.peer, "/a")
        assert not server.send(Peer("udp", HOST, 9), "/a")


def test_what_cannot_be_sent(server: Server) -> None:
    with pytest.raises(ValueError, match="4000 are sent"):
        server.send(Peer("udp", HOST, 9), "/a", "x" * 4000)
    for peer in (Peer("tcp", HOST, 9), Peer("udp", HOST, 0), Peer("udp", HOST, 70_000), Peer("udp", "::1", 9)):
        assert not server.send(peer, "/a")


class Unreachable:
    """The UDP socket as Windows has it after an answer to a port where nobody listens."""

    def __init__(self, real: socket.socket) -> None:
        self.real, self.resets = real, 2

    def recvfrom(self, size: int) -> tuple[bytes, object]:
        if self.resets:
            self.resets -= 1
            raise ConnectionResetError
        return self.real.recvfrom(size)


def test_unreachable_on_windows(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_udp", Unreachable(server._udp))
    with closing(SimpleUDPClient(HOST, server.port)) as client:
        client.send_message("/a", [])
        assert messages(server, 1)[0].address == "/a"


def test_ipv6() -> None:
    try:
        server = Server("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with closing(server), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.sendto(encode("/a"), ("::1", server.port))
        (message,) = messages(server, 1)
        assert server.send(message.peer, "/b")
        assert client.recv(100) == encode("/b")

"""OSC as the device's script writes and reads it, beside the daemon's and python-osc's."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc.osc_message import OscMessage
from stylus_daemon.osc_messages import ADDRESS, Argument, decode, encode

from tests.daemons import DEADLINE
from tests.programs import need_program

SCRIPT = Path(__file__).parents[1] / "max_for_live" / "stylus_node.js"

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
ADDRESSES = st.text(st.characters(categories=["L", "N", "P"]), max_size=60).map(lambda text: f"/{text}")
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SAFE = 2**53 - 1


class Codec:
    """`encode` and `decode` of the script, in one process."""

    CODE = """
      const { encode, decode } = require(process.argv[1]);
      const does = {
        encode: ([address, values]) => encode(address, values).toString("hex"),
        decode: ([hex]) => decode(Buffer.from(hex, "hex")),
      };
      require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
        const [name, ...words] = JSON.parse(line);
        let said;
        try { said = { said: does[name](words) }; } catch (error) { said = { error: error.message }; }
        console.log(JSON.stringify(said));
      });
    """

    def __init__(self) -> None:
        need_program("node", "nodejs")
        self.process = subprocess.Popen(
            ["node", "--eval", self.CODE, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            encoding="utf-8",
        )  # fmt: skip

    def close(self) -> None:
        self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == 0

    def _ask(self, *words: object) -> dict[str, Any]:
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()
        return cast(dict[str, Any], json.loads(stdout.readline()))

    def encode(self, address: object, values: list[Any]) -> bytes:
        answer = self._ask("encode", address, values)
        if "error" in answer:
            raise ValueError(answer["error"])
        return bytes.fromhex(answer["said"])

    def decode(self, packet: bytes) -> tuple[str, list[Any]] | None:
        said = self._ask("decode", packet.hex())["said"]
        return said and (said["address"], said["values"])


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    with closing(Codec()) as made:
        yield made


def alike(some: list[Any], others: list[Any]) -> bool:
    """Equal as JSON has them: its numbers are floats of 64 bits, and only finite ones."""

    def plain(value: Any) -> object:
        if isinstance(value, bytes):
            return {"type": "Buffer", "data": list(value)}
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) if abs(value) < float("inf") else None
        return value

    def typed(values: list[Any]) -> list[tuple[type, object]]:
        return [(type(value), value) for value in map(plain, values)]

    return typed(some) == typed(others)


@given(ADDRESSES, st.lists(st.none() | st.booleans() | st.integers(-SAFE, SAFE) | FLOATS | TEXTS, max_size=20))
def test_what_the_script_writes_is_read(codec: Codec, address: str, values: list[Any]) -> None:
    packet = codec.encode(address, values)
    ((read, arguments),) = decode(packet)
    assert (read, alike(list(arguments), values)) == (address, True)
    assert alike(list(OscMessage(packet).params), values)


@given(
    ADDRESSES,
    st.lists(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(width=32) | st.floats()
        | TEXTS | st.binary(min_size=1), max_size=20,
    ),
)  # fmt: skip
def test_the_script_reads_what_the_daemon_writes(codec: Codec, address: str, values: list[Argument]) -> None:
    packet = encode(address, *values)
    read = codec.decode(packet)
    assert read is not None
    assert read[0] == address
    assert alike(read[1], list(decode(packet)[0][1]))


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        (0, b"i"),
        (3.0, b"i"),
        (2**31 - 1, b"i"),
        (-(2**31), b"i"),
        (2**31, b"h"),
        (-(2**31) - 1, b"h"),
        (SAFE, b"h"),
        (SAFE + 1, b"d"),
        (0.1, b"d"),
        (-1e300, b"d"),
        (True, b"T"),
        (False, b"F"),
        (None, b"N"),
        ("1", b"s"),
    ],
)
def test_the_type_tag_of(codec: Codec, value: object, tag: bytes) -> None:
    assert codec.encode("/a", [value])[4:8] == b"," + tag + b"\0\0"


@pytest.mark.parametrize(
    ("address", "values"), [("a", []), (1, []), (None, []), ("/\0", []), ("/a", ["\0"]), ("/a", [{}]), ("/a", [[1]])]
)
def test_what_the_script_does_not_send(codec: Codec, address: object, values: list[Any]) -> None:
    with pytest.raises(ValueError, match="OSC"):
        codec.encode(address, values)


@given(ADDRESSES, st.lists(st.integers() | TEXTS | st.binary(), max_size=5), st.randoms(use_true_random=False))
def test_what_is_damaged_is_read_as_the_daemon_reads_it(
    codec: Codec, address: str, values: list[Any], rng: random.Random
) -> None:
    packet = bytearray(codec.encode(address, [value for value in values if not isinstance(value, bytes)]))
    packet += b"".join(value for value in values if isinstance(value, bytes))
    for _ in range(rng.randint(0, 4)):
        packet[rng.randrange(len(packet))] = rng.randrange(256)
    reads_like_the_daemon(codec, bytes(packet[: rng.choice([len(packet), rng.randrange(len(packet))])]))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda raw: b"/a\0\0,ihfdsbTFN\0\0" + raw))
def test_anything_is_read_as_the_daemon_reads_it(codec: Codec, packet: bytes) -> None:
    reads_like_the_daemon(codec, packet)


def reads_like_the_daemon(codec: Codec, packet: bytes) -> None:
    """The script takes no bundles and no rarer types, but is not so strict with addresses, as it repeats none."""
    read = codec.decode(packet)
    if read is None or not read[0].isprintable() or len(read[0].encode()) > ADDRESS:
        return
    ((address, values),) = decode(packet)
    assert (address, alike(list(values), read[1])) == (read[0], True)

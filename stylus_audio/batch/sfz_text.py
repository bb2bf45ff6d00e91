"""The text of an SFZ file: its headers and opcodes, each with its place, and `#include` and `#define` carried out.

The format is a list of `<header>` and `opcode=value`, in which a value may hold spaces and ends where the next opcode
begins. Everything between stays as it is, so that a change of one value is a change of that text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadRequest, NotAllowed, NotFound
from .any_case import Disk

_MOST = 32 * 2**20
"""Characters of an instrument with all that it includes."""

_DEEPEST, _LONGEST = 32, 2**16
"""Of definitions within definitions, and of what they amount to, in characters."""

# Of a value nothing can be read in two ways, so that it takes no possessive quantifiers, which Python 3.11.2 has wrong.
_TOKEN = re.compile(
    r"""
      (?P<space> \s+ | //[^\r\n]* )
    | (?P<comment> /\*.*?(?: (?P<closed>\*/) | \Z) )
    | < (?P<header> \w+ ) >
    | \#define [ \t]+ \$ (?P<defined> \w+ ) [ \t]* (?P<meaning> (?: (?!//|/\*) \S )* )
    | \#include [ \t]* " (?P<file> [^"\r\n]* ) "
    | base64data= [^<\#]*
    | (?P<opcode> [\w$]+ ) =
      (?P<value> (?: [^\s</] | /(?![/*]) )*
        (?: [ \t]+ (?! \w[\w$]*= | \#(?:define|include)\b ) (?: [^\s</] | /(?![/*]) )+ )* )
    | (?P<unreadable> [^\r\n]+ )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


@dataclass(frozen=True)
class Header:
    """`<name>`, in lower case; `end` is where its text ends."""

    name: str
    end: int


@dataclass(frozen=True)
class Opcode:
    """`name=value`, the name in lower case, both with their definitions put in.

    The text of both is `[start, end)`, that of the value alone `[at, end)`.
    """

    name: str
    value: str
    start: int
    at: int
    end: int


@dataclass(frozen=True)
class Script:
    """An instrument's whole text, with what it includes in place of each `#include`, and its tokens in order."""

    text: str
    tokens: tuple[Header | Opcode, ...]


def read_script(path: Path, disk: Disk) -> Script:
    """The script of an SFZ file; its includes are seen from its own folder, as players do.

    Raises `NotFound`, `NotAllowed` or `BadRequest` where it or what it includes is not there, cannot be read, is too
    large, or includes itself.
    """
    reader = _Reader(path.parent, disk)
    reader.read(path, ())
    return Script("".join(reader.pieces), tuple(reader.tokens))


def can_stand(value: str) -> bool:
    """Whether a player reads `sample=value` as exactly that value.

    >>> can_stand("Samples/C4 soft #2.wav"), can_stand("a key=60.wav"), can_stand("$5.wav")
    (True, False, False)
    """
    found = _TOKEN.fullmatch(f"sample={value}")
    return found is not None and found["value"] == value.strip() == value != "" and not re.match(r"\*|.*\$", value)


def replaced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """The text with each `[start, end)` replaced; places do not overlap.

    >>> replaced("volume=3 key=60", [(7, 8, "-4"), (15, 15, " ")])
    'volume=-4 key=60 '
    """
    pieces, at = [], 0
    for start, end, new in sorted(changes):
        pieces += [text[at:start], new]
        at = end
    return "".join([*pieces, text[at:]])


@dataclass
class _Reader:
    folder: Path
    disk: Disk
    pieces: list[str] = field(default_factory=list)
    tokens: list[Header | Opcode] = field(default_factory=list)
    meanings: dict[str, str] = field(default_factory=dict)
    length: int = 0

    def read(self, path: Path, within: tuple[Path, ...]) -> None:
        """Add a file; `within` are the files that include it."""
        if path.resolve() in within:
            raise BadRequest(f"{path} includes itself")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"{path} does not exist") from None
        except PermissionError:
            raise NotAllowed(f"{path} may not be read") from None
        except OSError as error:
            raise NotFound(f"{path} cannot be opened: {error.strerror}") from None
        if self.length + len(data) > _MOST:
            raise BadRequest(f"{path} is too large for an SFZ: {_MOST / 2**20:.0f} MB with its includes is the limit")
        self.scan(_decoded(data), (*within, path.resolve()))
        if within and not "".join(self.pieces[-1:]).endswith(("\n", "\r")):
            # What comes behind the `#include` is no part of the included file's last comment.
            self._keep("\n")

    def scan(self, text: str, within: tuple[Path, ...]) -> None:
        """Add a file's text."""
        for found in _TOKEN.finditer(text):
            start = self.length
            match found.lastgroup:
                case "file":
                    self._include(found["file"], within)
                    continue
                case "header":
                    self.tokens.append(Header(found["header"].lower(), start + len(found[0])))
                case "meaning":
                    self.meanings[found["defined"]] = found["meaning"]
                case "value":
                    name, value = self._meant(found["opcode"]).lower(), self._meant(found["value"]).strip()
                    at, end = start + len(found["opcode"]) + 1, start + len(found[0])
                    self.tokens.append(Opcode(name, value, start, at, end))
            self._keep(found[0])
            if found.lastgroup == "comment" and not found["closed"]:
                self._keep("*/")

    def _keep(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)

    def _include(self, name: str, within: tuple[Path, ...]) -> None:
        meant = self._meant(name)
        path = self.disk.find(self.folder, meant)
        if path is None:
            raise NotFound(f"{within[-1]} includes {meant!r}, which does not exist in {self.folder}")
        self.read(path, within)

    def _meant(self, text: str) -> str:
        """The text with its definitions put in; `$` before a name that has none stays."""
        for _ in range(_DEEPEST):
            if "$" not in text or (new := re.sub(r"\$(\w+)", self._meaning, text, flags=re.ASCII)) == text:
                return text
            text = new
            if len(text) > _LONGEST:
                break
        raise BadRequest(f"a #define of {self.folder} has no end: it holds itself")

    def _meaning(self, found: re.Match[str]) -> str:
        # The shortest name that is known counts, as players do: `$keyb` is `$key` and a `b`.
        name = found[1]
        for length in range(1, len(name) + 1):
            if (meaning := self.meanings.get(name[:length])) is not None:
                return meaning + name[length:]
        return found[0]


def _decoded(data: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")

"""Files by names that were written where case does not matter."""

from __future__ import annotations

from pathlib import Path

from ..files import alike


class Disk:
    """Finds files; remembers what lies in the folders that it had to search."""

    def __init__(self) -> None:
        self._spellings: dict[Path, dict[str, str]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """The file `name`, seen from `folder`; backslashes are separators.

        Where the disk has no such name, one that differs in case, or in how accents are composed, is taken.
        """
        named = folder / name.replace("\\", "/")
        try:
            return named if named.is_file() else self._spelt(named)
        except (OSError, ValueError):
            # A name that no file can have.
            return None

    def _spelt(self, named: Path) -> Path | None:
        found = Path(named.anchor)
        for part in named.parts[bool(named.anchor) :]:
            if (found / part).exists():
                found /= part
            elif spelt := self._names(found).get(alike(part)):
                found /= spelt
            else:
                return None
        return found if found.is_file() else None

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._spellings:
            names = sorted((entry.name for entry in folder.iterdir()), reverse=True) if folder.is_dir() else []
            self._spellings[folder] = {alike(name): name for name in names}
        return self._spellings[folder]

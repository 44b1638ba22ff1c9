"""Files in the user's cache folder, which spare programs what was computed before."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

T = TypeVar("T")


def folder(name: str) -> Path:
    """Return a folder of jft's in the user's cache; it need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jft" / name


class FileCache(NamedTuple):
    """Values by key, each in a file, of which those used longest ago make room for new ones.

    Attributes:
      name: of its folder.
      limit: bytes that it may take.
    """

    name: str
    limit: int

    def read(self, key: str, load: Callable[[BinaryIO], T]) -> T | None:
        """Read a value; None if there is none, or a damaged one, which is then made again."""
        file = self._file(key)
        # Of a damaged archive NumPy raises whatever its parts do.
        with contextlib.suppress(Exception), file.open("rb") as opened:
            found = load(opened)
            os.utime(file)
            return found
        return None

    def write(self, key: str, save: Callable[[BinaryIO], None]) -> None:
        """Keep a value; a cache that cannot be written is no error."""
        file = self._file(key)
        new = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with new.open("wb") as opened:
                    save(opened)
                new.replace(file)
            finally:
                new.unlink(missing_ok=True)
            self._make_room()

    def _file(self, key: str) -> Path:
        return folder(self.name) / f"{key}.npz"

    def _make_room(self) -> None:
        files: list[tuple[float, int, Path]] = []
        cache = folder(self.name)
        for each in (*cache.glob("*.npz"), *cache.glob("*.new")):  # those of a run that was killed
            stat = each.stat()
            files.append((stat.st_mtime, stat.st_size, each))
        room = self.limit
        for _, size, each in sorted(files, reverse=True):
            room -= size
            if room < 0:
                each.unlink(missing_ok=True)

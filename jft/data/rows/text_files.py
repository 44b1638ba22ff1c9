"""Text in files, compressed or not, and groups of files that a pattern names."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from jft.errors import UserError, machine_trouble


class RepeatedKeyError(ValueError):
    """A key that stands twice in an object, of which JSON readers believe the last."""


def plain(path: Path) -> Path:
    """Return the name of a file without the ending of a compression: `a.jsonl` of `a.jsonl.gz`."""
    return path.with_suffix("") if path.suffix in COMPRESSIONS else path


def matching(path: Path) -> list[Path]:
    """List the files that a path means, by name: itself, or those that match its `*`, `?`, `[a]`.

    A file of that very name comes before what the pattern may mean.
    """
    if path.is_file() or not glob.has_magic(str(path)):
        return [path]
    found = map(Path, sorted(glob.glob(str(path), recursive=True)))
    return [each for each in found if each.is_file()]


def read_text(path: Path) -> str:
    """Read a file as UTF-8, whatever its compression.

    Raises:
      UserError: names the file, and the byte that is not UTF-8.
    """
    try:
        with _open(path) as file:
            # Some programs write a byte order mark first.
            text = file.read().decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except (UnicodeDecodeError, *TROUBLE) as error:
        raise UserError(explain(path, error)) from None


def read_lines(path: Path) -> Iterator[str]:
    """Read the lines of a file as UTF-8, one after the other, whatever its compression.

    Raises:
      UserError: names the file, and the byte that is not UTF-8.
    """
    read = 0
    try:
        with _open(path) as file:
            for line in file:
                content = line.removeprefix(codecs.BOM_UTF8) if not read else line
                yield from content.decode().rstrip("\r\n").split("\r")
                read += len(line)
    except UnicodeDecodeError as error:
        error.start += read
        raise UserError(explain(path, error)) from None
    except TROUBLE as error:
        raise UserError(explain(path, error)) from None


def _open(path: Path) -> BinaryIO:
    opened = COMPRESSIONS.get(path.suffix, lambda path: path.open("rb"))
    return opened(path)


def _open_gzip(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path))


def _open_zstandard(path: Path) -> BinaryIO:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise UserError(f"{path}: needs pyarrow; pip install 'jft[data]'") from None
    file = pyarrow.input_stream(str(path), compression="zstd")
    return cast(BinaryIO, io.BufferedReader(file))


COMPRESSIONS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": _open_gzip,
    ".zst": _open_zstandard,
}
# Errors in reading a file that may be compressed.
TROUBLE = (OSError, EOFError, zlib.error)


def explain(path: Path, error: Exception, line: int = 0) -> str:
    """Word an error in reading a file, or the JSON that begins at a line."""
    if isinstance(error, EOFError | gzip.BadGzipFile | zlib.error):
        return f"{path}: compressed data that is cut short or damaged; copy it again"
    if isinstance(error, OSError) and path.suffix in COMPRESSIONS and not error.errno:
        return f"{path}: compressed data that is cut short or damaged; copy it again"
    if isinstance(error, OSError):
        return f"{path}: {machine_trouble(error) or error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not UTF-8 at byte {error.start}; convert it to UTF-8"
    if isinstance(error, json.JSONDecodeError):
        place = f"line {line + error.lineno}, column {error.colno}"
        return f"{path} {place}: not valid JSON: {error.msg}"
    if isinstance(error, RepeatedKeyError):
        place = f" line {line + 1}" if line else ""
        return f"{path}{place}: {error}; rename or remove one of them"
    # A number too long, or lists nested too deep.
    return f"{path} line {line + 1}: not readable as JSON: {error}"

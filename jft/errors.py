"""Exceptions for errors that are no bugs."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

# What to do where the system refuses to read or write. The file is as it was, and the same call may
# succeed later.
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "check the disk, or the network that it is on"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files"),
    errno.ENOMEM: "free memory",
}


class UserError(Exception):
    """A mistake in the user's config, data, model or machine.

    Its message names the field, the value and the remedy. The programs print it as one line and
    exit with its code; any other exception is a bug in jft and keeps its traceback. It is no
    ValueError, since absl's flag parsers wrap those in messages of their own.
    """

    code = 2


class AbsentError(UserError):
    """Another process of the run has not come or has ended, so the same command may succeed later.

    Its exit code lets a launcher tell it from a mistake of the user.
    """

    code = 1


@contextlib.contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Turn whatever a library raises about a file into an error of the user.

    Libraries raise plain Exceptions at damaged files, and those in Rust a panic, which is not even
    an Exception.

    Args:
      message: with `{error}` for what the library says: its first line, and the next one where that
        only announces it.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        lines = (str(error).strip() or type(error).__name__).splitlines()
        said = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
        raise UserError(message.replace("{error}", said[:300])) from error


def expand(path: str) -> Path:
    """Make a path of what a user gives, in which `~` and `~name` are home folders.

    Raises:
      UserError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}; give the whole path") from None


def refuse_pipe(path: Path) -> None:
    """Refuse a named pipe or socket, from which one could read for ever.

    Raises:
      UserError: it is one.
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise UserError(f"{path}: a pipe or socket, not a file; copy its content to a file")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError: one of reading or writing does not, unlike one of opening.

    Raises:
      UserError: it is no file that can be read to an end.
    """
    refuse_pipe(path)
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def machine_trouble(error: BaseException | None) -> str:
    """Return why the system refused to read or write a file, and what to do about it.

    Args:
      error: what a library raised. Those in C++ and Rust name the system's error in their text.

    Returns:
      Such as `Permission denied; check its permissions`; empty for any other error, which may mean
      that the file is damaged.
    """
    while error:
        number = error.errno if isinstance(error, OSError) else None
        if named := re.search(r"os[ _]error(?:_code=')? ?(\d+)", str(error), re.IGNORECASE):
            number = int(named[1])
        if number in REMEDIES:
            return f"{os.strerror(number)}; {REMEDIES[number]}"
        error = error.__cause__ or error.__context__
    return ""

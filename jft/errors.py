"""Exceptions for errors that are no bugs."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

# Errors of the machine that leave a file as it is: the same read may succeed later.
TROUBLE = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS),
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
      message: with `{error}` for the first line of what the library says.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(message.replace("{error}", first[:300])) from error


def machine_trouble(error: BaseException | None) -> str:
    """Find out whether the machine refused to read or write: no sign that a file is damaged.

    Args:
      error: what a library raised. Those in C++ name the error of the system in their text.

    Returns:
      The reason, such as `Permission denied`; empty for any other error.
    """
    while error:
        number = error.errno if isinstance(error, OSError) else None
        if named := re.search(r"os[ _]error(?:_code=')? ?(\d+)", str(error), re.IGNORECASE):
            number = int(named[1])
        if number in (*TROUBLE, *FULL):
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


def trouble_remedy(reason: str) -> str:
    """Advise what to do about `machine_trouble`."""
    return "make room" if reason in map(os.strerror, FULL) else "see to that"

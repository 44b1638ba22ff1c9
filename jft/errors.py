"""Exceptions for errors that are no bugs."""


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

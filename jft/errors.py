"""The exceptions that are no bugs."""


class UserError(Exception):
    """A mistake in the user's config, data, model or machine.

    Its message names the field, the value and the remedy. The programs print it as one line and
    exit with its code; any other exception is a bug in jft and keeps its traceback. It is no
    ValueError: flag parsers wrap those in messages of their own.
    """

    code = 2


class AbsentError(UserError):
    """Another process has not come, or has gone: the same command may well succeed when repeated.

    With its own exit code, so that a launcher can tell it from a wrong config.
    """

    code = 1

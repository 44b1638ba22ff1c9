"""The one exception that is the user's to mend."""


class UserError(Exception):
    """A mistake in the user's config, data, model or machine.

    Its message names the field, the value and the remedy. The programs print it as one line and
    exit with 2; any other exception is a bug in jft and keeps its traceback. It is no ValueError:
    flag parsers wrap those in messages of their own.
    """

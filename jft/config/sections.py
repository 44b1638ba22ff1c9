"""Sections of a config: keys with a type, a default and limits, checked at every assignment."""

# No postponed annotations here: ml_collections reads the types of the fields.
import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Sequence

from jft.errors import UserError


def key(
    default,
    doc: str,
    *,
    choices: Sequence[str] = (),
    minimum: float = -math.inf,
    below: float = math.inf,
    runtime: bool = False,
    before: typing.Any = None,
):
    """Declare a config key.

    Args:
      default: the value where a config does not set it.
      doc: for `--help`.
      choices: all that it may be; empty: anything.
      minimum, below: its limits.
      runtime: whether it may differ between a run and its resumption.
      before: what was done before the key existed, for configs of that time; None: the default.
    """
    limits = {"choices": choices, "minimum": minimum, "below": below}
    metadata = {"doc": doc, "runtime": runtime, "before": before} | limits
    return dataclasses.field(default=default, metadata=metadata)


runtime_key = functools.partial(key, runtime=True)


class Section:
    """Keys of a config that belong together; assignments are checked for name and type."""

    __slots__ = ()

    def __setattr__(self, name: str, value) -> None:
        """Set a key.

        Raises:
          UserError: no such key (names the nearest one), or a value of the wrong type.
        """
        section = type(self)
        known, path = key_types(section), _label(section) + name
        if name not in known:
            raise UserError(unknown_key(path, section, name))
        object.__setattr__(self, name, _coerce(path, value, known[name]))

    def __getattr__(self, name: str):
        """Refuse a key that there is not.

        Raises:
          UserError: names the nearest one.
        """
        if name.startswith("_"):  # what Python looks for
            raise AttributeError(name)
        section = type(self)
        raise UserError(unknown_key(_label(section) + name, section, name))


def check_limits(path: str, field: dataclasses.Field, value: typing.Any) -> None:
    """Check a key's value, or each of several, against its choices and limits.

    Raises:
      UserError: naming the key, its value and what it may be.
    """
    choices, minimum = field.metadata["choices"], field.metadata["minimum"]
    for each in value if isinstance(value, tuple) else (value,):
        if choices and each not in choices:
            raise UserError(f"{path}={each!r}: must be one of {', '.join(choices)}")
        if isinstance(each, str):
            if "\0" in each:
                raise UserError(f"{path}={each!r}: must not hold NUL")
            continue
        if each < minimum:
            raise UserError(f"{path}={each}: must be at least {minimum}")
        if not each < (below := field.metadata["below"]):  # nor is nan
            limit = f"less than {below}" if below < math.inf else "a finite number"
            raise UserError(f"{path}={each}: must be {limit}")


def key_types(section: typing.Any) -> dict[str, typing.Any]:
    """Return the type of every key of a section, or of every section of a config."""
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def check_path(root: type[Section], path: str) -> None:
    """Check that a dotted path names a key.

    Raises:
      UserError: no such key; names the nearest one.
    """
    section: typing.Any = root
    for part in path.split("."):
        known = key_types(section) if dataclasses.is_dataclass(section) else {}
        if part not in known:
            raise UserError(unknown_key(path, section, part))
        section = known[part]
    if _is_section(section):
        raise UserError(f"{path} is a section; give one of its keys, such as {_paths(section)[0]}")


def unknown_key(path: str, section: typing.Any, part: str) -> str:
    """Compose the message about a path whose `part` is no key of a section."""
    names = list(key_types(section)) if dataclasses.is_dataclass(section) else []
    nearest = difflib.get_close_matches(part, names, n=1, cutoff=0.5)
    if nearest:
        meant, inner = _label(section) + nearest[0], key_types(section)[nearest[0]]
        *_, rest = path.partition(f"{part}.")
        if rest and _is_section(inner):
            meant += "." + difflib.get_close_matches(rest, key_types(inner), n=1, cutoff=0.0)[0]
        return f"{path}: no such key; did you mean {meant}?"
    sections = {each.__name__: each for each in Section.__subclasses__()}
    anywhere = [name for each in sections.values() for name in _paths(each)]
    if same := [name for name in anywhere if name.rpartition(".")[2] == path.rpartition(".")[2]]:
        return f"{path}: no such key; did you mean {' or '.join(same)}?"
    [closest] = difflib.get_close_matches(path, anywhere, n=1, cutoff=0.0)
    return f"{path}: no such key; the nearest is {closest}"


def _label(section: type) -> str:
    inner = any(_is_section(kind) for kind in key_types(section).values())
    return "" if inner else section.__name__.lower() + "."


def _paths(section: type) -> list[str]:
    return [
        _label(section) + name for name, kind in key_types(section).items() if not _is_section(kind)
    ]


def _is_section(kind: typing.Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _coerce(path: str, value, wanted: typing.Any):
    """Convert a value to the declared type: ints to floats, `a,b` and lists to tuples."""
    if isinstance(wanted, types.GenericAlias):
        item = typing.get_args(wanted)[0]
        if isinstance(value, str):
            parts = re.split(r"(?<!\\),", value) if item is str else [value]
            value = [part for part in parts if part]
        if item is str and isinstance(value, list | tuple):
            value = [each.replace("\\,", ",") if isinstance(each, str) else each for each in value]
        if not isinstance(value, list | tuple):
            _wrong(path, value, wanted)
        return tuple(_coerce(path, each, item) for each in value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        _wrong(path, value, wanted)
    return value


def _wrong(path: str, value, wanted) -> typing.NoReturn:
    name = wanted.__name__ if isinstance(wanted, type) and not typing.get_args(wanted) else wanted
    raise UserError(f"{path}={value!r}: must be {name}, not {type(value).__name__}")

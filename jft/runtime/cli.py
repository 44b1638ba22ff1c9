"""What the programs share: flags, help, and errors as one line with exit code 2."""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from jft import config as config_lib
from jft import sections
from jft.errors import UserError
from jft.runtime import libtpu, processes

# Set by a program that starts another: see `_follow`.
FOLLOW = "JFT_FOLLOW"
# Seconds in which the end of another process is noticed.
NOTICE = 2.0
# Reads a config that a workdir holds, as a config file.
SAVED = Path(__file__).with_name("saved_config.py")


def run_with_config(
    main: Callable[[config_lib.Config, str, bool], None], doc: str, joins: bool = True
) -> None:
    """Run a program that takes `--config`, overrides of its keys, `--workdir` and `--dry_run`.

    Where it `joins`, it may be one process of several, as the cluster or `--coordinator` says.
    """

    def program() -> None:
        config, values = _parse(sys.argv, doc, _define_run)
        if not values.workdir:
            raise UserError("--workdir is missing; name a folder for the results")
        place = values.coordinator, values.processes, values.process, values.wait
        with processes.joined(*place) if joins else contextlib.nullcontext():
            main(config, values.workdir, values.dry_run)

    _exit(program)


def run_plan(main: Callable[[config_lib.Config, str, bool], None], doc: str) -> None:
    """Run a program that takes `--config`, overrides of its keys, `--topology` and `--search`."""

    def program() -> None:
        config, values = _parse(sys.argv, doc, _define_plan)
        main(config, values.topology, values.search)

    _exit(program)


def run_export(main: Callable[[list[str], str, str, bool], None], doc: str) -> None:
    """Run a program that takes folders, `--out`, `--dtype` and `--adapters`."""

    def program() -> None:
        dirs, values = _parse_dirs(sys.argv, doc, _define_export)
        main(dirs, values.out, values.dtype, values.adapters)

    _exit(program)


def run_on_dirs(main: Callable[[list[str], str], None], doc: str) -> None:
    """Run a program that takes folders, and `--out`."""

    def program() -> None:
        dirs, values = _parse_dirs(sys.argv, doc, _define_out)
        main(dirs, values.out)

    _exit(program)


def _exit(program: Callable[[], None]) -> None:
    libtpu.prepare()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if os.environ.pop(FOLLOW, ""):
        threading.Thread(target=_follow, daemon=True).start()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a sign or two
            stream.reconfigure(errors="replace")
    try:
        _check_utf8(sys.argv)
        program()
    except UserError as error:
        _fail(str(error), error.code)
    except OSError as error:
        # A full disk or a lost permission, wherever it strikes.
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", UserError.code)
    except Exception:
        if processes.count() == 1:
            raise
        time.sleep(NOTICE)  # JAX may raise it because another has gone; that one's name ends us
        traceback.print_exc()
        _end(1)


def _fail(message: str, code: int) -> None:
    which = f"{processes.name()}: " if processes.count() > 1 else ""
    print(f"error: {which}{message}", file=sys.stderr)
    _end(code)


def _end(code: int) -> NoReturn:
    """End at once: the threads of a save that failed would bury the message under theirs.

    Or never end, as JAX would not that waits for the other processes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    processes.abandon()
    os._exit(code)


def _interrupt(number: int, _) -> None:
    """End at once: outside the training loop, which saves, what is finished is on disk already.

    An exception instead would be lost wherever Python swallows them, such as in a destructor.
    """
    show_cursor = b"\x1b[?25h\n" if os.isatty(2) else b""
    os.write(2, show_cursor + b"interrupted; run the same command again to go on\n")
    processes.abandon()
    os._exit(128 + number)


def _follow() -> None:
    """End as by SIGTERM when standard input ends, as it does when the program that started us does.

    A study may be killed at any moment; what it started must not go on behind its back.
    """
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _check_utf8(argv: list[str]) -> None:
    """Results name what they were made from, and are written in UTF-8."""
    for arg in argv:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise UserError(f"{arg!r} is not UTF-8; rename the file") from None


def _define_run(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "where results go", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "check the data, load no model", flag_values=values)
    flags.DEFINE_string("coordinator", "", "host:port of process 0", flag_values=values)
    flags.DEFINE_integer("processes", 0, "how many make up the run", flag_values=values)
    flags.DEFINE_integer("process", -1, "which of them this is", flag_values=values)
    flags.DEFINE_float("wait", 300.0, "seconds until all have come", flag_values=values)


def _define_plan(values: flags.FlagValues) -> None:
    flags.DEFINE_string("topology", "", "which chips", flag_values=values)
    flags.DEFINE_bool("search", False, "look for what fits best", flag_values=values)


def _parse(
    argv: list[str], doc: str, define: Callable[[flags.FlagValues], None]
) -> tuple[config_lib.Config, flags.FlagValues]:
    if {"--help", "-h", "-help"} & set(argv):
        print(inspect.cleandoc(doc), _key_table(), sep="\n\n")
        sys.exit(0)
    argv = [re.sub(r"^(--?config=)(.*\.json)$", rf"\1{SAVED}:\2", arg) for arg in argv]
    _check_config_file(argv)
    overrides = _last_of_each(map(_check_override, argv[1:]))
    # The flag library wants the config before what overrides it.
    argv = [argv[0], *sorted(overrides, key=lambda arg: not re.match("--?config=", arg))]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "config file", flag_values=values, sys_argv=argv
    )
    define(values)
    rest = _read_flags(values, argv)
    if rest:
        raise UserError(f"{rest[0]}: not a flag; overrides are written --config.section.key=value")
    config_lib.validate(values.config)
    return values.config, values


def _check_override(arg: str) -> str:
    """An argument as the flag library takes it: it reads `a,b` as a list, but not `a,b:c`."""
    override = re.fullmatch(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", arg, re.DOTALL)
    if not override:
        return arg
    path, value = override.groups()
    names = sections.check_path(config_lib.Config, path) == tuple[str, ...]
    if not names or not value or value[0] in "([\"'":
        return arg
    return f"--config.{path}={tuple(value.split(','))!r}"


def _last_of_each(args: Iterable[str]) -> Iterable[str]:
    """Of a key given twice the last counts; the flag library would join lists."""
    kept: dict[str, str] = {}
    for number, arg in enumerate(args):
        override = re.match(r"--?(config\.[^=]+)=", arg)
        kept[override[1] if override else f"argument {number}"] = arg
    return kept.values()


def _define_out(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "where it goes", flag_values=values)


def _define_export(values: flags.FlagValues) -> None:
    _define_out(values)
    types = ["float32", "bfloat16", "float16"]
    flags.DEFINE_enum("dtype", "float32", types, "type of the weights", flag_values=values)
    flags.DEFINE_bool("adapters", False, "adapters alone, for PEFT", flag_values=values)


def _parse_dirs(
    argv: list[str], doc: str, define: Callable[[flags.FlagValues], None]
) -> tuple[list[str], flags.FlagValues]:
    if {"--help", "-h", "-help"} & set(argv):
        print(inspect.cleandoc(doc))
        sys.exit(0)
    values = flags.FlagValues()
    define(values)
    dirs = _read_flags(values, argv)
    if not dirs:
        raise UserError("no folder given; see --help for which are wanted")
    if not values.out:
        raise UserError("--out is missing; name a folder for the result")
    return dirs, values


def _read_flags(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parse, and return what is not a flag."""
    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None


def _check_config_file(argv: list[str]) -> None:
    """Say what is wrong with the config file in one line, before the flag library tries it."""
    path = None
    for arg, following in itertools.pairwise([*argv[1:], ""]):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if match:
            path = following if match[1] is None else match[1]
    if not path:
        raise UserError("--config is missing; configs/finetune.py is a place to start")
    file = Path(path.split(":")[0])
    if not file.is_file():
        raise UserError(f"--config={path}: no such file")
    scope: dict[str, Any] = {"__name__": "config", "__file__": str(file)}
    try:
        exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), scope)
        if "get_config" not in scope:
            raise UserError("it defines no get_config()")
        config = scope["get_config"](*path.split(":", 1)[1:])
        if not isinstance(config, config_lib.Config):
            raise UserError("get_config() must return the Config of jft.config.get_config()")
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise UserError(f"--config={path}: {kind}{' '.join(str(error).split())}") from None


def _key_table() -> str:
    rows = [
        (path, repr(value), field.metadata["doc"] + _choices(field.metadata["choices"]))
        for path, field, value in config_lib.keys(config_lib.get_config())
    ]
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"  {path:<{left}}  {value:<{middle}}  {doc}" for path, value, doc in rows]
    return "\n".join(["Keys of --config, each with its default:", *lines])


def _choices(choices: tuple[str, ...]) -> str:
    return f" ({', '.join(choices)})" if choices else ""

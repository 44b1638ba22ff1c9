"""Command lines of the programs: flags, help, and errors as one line with an exit code."""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import inspect
import io
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import typing
from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

import jft
from jft import config as config_lib
from jft.config import sections
from jft.errors import UserError, expand, machine_trouble, naming
from jft.runtime import libtpu, processes, threads, workdir

# Taken by the first who ends the process at a signal.
_interrupted = threading.Lock()
# Seconds in which the rendezvous notices that another process has ended.
NOTICE = 2.0

# How absl defines a flag by the type of its default.
DEFINE: dict[type, typing.Any] = {
    **{str: flags.DEFINE_string, bool: flags.DEFINE_bool},
    **{int: flags.DEFINE_integer, float: flags.DEFINE_float},
}
# Libraries whose versions change what a run computes.
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "tokenizers", "transformers")
# Settings of JAX, from the environment, that change it too.
SETTINGS = ("jax_default_matmul_precision", "jax_disable_jit", "jax_default_prng_impl")
# Flags of every program with a workdir; those that are not `distributed` ignore them.
PROCESS_FLAGS = {"coordinator": "", "processes": 0, "process": -1, "wait": 300.0}


def run(
    main: Callable[..., None],
    doc: str,
    defaults: Mapping[str, typing.Any],
    *,
    takes_config: bool = True,
    distributed: bool = False,
) -> None:
    """Run a program: parse the command line, call `main`, and end the process.

    Args:
      main: takes the config or the list of folders, and the values of the flags.
      doc: the text of `--help`.
      defaults: the flags of the program and their defaults; a list is a choice of these values, by
        default the first.
      takes_config: whether the program takes `--config` and overrides of its keys, or folders.
      distributed: whether it may be one of several processes, which then connect first.
    """

    def program() -> None:
        if {"--help", "-h", "-help"} & set(sys.argv):
            print(inspect.cleandoc(doc), *([_key_table()] if takes_config else []), sep="\n\n")
            sys.exit(0)
        values = _define({**defaults, **(PROCESS_FLAGS if "workdir" in defaults else {})})
        given = (_parse_config if takes_config else _parse_folders)(sys.argv, values)
        for name, what in (("workdir", "results"), ("out", "result")):
            if name in defaults and not values[name].value:
                raise UserError(f"--{name} is missing; name a folder for the {what}")
        place: list[typing.Any] = [values[name].value for name in PROCESS_FLAGS if distributed]
        with processes.connect(*place) if distributed else contextlib.nullcontext():
            if isinstance(given, config_lib.Config):
                # A workdir may be mounted elsewhere; that it is the same is checked there.
                names = set(defaults) - {"workdir"}
                asked = {f"flag --{name}": f"{values[name].value}" for name in names}
                processes.agree("programs", lambda: asked | _facts(given))
            main(given, *(values[name].value for name in defaults))

    guard(program)


def _facts(config: config_lib.Config) -> dict[str, str]:
    """Collect what all processes of a run need to have in common before they read any data."""
    import jax

    code = hashlib.sha256()
    for file in sorted(Path(jft.__file__).parent.rglob("*.py")):
        with naming(file):
            code.update(file.read_bytes())
    return {
        **{f"config {path}": f"{value}" for path, _, value in config_lib.keys(config)},
        **{f"version of {name}": importlib.metadata.version(name) for name in LIBRARIES},
        "code of jft": code.hexdigest(),
        **{f"setting {name}": f"{getattr(jax.config, name)}" for name in SETTINGS},
        "number of devices": str(jax.local_device_count()),
        "kind of devices": jax.local_devices()[0].device_kind,
    }


def guard(program: Callable[[], None]) -> None:
    """Run a program, and end the process on an error or a signal."""
    libtpu.prepare()
    # Python would end with a walk over all objects of JAX, which takes a second.
    atexit.register(gc.freeze)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    _watch_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a sign or two
            stream.reconfigure(errors="replace")
    try:
        # Results name their inputs, and are written in UTF-8.
        for arg in sys.argv:
            if re.search("[\ud800-\udfff]", arg):
                raise UserError(f"{arg!r} is not UTF-8; rename the file")
        program()
    except UserError as error:
        _end(error.code, str(error))
    except BrokenPipeError:  # nobody reads any more what it prints, as after `--help | head`
        _end(0)
    except OSError as error:
        # A full disk or a lost permission, wherever it strikes.
        where = f"{error.filename}: " if error.filename else ""
        _end(UserError.code, f"{where}{machine_trouble(error) or error.strerror or error}")
    except Exception:
        if processes.count() == 1:
            raise
        # JAX also raises errors where another process has ended. The rendezvous then ends this
        # process with a line that names the other.
        time.sleep(NOTICE)
        traceback.print_exc()
        _end(1)


def _end(code: int, message: str = "") -> None:
    """End the process at once.

    In an ordinary exit the threads of a failed save would print their errors below the message,
    and JAX would wait for the other processes.
    """
    if message:
        which = f"{processes.name()}: " if processes.count() > 1 else ""
        with contextlib.suppress(OSError):  # nobody may read it
            print(f"error: {which}{message}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    processes.abort()
    os._exit(code)


def _interrupt(number: int, _) -> None:
    """End the process at once: outside the training loop, finished work is on disk already.

    An exception instead would be lost where Python swallows them, such as in a destructor.
    """
    if not _interrupted.acquire(blocking=False):
        time.sleep(NOTICE)  # the thread that watches signals was first, and ends the process
    show_cursor = b"\x1b[?25h\n" if os.isatty(2) else b""
    os.write(2, show_cursor + b"interrupted; run the same command again to go on\n")
    processes.abort()
    os._exit(128 + number)


@functools.cache
def _watch_signals() -> socket.socket:
    """Have signals noticed while Python waits for a library, such as for other processes.

    Python runs handlers only when the library returns, which may be never.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while number := reader.recv(1):
            if signal.getsignal(number[0]) is _interrupt:
                _interrupt(number[0], None)

    threads.start(watch, "the watch on signals")
    return writer


def _define(defaults: Mapping[str, typing.Any]) -> flags.FlagValues:
    """Define flags by their defaults."""
    values = flags.FlagValues()
    for name, default in defaults.items():
        if isinstance(default, list):
            flags.DEFINE_enum(name, default[0], default, "", flag_values=values)
        else:
            DEFINE[type(default)](name, default, "", flag_values=values)
    return values


def _parse(argv: list[str], values: flags.FlagValues, known_only: bool = False) -> list[str]:
    """Parse flags; returns the other arguments."""
    try:
        return values(argv, known_only)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from None


def _parse_folders(argv: list[str], values: flags.FlagValues) -> list[str]:
    folders = _parse(argv, values)
    if not folders:
        raise UserError("no folder given; see --help for which are wanted")
    return folders


def _parse_config(argv: list[str], values: flags.FlagValues) -> config_lib.Config:
    """Load the config, and parse overrides of its keys and the program's flags."""
    file = _define({"config": ""})
    file.set_gnu_getopt()  # --config may stand behind its overrides
    argv = [argv[0], *_parse(argv, file, known_only=True)]
    config = _load_config(file.config)
    for arg in argv:  # ml_collections would not name the nearest key
        if override := re.match(r"--?(?:no)?config\.([^=]*)", arg):
            sections.check_path(config_lib.Config, override[1])
    # Without --config in its arguments, ml_collections takes the config as it is, and overrides.
    config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=argv)
    rest = _parse(argv, values)
    if rest:
        raise UserError(f"{rest[0]}: not a flag; overrides are written --config.section.key=value")
    config_lib.validate(values.config)
    return values.config


def _load_config(path: str) -> config_lib.Config:
    """Load `FILE.py`, `FILE.py:ARGUMENT` of its get_config, or a workdir's `config.json`.

    Raises:
      UserError: whatever is wrong with the file, in one line.
    """
    if not path:
        raise UserError("--config is missing; configs/finetune.py is a place to start")
    saved = path.endswith(".json")
    file = expand(path if saved else path.split(":")[0])
    if not file.is_file():
        raise UserError(f"--config={path}: no such file")
    if saved:
        return workdir.read_config(file)
    scope: dict[str, typing.Any] = {"__name__": "config", "__file__": str(file)}
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
    return config


class _TupleParser(flags.ArgumentParser):
    """Parser of tuple keys: `1,2` and `("a", "b")`, and for names `a,b:c`, which sections split.

    In place of the parser of ml_collections, which joins the values of a key that is given twice.
    """

    def __init__(self, kind: typing.Any):
        self._of_names = kind == tuple[str, ...]

    def parse(self, argument):
        if self._of_names and isinstance(argument, str):
            try:  # ("a", "b"), but not (a),b
                found = ast.literal_eval(argument)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return argument
            names = isinstance(found, tuple | list) and all(isinstance(x, str) for x in found)
            return tuple(found) if names else argument
        return tuple_parser.TupleParser().parse(argument)


for _kind in (tuple[str, ...], tuple[int, ...]):
    config_flags.register_flag_parser_for_type(_kind, _TupleParser(_kind))


def _key_table() -> str:
    """Lay out all keys with their defaults, for `--help`."""
    rows = []
    for path, field, value in config_lib.keys(config_lib.get_config()):
        choices = ", ".join(field.metadata["choices"])
        doc = field.metadata["doc"] + (f" ({choices})" if choices else "")
        rows.append((path, repr(value), doc))
    left, middle = (max(len(row[i]) for row in rows) for i in (0, 1))
    lines = [f"  {path:<{left}}  {value:<{middle}}  {doc}" for path, value, doc in rows]
    return "\n".join(["Keys of --config, each with its default:", *lines])

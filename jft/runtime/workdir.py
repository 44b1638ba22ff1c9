"""What programs leave in a workdir, written so that a kill at any moment loses nothing.

Of the processes of a run all read there, and only the first writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from jft import config as config_lib
from jft.errors import UserError
from jft.runtime import processes
from jft.runtime.progress import say

# What takes time to make, by who makes it: a workdir with any of these is given to no other config
# and to no other program.
RESULTS = {
    "jft.study": ("jobs.jsonl",),
    "jft.train": ("checkpoints/*", "metrics.jsonl"),
    "jft.eval": ("rows.jsonl", "cells.jsonl"),
}

CONFIG = "config.json"
# By which the processes of a run see that they share a workdir.
MEETING = ".meeting"

# The fields of a record and their types.
Schema = Mapping[str, type | types.UnionType]


@contextlib.contextmanager
def claim(workdir: str, config: config_lib.Config, program: str) -> Iterator[Path]:
    """Hold a workdir for one run: new, or of the same config.

    Args:
      workdir: made if missing.
      config: of the run.
      program: one of `RESULTS`.

    Yields:
      The folder, with `config.json` in it.

    Raises:
      UserError: the folder cannot be written, is in use, or holds something else; or the processes
        of the run do not share it.
    """
    path = Path(workdir).expanduser()
    if not processes.first():
        processes.meet("claimed")
        mark = path / MEETING
        if not mark.exists() or mark.read_text() != processes.meeting():
            raise UserError(
                f"--workdir={workdir} is not the folder that process 0 has; give one that all "
                "processes share, such as one on NFS or in a mounted bucket"
            )
        _check_same_command(path, config)
        yield path
        return
    try:
        if path.is_dir() and not is_workdir(path) and any(map(_foreign, path.iterdir())):
            raise UserError(f"--workdir={path} holds other files; choose an empty or new folder")
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot write there: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"--workdir={workdir}: another program is writing there") from None
        _same_run(path, config, program)
        if processes.count() > 1:
            # A file of its own: over a network, others see what has been closed.
            write_text(path / MEETING, processes.meeting())
        processes.meet("claimed")
        yield path


def _check_same_command(path: Path, config: config_lib.Config) -> None:
    """What processes do together, each by a config of its own, would be nobody's run."""
    changed = config_lib.differences(read_config(path / CONFIG), config, runtime=True)
    if changed:
        raise UserError(
            f"its config is not that of process 0 ({'; '.join(changed)}); start the same command "
            "everywhere"
        )


def _foreign(path: Path) -> bool:
    return path.name not in (".lock", MEETING, f"{MEETING}.part", "config.json.part")


def _same_run(path: Path, config: config_lib.Config, program: str) -> None:
    holds = {
        name for name, results in RESULTS.items() for result in results if any(path.glob(result))
    }
    if holds - {program}:
        raise UserError(f"--workdir={path} is one of {holds.pop()}; choose another for {program}")
    if is_workdir(path) and holds:
        changed = config_lib.differences(read_config(path / CONFIG), config)
        if changed:
            raise UserError(
                f"--workdir={path} holds a run of another config ({'; '.join(changed)}); "
                "choose another workdir, or remove this one"
            )
    write_json(path / CONFIG, config_lib.to_dict(config))


def wait(path: Path) -> None:
    """Wait until no program writes in a workdir, should one be ending there."""
    if not (path / ".lock").exists():
        return
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f"Waiting for the program that writes in {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)


def is_trained(path: Path) -> bool:
    """Whether a workdir holds the last step of its training."""
    try:
        steps = read_json(path / "model.json").get("steps")
    except UserError:
        return False
    return (path / "checkpoints" / str(steps)).is_dir()


def is_workdir(path: Path) -> bool:
    """Whether the folder's `config.json` is jft's: Hugging Face folders have one too."""
    try:
        return {"model", "data", "train"} <= read_json(path / CONFIG).keys()
    except UserError:
        return False


def read_json(file: Path) -> dict:
    """The object that `write_json` wrote.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: missing or damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: damaged: holds a {type(content).__name__}, not an object")
    return content


def read_config(file: Path) -> config_lib.Config:
    """The config that a program wrote.

    Raises:
      UserError: it cannot be read.
    """
    try:
        config = config_lib.from_dict(read_json(file))
        config_lib.validate(config)
        return config
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: not a config of this version of jft: {error}") from None


def write_json(path: Path, value) -> None:
    """Replace a file at once: it holds the old value or the new one, never a part."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, for text."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """As `write_json`, for bytes."""
    if not processes.first():
        return
    part = path.with_name(path.name + ".part")
    with _naming(part), part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def sha256(value) -> str:
    """Of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def append_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Add records to a file of JSON lines, on disk when this returns."""
    if not processes.first():
        return
    with _naming(path), path.open("a", encoding="utf-8") as file:
        file.write(to_jsonl(records))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A write that fails, unlike an open, does not say of which file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_jsonl(path: Path, schema: Schema) -> list[dict]:
    """The records of a file of JSON lines; none if there is no file.

    A last line that a kill cut off is left out.

    Args:
      path: the file.
      schema: the type of every field that a record must have.

    Raises:
      UserError: another line is malformed, or not of the schema.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} line {number}: not valid JSON: {error}; restore it, or remove that line"
            ) from None
        check(f"{path} line {number}", record, schema)
        records.append(record)
    return records


def check(where: str, record, schema: Schema) -> None:
    """See that a record has the fields of a schema.

    Raises:
      UserError: naming the field.
    """
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object, not {type(record).__name__}")
    for field, kind in schema.items():
        if field not in record:
            raise UserError(f"{where}: {field} is missing; written by another version of jft?")
        if not isinstance(record[field], kind):
            raise UserError(f"{where}: {field}={record[field]!r} is not what jft writes there")


def to_jsonl(records: Iterable[dict]) -> str:
    """Format records as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

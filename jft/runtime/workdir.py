"""Workdirs: which program may write in a folder, and files that survive a kill at any moment.

All processes of a run read there, and only the first writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from jft import config as config_lib
from jft.errors import UserError, expand, machine_trouble, naming, refuse_pipe
from jft.runtime import processes
from jft.runtime.progress import say

# Results that take long to make, by the program that makes them: a workdir with any of them takes
# no other config and no other program.
RESULTS = {
    "jft.study": ("jobs.jsonl",),
    "jft.train": ("checkpoints/*", "metrics.jsonl"),
    "jft.eval": ("rows.jsonl", "cells.jsonl"),
}
# What else a program writes. A folder that holds any of these files, or a model of Transformers or
# PEFT (`MODEL_FILES`), is refused as a new workdir. Other files, such as a log, do no harm.
OUTPUTS = {
    "jft.study": ("configs/*", "dry_run.json", "report/*", "runs/*", "scores/*"),
    "jft.train": (
        *("data_report.html", "data_report.json", "drift.json", "generations.jsonl"),
        *("model.json", "probes.jsonl"),
        *("probes.npz", "tensorboard/*", "tokenizer/*", "trained_on.txt"),
    ),
    "jft.eval": ("data_report.html", "data_report.json", "model.json"),
}
MODEL_FILES = ("adapter_config.json", "*.safetensors")

CONFIG, CONFIG_VERSION = "config.json", 1
# Holds the run id, by which the processes of a run see that they share a workdir.
RUN_ID = ".run_id"


@contextlib.contextmanager
def claim(workdir: str, config: config_lib.Config, program: str) -> Iterator[Path]:
    """Hold a workdir for one run: a new one, or one of the same config.

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
    path = expand(workdir)
    if not processes.first():
        processes.barrier("claimed")
        _check_shared(workdir, path)
        yield path
        return
    try:
        _check_free(path, program)
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("a")
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot write there: {error.strerror}") from None
    with lock:
        if not try_lock(lock):
            raise UserError(f"--workdir={workdir}: another program is writing there")
        _check_same_run(path, config, program)
        write_config(path / CONFIG, config)
        if processes.count() > 1:
            # A file of its own: over a network, others see what has been closed.
            write_text(path / RUN_ID, processes.run_id())
        processes.barrier("claimed")
        yield path


def try_lock(file: typing.IO) -> bool:
    """Lock a file for this program alone; False where another one has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_shared(workdir: str, path: Path) -> None:
    """Check that process 0 has claimed the same folder."""
    mark = path / RUN_ID
    if not mark.exists() or mark.read_text() != processes.run_id():
        raise UserError(
            f"--workdir={workdir} is not the folder that process 0 has; give one that all "
            "processes share, such as one on NFS or in a mounted bucket"
        )


def _check_free(path: Path, program: str) -> None:
    """Check that a folder is a workdir, or holds nothing that a program would write there."""
    if is_workdir(path):
        return
    if (path / CONFIG).is_file():  # a damaged one is not another program's
        read_json(path / CONFIG)
    for pattern in (CONFIG, *RESULTS[program], *OUTPUTS[program], *MODEL_FILES):
        for file in path.glob(pattern):
            raise UserError(
                f"--workdir={path} holds other files: {file.relative_to(path)} would be mixed up "
                "with results or overwritten; choose an empty or new folder, or move it away"
            )


def _check_same_run(path: Path, config: config_lib.Config, program: str) -> None:
    """Check that a folder holds no results of another program or of another config."""
    holds = {
        name for name, results in RESULTS.items() for result in results if any(path.glob(result))
    }
    if holds - {program}:
        raise UserError(f"--workdir={path} is one of {holds.pop()}; choose another for {program}")
    if is_workdir(path) and holds:
        changed = config_lib.differences(read_config(path / CONFIG), config)
        if changed:
            raise UserError(
                f"--workdir={path} holds a run of another config ({'; '.join(changed)}); set "
                "these keys back, choose another workdir, or remove this one"
            )


def wait_until_free(path: Path) -> None:
    """Wait until no program writes in a workdir, since one may be about to end there."""
    if not (path / ".lock").exists():
        return
    with (path / ".lock").open("a") as lock:
        if not try_lock(lock):
            say(f"Waiting for the program that writes in {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)


def is_trained(path: Path) -> bool:
    """Check whether a workdir holds the last step of its training."""
    model = find_json(path / "model.json") or {}
    return (path / "checkpoints" / str(model.get("steps"))).is_dir()


def is_workdir(path: Path) -> bool:
    """Check whether the folder's `config.json` is jft's: Hugging Face folders have one too."""
    return {"model", "data", "train"} <= (find_json(path / CONFIG) or {}).keys()


def _explain(file: Path, error: Exception) -> str:
    if isinstance(error, TypeError):
        return f"{file}: damaged: holds a {error}, not an object"
    if isinstance(error, OSError):
        return f"{file}: {machine_trouble(error) or error.strerror or error}"
    return f"{file}: damaged: {error}; restore it"


def read_json(
    file: Path, explain: Callable[[Path, Exception], str] = _explain, kind: type = dict
) -> typing.Any:
    """Read a JSON file.

    Args:
      file: by default one that `write_json` wrote.
      explain: makes the message: of an OSError; of a ValueError or RecursionError, where the file
        is not UTF-8 or not JSON; or of a TypeError, which names the type found instead of `kind`.
      kind: the type of the content.

    Raises:
      UserError: with that message.
    """
    refuse_pipe(file)
    try:
        content = _parse(file.read_text(encoding="utf-8"))
        if not isinstance(content, kind):
            raise TypeError(type(content).__name__)
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise UserError(explain(file, error)) from None
    return content


def _parse(text: str) -> typing.Any:
    """Parse JSON, of which escapes of half a character are no part that can be written again."""
    content = json.loads(text)
    if "\\ud" in text:
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def find_json(file: Path) -> dict | None:
    """Read an object that `write_json` wrote; None where it is missing or damaged.

    Raises:
      UserError: the machine does not let it be read.
    """
    try:
        return read_json(file)
    except UserError as error:
        if machine_trouble(error):
            raise
        return None


def read_config(file: Path) -> config_lib.Config:
    """Read the config that a program wrote.

    Raises:
      UserError: it cannot be read.
    """
    content = read_json(file)
    try:
        check_version(str(file), content, CONFIG_VERSION)
        content.pop("version", None)
        config = config_lib.from_dict(content)
        config_lib.validate(config)
        return config
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: not a config of this version of jft: {error}") from None


def write_config(file: Path, config: config_lib.Config) -> None:
    """Write the config of a program, as `read_config` reads it."""
    write_json(file, {"version": CONFIG_VERSION} | config_lib.to_dict(config))


def write_json(path: Path, value) -> None:
    """Replace a file at once: it holds the old value or the new one, never a part."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file at once, as `write_json` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file at once, as `write_json` does."""
    if not processes.first():
        return
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)  # what a link there points to is not ours
    with naming(part), part.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def sha256(value) -> str:
    """Hash a value as JSON, whatever the order of its keys, a list member by member."""
    digest = hashlib.sha256()
    for part in _json_parts(value):
        digest.update(part.encode())
    return digest.hexdigest()


def _json_parts(value) -> Iterator[str]:
    """Write a value as `json.dumps` does, the members of its lists one after the other."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield json.dumps(value, sort_keys=True)
        return
    for i, each in enumerate(value):
        yield ", " if i else "["
        yield from _json_parts(each)
    yield "]" if value else "[]"


def append_jsonl(path: Path, records: Iterable[dict], wait: bool = True) -> None:
    """Add records to a file of JSON lines.

    They outlive the process when this returns, and also the machine with `wait`, or after `sync`.
    """
    if not processes.first():
        return
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(to_jsonl(records))
        file.flush()
        if wait:
            os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the disk has what was written to a file, if there is one."""
    if processes.first() and path.exists():
        with naming(path), path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict]:
    """Read the records of a file of JSON lines; none if there is no file.

    A last line that was cut off by a kill is left out.

    Raises:
      UserError: another line is malformed, or holds no object.
    """
    if not path.exists():
        return []
    with naming(path):
        *lines, _ = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _parse(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} line {number}: not valid JSON: {error}; restore it, or remove that line"
            ) from None
        if not isinstance(record, dict):
            raise UserError(
                f"{path} line {number}: must be an object, not {type(record).__name__}; restore it"
            )
        records.append(record)
    return records


def check_version(where: str, record: dict, newest: int) -> None:
    """Check that a record is of a version that this jft reads; one without a version is of 1.

    Raises:
      UserError: it is of a newer one.
    """
    version = record.get("version", 1)
    if type(version) is int and version > newest:
        raise UserError(
            f"{where}: version={version}, but this jft reads versions up to {newest}; update jft"
        )
    if type(version) is not int or version < 1:
        raise UserError(f"{where}: version={version!r} is not what jft writes there; restore it")


def to_jsonl(records: Iterable[dict]) -> str:
    """Format records as JSON Lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

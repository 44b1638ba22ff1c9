"""Hashes of what a job reads besides its config, to find out when that changes.

Files are hashed as they are: what a change in them means, the job itself knows. Nothing here starts
the devices, which a study leaves to its jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from jft import config as config_lib
from jft.checkpoints import files, model_ref
from jft.data import datasets, readers
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib


def of_model(path: str) -> str:
    """A hash of the files that `model.path` means, and of the base of adapters.

    Of a run, or a step of it, it is that of the hashes in its checkpoints.
    """
    try:
        return workdir_lib.sha256([_of_one(each) for each in _with_bases(path)])
    except UserError:
        return ""  # the job will say what is wrong with it


def _of_one(path: str) -> str:
    folder, step = model_ref.of_run(path)
    if workdir_lib.is_workdir(folder):
        steps = "*" if step is None else str(step)
        return _of_files(folder.glob(f"checkpoints/{steps}/manifest/metadata"))
    return files.fingerprint(path)


def _with_bases(path: str) -> list[str]:
    """A model, and the models that it consists of adapters to, down to one that has none."""
    found = [path]
    while base := model_ref.base_path(found[-1]):
        if base in found:
            break
        found.append(base)
    return found


def of_data(config: config_lib.Config) -> str:
    """A hash of the suite's files, and of files of one's own that a study names."""
    suite, data = datasets.suite(config.data), config.data
    files = {suite.root / "prompt_map.json"}
    for task in suite.tasks:
        files.update((suite.root / task).rglob("*.json"))
    grid = [*config.study.train, *config.eval.datasets, *config.probe.datasets]
    for name in [data.demos, *grid]:
        for reference in (name, name.partition(":")[2]):  # with a task before it, or without
            files.update(readers.files(reference))
    return _of_files(files)


def _of_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            digest.update(f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()

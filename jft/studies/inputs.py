"""What a job reads besides its config, to find out when that changes.

Files are hashed as they are: what a change in them means, the job itself knows. Nothing here starts
the devices, which a study leaves to its jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from jft import config as config_lib
from jft.checkpoints import model_ref
from jft.data import datasets
from jft.data.dataset_ref import DatasetRef
from jft.errors import UserError
from jft.runtime import workdir as workdir_lib


def of_model(path: str) -> str:
    """Hash the model that `model.path` means, and the bases of adapters down to one with none."""
    try:
        ref = model_ref.resolve(path)
        sha256 = [ref.fingerprint()]
        while ref.has_adapters:
            ref = ref.base
            sha256.append(ref.fingerprint())
        return workdir_lib.sha256(sha256)
    except UserError:
        return ""  # the job will say what is wrong with it


def of_data(config: config_lib.Config) -> str:
    """A hash of the suite's files, and of files of one's own that a study names."""
    suite, data = datasets.suite(config.data), config.data
    files = {suite.root / "prompt_map.json"}
    for task in suite.tasks:
        files.update((suite.root / task).rglob("*.json"))
    grid = [*config.study.train, *config.eval.datasets, *config.probe.datasets]
    for name in [data.demos, *grid]:
        for reference in (name, name.partition(":")[2]):  # with a task before it, or without
            files.update(DatasetRef.parse(reference).files())
    return _of_files(files)


def _of_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        if path.is_file():
            digest.update(f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()

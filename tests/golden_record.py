"""Hash what jft computes, so that a change of its code can be shown to change none of it.

    python -m tests.golden_record --out=before.json        before the change
    python -m tests.golden_record --against=before.json    after it: exit code 1 if anything differs

The record holds a SHA-256 of every batch of some training runs, the losses and gradient norms of
five steps on one device and on eight, and of the files of two small studies: one that is trained
and scored, and one whose scores are made up. Losses and scores depend on the processor, so compare
records of one machine. Of a file, the paths of the checkout and of the study are left out, and the
version of its format. It takes three minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from jft import config as config_lib
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import train_batches as batches_lib
from tests import flags, report_data

REPO = Path(__file__).parents[1]
PAPER = REPO.parent / "shared" / "data"
MODEL = "random:llama-tiny"  # a token for each byte, so examples are long
RUNS = {
    "gadgets FT": ("mini", "sentiment", "gadgets_train_480", 0),
    "gadgets FTICL-2": ("mini", "sentiment", "gadgets_train_480", 2),
    "neighbours FTICL-1": ("mini", "question", "neighbours_train_480", 1),
    "PAWS FT": (str(PAPER), "detection", "paws_train_2000", 0),
    "PAWS FTICL-4": (str(PAPER), "detection", "paws_train_2000", 4),
    "SocialQA FTICL-2": (str(PAPER), "question", "socialqa_train_2000", 2),
}
OF_STEP = ("step", "loss", "grad_norm", "lr", "examples", "target_tokens", "row_tokens")
# Of a workdir; data reports and pages are beside what has to stay, and tell where a change began.
FILES = ("rows.jsonl", "cells.jsonl", "comparisons.csv", "report.md", "cells.csv", "drift.csv")
FILES += ("report.html", "probes.jsonl", "drift.json", "data_report.json", "data_report.html")

# A line of its own in indented JSON, also as HTML, or the first field of a line of JSON Lines.
VERSION = re.compile(rb'(\n *)?(?P<quote>"|&#34;|&quot;)version(?P=quote): \d+,(?(1)| )')


def digest(content: bytes) -> str:
    """Shorten a SHA-256 to its first digits."""
    return hashlib.sha256(content).hexdigest()[:16]


def of_batches(root: str, task: str, train: str, shots: int, shards: int) -> list[str]:
    """Hash the arrays of every step, in their order in `Batch`, whatever they are called."""
    config = config_lib.get_config()
    config.data.root, config.data.task, config.data.train = root, task, train
    config.data.shots, config.data.max_length = shots, 4096
    batches = batches_lib.plan_run(config, tokenizer_lib.load(MODEL), shards)
    found = []
    for step in range(batches.steps):
        leaves = jax.tree.leaves(batches.batch(step))
        parts = [f"{x.shape} {x.dtype}".encode() + np.asarray(x).tobytes() for x in leaves]
        found.append(digest(b"".join(parts)))
    return found


def run(program: str, *arguments: str, devices: int = 1) -> None:
    """Run one of the programs on so many CPU devices, compiled quickly."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.devices(devices)}
    command = [sys.executable, "-m", f"jft.{program}", *arguments]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")


def of_training(folder: Path, devices: int, *more: str) -> list[dict]:
    """Train the tiny model for five steps, and return its metrics without the times."""
    run(
        *("train", "--config=configs/finetune.py", f"--workdir={folder}"),
        *(f"--config.model.path={MODEL}", "--config.data.train=gadgets_train_480"),
        *("--config.train.steps=5", "--config.train.batch_size=8", "--config.optim.lr=1e-3"),
        *("--config.data.shots=2", "--config.probe.limit=2", *more),
        devices=devices,
    )
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in OF_STEP} for line in lines]


def of_files(folder: Path) -> dict[str, str]:
    """Hash every file that is to stay, by its path; see the module for what is left out."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.name in FILES:
            content = file.read_bytes().replace(str(folder).encode(), b"DIR")
            content = content.replace(str(REPO).encode(), b"REPO")
            found[str(file.relative_to(folder))] = digest(VERSION.sub(b"", content))
    return found


def of_study(folder: Path) -> dict[str, str]:
    """Train FT and FTICL of the tiny model, score them and the base on three tasks, and report."""
    run(
        *("study", "--config=configs/finetune.py", f"--workdir={folder}"),
        *(f"--config.model.path={MODEL}", "--config.study.shots=0,2"),
        "--config.study.train=sentiment/gadgets_train_480",
        *("--config.train.steps=3", "--config.train.batch_size=8", "--config.optim.lr=1e-2"),
        *("--config.probe.limit=2", "--config.eval.datasets=gadgets,films,village,neighbours"),
        *("--config.eval.shots=0,1", "--config.eval.limit=12", "--config.eval.max_new_tokens=12"),
    )
    return of_files(folder)


def of_made_up_study(folder: Path) -> dict[str, str]:
    """Report on scores that `report_data` makes up: of FT and FTICL, and of two seeds."""
    dirs = report_data.write_study(folder / "small", n=20)
    for seed in (0, 1):
        name = f"FT gadgets_train_400{' seed 1' * seed}"
        options = {"model_path": f"/runs/ft-{seed}", "train_shots": 0, "train_seed": seed}
        options |= {"train": "gadgets_train_400", "seed": seed, "n": 30}
        of_seed = folder / "seeds" / str(seed)
        dirs.append(str(report_data.write_evaluation(of_seed, name, report_data.FT, **options)))
    dirs.append(str(report_data.write_evaluation(folder / "base", "tiny", report_data.BASE, n=30)))
    run("report", *dirs[:3], f"--out={folder / 'report'}")
    run("report", *dirs[3:], f"--out={folder / 'report-of-seeds'}")
    return of_files(folder)


def record() -> dict:
    """Make the whole record, by name."""
    found: dict = {}
    for name, (root, task, train, shots) in RUNS.items():
        if root != "mini" and not Path(root).is_dir():
            print(f"left out: {name}, since there is no {root}")
            continue
        for shards in (1, 8):
            found[f"batches: {name}, {shards} devices"] = of_batches(
                root, task, train, shots, shards
            )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for devices in (1, 8):
            found[f"steps, {devices} devices"] = of_training(root / f"train{devices}", devices)
        mesh = ("--config.mesh.fsdp=2", "--config.mesh.tensor=2", "--config.lora.rank=4")
        found["steps of adapters, 8 devices"] = of_training(root / "lora", 8, *mesh)
        found["study"] = of_study(root / "study")
        found["made-up study"] = of_made_up_study(root / "made-up")
    return found


def differences(before: dict, after: dict) -> list[str]:
    """List what is not the same in two records, a line each."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            files = sorted(old.keys() | new.keys())
            lines += [f"{name}: {x}" for x in files if old.get(x) != new.get(x)]
        elif old != new:
            lines.append(name)
    return lines


def main() -> None:
    """Write a record, or compare with one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the record to this file")
    parser.add_argument("--against", type=Path, help="a record of before")
    options = parser.parse_args()
    found = json.loads(json.dumps(record()))
    print(f"golden record: {digest(json.dumps(found, sort_keys=True).encode())}")
    for name, value in found.items():
        print(f"  {digest(json.dumps(value, sort_keys=True).encode())}  {name}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.against:
        lines = differences(json.loads(options.against.read_text()), found)
        print("\n".join(["differs:", *lines]) if lines else "the same in everything")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()

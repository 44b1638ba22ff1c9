"""A study: its entries, what they take, and that nothing is lost or done twice."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import flags
import pytest

from configs import paper
from jft import config as config_lib
from jft.data import eval_grid
from jft.errors import UserError
from jft.runtime import workdir
from jft.studies import dry_run
from jft.studies import run as study_run
from jft.studies.entries import entries

PAPER = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def study(config):
    """Two trainings on 20 rows, and one that cannot be."""
    broken = Path(config.data.root) / "detection" / "broken_train_20.json"
    broken.write_text('[{"input_1": "a", "output": "yes"}]')
    config.data.train, config.data.task = "", "sentiment"
    config.data.row_length = 512
    config.study.train = ("shops_train_20",)
    config.train.steps = 2
    config.probe.limit = 0
    config.eval.datasets, config.eval.limit = ("shops",), 4
    config.eval.retention = ()
    return config


def names(config):
    return [entry.name for entry in entries(config, Path("/study"))]


def test_entries(study):
    study.study.train, study.study.sizes = ("shops_train_20", "detection/pairs_train_20"), (8, 0)
    study.study.task_shots, study.study.seeds = ("detection=0",), (0, 1)
    assert names(study) == ["base"] + [
        f"{kind}-sentiment-shops_train_20{size}{seed}"
        for size in ("-first-8", "")
        for kind in ("FT", "FTICL-2")
        for seed in ("", "-seed-1")
    ] + [
        f"FT-detection-pairs_train_20{size}{seed}"
        for size in ("-first-8", "")
        for seed in ("", "-seed-1")
    ]
    _, entry, *_ = entries(study, Path("/study"))
    assert entry.training.config.data.examples == 8
    assert entry.training.config.data.shots == 0
    assert entry.scoring.config.model.path == "/study/runs/FT-sentiment-shops_train_20-first-8"


def test_without_names_a_study_takes_every_training_set(study):
    (Path(study.data.root) / "detection" / "broken_train_20.json").unlink()
    study.study.train, study.study.shots = (), (0,)
    assert names(study) == [
        "base",
        "FT-sentiment-films_train_20",
        "FT-sentiment-shops_train_20",
        "FT-detection-pairs_train_20",
    ]


def test_sizes_beyond_the_data_are_left_out(study, capsys):
    study.study.sizes, study.study.shots = (8, 21), (0,)
    assert len(names(study)) == 2
    assert "shops_train_20 holds 20 examples, so no study.sizes=21" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("shop_train_20", "no such train set; did you mean shops_train_20"),
        ("sentimnt:rows.json", "no task sentimnt; did you mean sentiment"),
    ],
)
def test_training_sets_that_are_not_there(study, train, message):
    study.study.train = (train,)
    with pytest.raises(UserError, match=message):
        names(study)


def test_an_empty_grid_and_the_keys_of_one_training_are_refused(study):
    study.study.sizes = ()
    with pytest.raises(UserError, match=r"study.sizes is empty"):
        names(study)
    study.study.sizes, study.data.shots = (0,), 2
    with pytest.raises(UserError, match=r"data.shots=2: .* set study.shots"):
        names(study)


@pytest.mark.skipif(not PAPER.is_dir(), reason="needs the paper's data in ../shared/data")
def test_the_papers_grid():
    config = paper.get_config()
    config.data.root = str(PAPER)
    found = entries(config, Path("/study"))
    assert len(found) == 1 + 5 * 3 * 5
    config.study.train, config.study.seeds, config.eval.retention = (), (0,), ()
    every = entries(config, Path("/study"))
    assert len(every) == 1 + 3 * len(list(PAPER.glob("*/*_train_*.json")))
    assert len(eval_grid.all_cells(every[1].scoring.config)) == 18 * 4 * 2


def test_the_dry_run_measures_each_kind_of_work(config, tmp_path, capsys):
    config.data.root, config.data.train, config.probe.limit = "mini", "", 1
    config.study.train, config.study.shots = ("sentiment/gadgets_train_480",), (0,)
    config.eval.datasets, config.eval.shots = ("films", "neighbours"), (0,)
    config.eval.limit, config.eval.max_new_tokens = 3, 4
    dry_run.dry_run(config, str(tmp_path / "study"))
    found = workdir.read_json(tmp_path / "study" / "dry_run.json")
    of_token, of_job = found["token_seconds"], found["job_seconds"]
    assert set(of_token) == {"training", "scoring", "generation"}
    assert min(of_token.values()) > 0 < of_job
    base, training, scoring = found["jobs"]
    assert base["seconds"] == scoring["seconds"] > of_job + of_token["generation"] * 12
    assert base["new_tokens"] == 12  # for the three items of neighbours
    assert training["seconds"] > of_job + of_token["training"] * training["row_tokens"]
    assert found["seconds"] == sum(job["seconds"] for job in found["jobs"])
    output = capsys.readouterr().out
    assert "2 models, each scored on 2 cells" in output
    # What the grid can find: nothing of a recipe that is trained once.
    assert re.search(r"out-of-domain: \d+\.\d points of a checkpoint; none of a recipe", output)


def run(config, folder, *overrides, **options):
    file = folder.parent / "config.json"
    file.write_text(json.dumps(config_lib.to_dict(config)))
    command = [sys.executable, "-m", "jft.study", f"--config={file}", f"--workdir={folder}"]
    environment = os.environ | {"XLA_FLAGS": flags.devices(1)}
    return subprocess.Popen([*command, *overrides], env=environment, text=True, **options)


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_killed_it_goes_on_what_fails_leaves_the_rest_and_the_dry_run_was_right(
    study, tmp_path, capsys
):
    study.study.train, study.study.shots = ("broken_train_20", "shops_train_20"), (2,)
    study.report.margin = 7.5
    folder = tmp_path / "study"
    dry_run.dry_run(study, str(folder))
    broken = "broken_train_20.json row 0 (from 0): missing field 'input_2' of task detection"
    assert f"FTICL-2-detection-broken_train_20 would fail: {broken}" in capsys.readouterr().out

    killed = run(study, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in killed.stdout:
        if "Compiling the training step" in line:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    first = [each["job"] for each in read(folder / "jobs.jsonl")]
    assert first == ["jft.eval base", "jft.train FTICL-2-detection-broken_train_20"]

    again = run(study, folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = again.communicate()
    assert again.returncode == 2
    assert "jft.eval base\n" not in output
    assert errors.splitlines()[-1] == (
        "error: failed jobs: 1; the others are done: jft.train FTICL-2-detection-broken_train_20: "
        f"{broken}. The same command tries them again"
    )
    assert "--margin=7.5" in (folder / "report" / "report.html").read_text()

    status = {each["job"]: each["status"] for each in read(folder / "jobs.jsonl")}
    assert status.pop("jft.train FTICL-2-detection-broken_train_20") == "failed"
    jobs = workdir.read_json(folder / "dry_run.json")["jobs"]
    assert status == {job["job"]: "done" for job in jobs}
    for job in jobs:
        program, name = job["job"].split()
        if program == "jft.train":
            steps = read(folder / "runs" / name / "metrics.jsonl")
            assert job["row_tokens"] == sum(step["row_tokens"] for step in steps)
        else:
            cells = read(folder / "scores" / name / "cells.jsonl")
            for field in ("row_tokens", "sequence_tokens"):
                assert job[field] == sum(cell[field] for cell in cells)

    # What is gone is made again, what has changed is refused, and no job is taken for another's.
    study.study.train = ("shops_train_20",)
    test, name = Path(study.data.root) / "sentiment/shops_test_20.json", jobs[-1]["job"].split()[1]
    test.write_text(test.read_text().replace("a", "o"))
    shutil.rmtree(folder / "runs" / name / "checkpoints")
    (folder / "scores" / "of another grid").mkdir()
    (folder / "scores" / "of another grid" / "cells.jsonl").write_text("{}\n")
    changed = run(study, folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = changed.communicate()
    assert changed.returncode == 2
    last = errors.splitlines()[-1]
    assert last.startswith("error: failed jobs: 2; the others are done: jft.eval base: ")
    assert "its rows have changed since; remove it, or choose another workdir" in last
    assert workdir.is_trained(folder / "runs" / name)


def test_own_rows_of_the_panel_are_files_that_a_job_reads(study, tmp_path):
    file = tmp_path / "asks.jsonl"
    file.write_text('{"input": "Say yes.", "checks": ["one_of yes"]}\n')
    study.eval.retention = ("prompts", f"instruction:{file}")
    before = study_run._data_sha256(study)
    assert study_run._data_sha256(study) == before
    file.write_text('{"input": "Say no.", "checks": ["one_of no"]}\n')
    assert study_run._data_sha256(study) != before


def write_job(config, folder):
    file = folder.with_suffix(".json")
    workdir.write_config(file, config)
    return ["jft.train", str(file), str(folder)]


def test_a_job_that_ends_the_process_leaves_the_next_one_alone(config, tmp_path, capfd):
    config.probe.limit, config.train.steps = 0, 1
    other = copy.deepcopy(config)
    other.data.train = ("missing_train_20",)
    with study_run._Worker() as worker:
        assert worker.run(write_job(config, tmp_path / "one")) == ""
        process = worker._process
        assert "missing_train_20" in worker.run(write_job(other, tmp_path / "other"))
        assert worker.run(write_job(config, tmp_path / "two")) == ""
        assert worker._process is process
        assert worker.run(["jft.nothing", "a", "b"]) == "KeyError: 'jft.nothing'"
        assert process.poll() == 1
        assert worker.run(write_job(config, tmp_path / "three")) == ""
        worker._process.kill()
        worker._process.wait()
        message = worker.run(write_job(config, tmp_path / "four"))
        assert message == "killed by SIGKILL; was there enough memory?"
        last = worker.run(write_job(config, tmp_path / "four"))
        assert last == ""
        process = worker._process
    assert process.poll() == 0  # with the study
    assert "error: data.train=missing_train_20" in capfd.readouterr().err
    weights = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two", "four")]
    losses = [[json.loads(line)["loss"] for line in each.splitlines()] for each in weights]
    assert losses[0] == losses[1] == losses[2]


def test_a_study_that_is_told_to_end_saves_first(study, tmp_path):
    study.study.train, study.study.shots = ("shops_train_20",), (0,)
    study.train.steps, folder = 5000, tmp_path / "study"
    told = run(study, folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = []
    for line in told.stdout:
        lines.append(line)
        if line.startswith("Training 1/"):
            told.send_signal(signal.SIGTERM)
    told.stdout.close()
    assert told.wait() == 128 + signal.SIGTERM
    assert any(line.startswith("Stopped after step") for line in lines)
    (training,) = (folder / "runs").iterdir()
    assert list((training / "checkpoints").iterdir())
    assert [each["job"] for each in read(folder / "jobs.jsonl")] == ["jft.eval base"]

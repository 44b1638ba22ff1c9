"""TensorBoard's files: what they hold, and that no fault in writing them stops a run."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from jft.runtime import records
from jft.training import log, loop
from jft.training import step as step_lib


def events(file):
    """Read the events of a TensorBoard file: of each its length, a checksum, itself, a checksum."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = Event()
        event.ParseFromString(data[at + 12 : at + 12 + size])
        at += 16 + size
        yield event


def shown(folder):
    """Collect the values of all files, as (tag, step) -> value."""
    return {
        (value.tag, event.step): value.simple_value
        for file in (folder / "tensorboard").iterdir()
        for event in events(file)
        for value in event.summary.value
    }


def test_tensorboard_shows_what_the_log_holds(config, tmp_path):
    config.probe.limit = 2
    loop.train(config, str(tmp_path))
    values = shown(tmp_path)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name in ("loss", "lr", "grad_norm", "seconds"):
            assert values["train/" + name, record["step"]] == pytest.approx(record[name], rel=1e-6)
    probes = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    assert probes
    for record in probes:
        tag = f"probe/{record['dataset']}/nll"
        assert values[tag, record["step"]] == pytest.approx(record["nll"], rel=1e-6)


def test_steps_are_written_at_once_and_wait_for_the_disk_where_a_checkpoint_is_saved(
    config, tmp_path, monkeypatch
):
    config.train.steps, config.checkpoint.every, config.optim.warmup_steps = 6, 3, 2
    synced, sync = [], records.sync

    def noted(folder, kind):
        synced.append(len((folder / kind.name).read_text().splitlines()))
        sync(folder, kind)

    monkeypatch.setattr(log.records, "sync", noted)
    loop.train(config, str(tmp_path))
    assert synced == [3, 6]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    schedule = step_lib.learning_rate(config.optim, 6)
    rates = [float(schedule(step)) for step in range(6)]
    assert [json.loads(line)["lr"] for line in lines] == pytest.approx(rates, rel=1e-6)


def test_files_of_a_resumed_run_hide_what_is_trained_again(tmp_path):
    for done in (0, 7):
        log.Board(tmp_path, done).close()
        time.sleep(1)  # a file is named after the second
    files = sorted((tmp_path / "tensorboard").iterdir())
    starts = [e.step for file in files for e in events(file) if e.HasField("session_log")]
    assert starts == [0, 8]


def full(board):
    """Let every further write fail, as on a full disk."""
    board._writer.close()
    board._writer._writer = open("/dev/full", "wb")  # noqa: SIM115


def test_a_write_that_fails_is_said_once_and_is_the_last(tmp_path, capsys):
    board = log.Board(tmp_path, 0)
    board.add("loss", 1.0, 1)
    full(board)
    for step in range(2, 5000):
        board.add("loss", 1.0, step)
    board.close()
    assert capsys.readouterr().out.count("No space left on device; nothing more is written") == 1
    assert set(shown(tmp_path)) <= {("loss", 1)}


def test_a_run_goes_on_where_tensorboard_cannot_write(config, tmp_path, capsys):
    (tmp_path / "tensorboard").touch()
    loop.train(config, str(tmp_path))
    assert "File exists; nothing more is written there" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == config.train.steps


def test_a_clock_set_back_stops_nothing(tmp_path, monkeypatch):
    board = log.Board(tmp_path, 0)
    board.add("loss", 1.0, 0)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 30 * 86400)
    for step in range(1, 40):
        board.add("loss", 1.0, step)
    board.close()
    assert len(shown(tmp_path)) == 40


FAILING_THREAD = """
import time
from jft.runtime import threads

def work():
    raise ValueError("lost")

threads.start(work, "the watch")
time.sleep(60)
"""


def test_a_thread_that_fails_ends_the_program():
    done = subprocess.run(
        [sys.executable, "-c", FAILING_THREAD], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 1
    assert "error: the watch has failed, and so the program ends" in done.stderr
    assert "ValueError: lost" in done.stderr

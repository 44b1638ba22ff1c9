"""Several processes give what one gives; who is missing or has gone is named; nothing is lost."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import flags
import numpy as np
import pytest

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.runtime import cli, processes, rendezvous

REPO = Path(__file__).parent.parent
LONG = 15  # steps of a run that must not be over before it is told to end, or killed


def environment(folder, devices):
    xla = flags.devices(devices)
    return {**os.environ, "XLA_FLAGS": xla, "XDG_CACHE_HOME": str(folder.parent / "cache")}


def free_port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def starting(folder):
    """Starts some of the processes of a run; what is left of them at the end is killed."""
    started = []

    def start(arguments, number=1, devices=1, wait=60, which=None, cwd=REPO, setting=None):
        port, found = free_port(), []
        for i in range(number) if which is None else which:
            place = [*at(port, i, number), f"--wait={wait}"]
            log = (folder / f"log.{len(started)}").open("w+")
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments, *(place if number > 1 else [])],
                cwd=cwd,
                env=environment(folder, devices) | (setting or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            process.log = log
            started.append(process)
            found.append(process)
        return found

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.log.close()


@pytest.fixture
def start(tmp_path):
    with starting(tmp_path) as start:
        yield start


def end(processes, *codes):
    """What each has printed, when all have ended with these exit codes."""
    texts = []
    for process, code in zip(processes, codes or [0] * len(processes), strict=True):
        found = process.wait()
        process.log.seek(0)
        texts.append(process.log.read())
        assert found == code, texts[-1]
    return texts


def training(workdir, *more, steps=6):
    return [
        *("jft.train", f"--config={REPO}/configs/finetune.py", f"--workdir={workdir}"),
        *("--config.model.path=random:llama-tiny", "--config.data.train=gadgets_train_480"),
        *("--config.data.shots=1", "--config.data.max_length=256", f"--config.train.steps={steps}"),
        *("--config.train.batch_size=8", "--config.optim.lr=1e-3", "--config.probe.limit=2"),
        *("--config.probe.datasets=gadgets", "--config.checkpoint.every=3", *more),
    ]


def scoring(workdir, model, *more):
    return [
        *("jft.eval", f"--config={REPO}/configs/evaluate.py", f"--workdir={workdir}"),
        *(f"--config.model.path={model}", "--config.eval.datasets=gadgets,neighbours"),
        *("--config.eval.shots=1", "--config.eval.limit=10"),
        *("--config.eval.retention=prompts,choice", "--config.eval.max_new_tokens=6", *more),
    ]


def on_mesh(data, fsdp, tensor):
    return [
        f"--config.mesh.data={data}",
        f"--config.mesh.fsdp={fsdp}",
        f"--config.mesh.tensor={tensor}",
    ]


def records(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def losses(workdir):
    return [record["loss"] for record in records(workdir / "metrics.jsonl")]


def reached(workdir, step):
    file = workdir / "metrics.jsonl"
    while not (file.exists() and file.read_bytes().count(b"\n") >= step):
        time.sleep(0.01)


@contextlib.contextmanager
def made_once(tmp_path_factory, name):
    """Yield a folder that all workers of a test run share, and whether this one has to fill it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with filelock.FileLock(f"{folder}.lock"):
        missing = not (folder / "whole").exists()
        if missing:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, missing
        (folder / "whole").touch()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process gives: a run, and its evaluation."""
    with made_once(tmp_path_factory, "alone") as (folder, missing), starting(folder) as start:
        if missing:
            end(start(training(folder / "run")))
            end(start(scoring(folder / "eval", folder / "run")))
    return folder


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A long run of two processes that are left alone."""
    with made_once(tmp_path_factory, "long") as (folder, missing), starting(folder) as start:
        if missing:
            end(start(training(folder / "run", *on_mesh(2, 1, 1), steps=LONG), 2))
    return folder / "run"


@pytest.mark.parametrize(
    ("number", "devices", "sizes"), [(2, 2, (2, 2, 1)), (4, 1, (1, 2, 2))], ids=["two", "four"]
)
def test_several_processes_give_what_one_gives(start, alone, tmp_path, number, devices, sizes):
    run, scores = tmp_path / "run", tmp_path / "eval"
    texts = end(start(training(run, *on_mesh(*sizes)), number, devices))
    assert "Done: 6 steps" in texts[0]
    assert all("6 steps" not in text for text in texts[1:])  # only the first one speaks
    assert losses(run) == pytest.approx(losses(alone / "run"), rel=1e-5)
    found, wanted = (json.loads((f / "data_report.json").read_text()) for f in (run, alone / "run"))
    assert found["sha256"] == wanted["sha256"]
    for a, b in zip(*(records(f / "probes.jsonl") for f in (run, alone / "run")), strict=True):
        assert [a["nll"], a["kl"]] == pytest.approx([b["nll"], b["kl"]], rel=1e-4, abs=1e-7)

    end(start(scoring(scores, alone / "run", *on_mesh(*sizes)), number, devices))
    for a, b in zip(*(records(f / "rows.jsonl") for f in (scores, alone / "eval")), strict=True):
        assert a.pop("scores", {}) == pytest.approx(b.pop("scores", {}), rel=1e-5)
        assert a.pop("logprob", 0.0) == pytest.approx(b.pop("logprob", 0.0), rel=1e-5)
        for x, y in zip(a.pop("likeliest", []), b.pop("likeliest", []), strict=True):
            assert x["logprobs"] == pytest.approx(y["logprobs"], abs=1e-4)
        assert a == b


def test_one_that_is_told_to_end_stops_all_and_one_alone_goes_on(start, long, tmp_path):
    run = tmp_path / "run"
    first, second = start(training(run, *on_mesh(1, 2, 1), steps=LONG), 2)
    reached(run, 2)
    second.send_signal(signal.SIGTERM)
    text, _ = end([first, second])
    assert "Another process was told to end" in text
    done = len(losses(run))
    assert 2 <= done < LONG
    assert (run / "checkpoints" / str(done) / "manifest").is_dir()
    (text,) = end(start(training(run, steps=LONG)))
    assert f"Going on from step {done}" in text
    assert losses(run) == pytest.approx(losses(long), rel=1e-5)


def test_a_run_goes_on_with_other_devices(start, alone, tmp_path):
    """From what one has saved to eight, and from what these have saved to four."""
    run = tmp_path / "run"
    shutil.copytree(alone / "run", run)
    for devices, sizes, step in ((8, (1, 4, 2), 3), (4, (2, 2, 1), 5)):
        shutil.rmtree(run / "checkpoints" / "6")
        arguments = training(run, *on_mesh(*sizes), "--config.checkpoint.every=1")
        (text,) = end(start(arguments, devices=devices))
        assert f"Going on from step {step}" in text
        assert losses(run) == pytest.approx(losses(alone / "run"), rel=1e-5)


def test_one_that_is_killed_ends_the_other_and_all_go_on_exactly(start, long, tmp_path):
    killed, mesh = tmp_path / "killed", on_mesh(2, 1, 1)
    first, second = start(training(killed, *mesh, steps=LONG), 2)
    while not any(f.name.isdigit() for f in killed.glob("checkpoints/*")):
        time.sleep(0.01)
    second.kill()
    text, _ = end([first, second], 1, -signal.SIGKILL)
    assert "error: process 1 of 2 has ended" in text
    assert "run the same command again to go on" in text
    text, _ = end(start(training(killed, *mesh, steps=LONG), 2))
    assert 3 <= int(re.search(r"Going on from step (\d+)", text)[1]) < LONG
    assert losses(killed) == losses(long)
    assert (killed / "drift.json").read_bytes() == (long / "drift.json").read_bytes()


def test_those_who_do_not_come_are_named(start, tmp_path):
    texts = end(start(training(tmp_path / "run"), 4, wait=5, which=(0, 2)), 1, 1)
    for text in texts:
        assert "of 4 processes these did not come" in text
        assert "in 5 s: 1, 3;" in text
    (text,) = end(start(training(tmp_path / "run"), 4, wait=1, which=(3,)), 1)
    assert "process 0 of 4 did not come to localhost:" in text


def test_one_with_another_config_is_named(start, tmp_path):
    run, port = tmp_path / "run", free_port()
    (one,) = start(training(run, *at(port, 0)))
    (two,) = start(training(run, *at(port, 1), "--config.optim.lr=2e-3"))
    for text in end([one, two], 2, 2):
        assert "process 1 has other config optim.lr than the rest (0.002 instead of 0.001)" in text
    assert not run.exists()


def with_rows(folder, name, changed=False):
    """Give a process a folder of its own to be started in, with a training file."""
    here = folder / name
    here.mkdir()
    labels = ("positive", "negative")
    rows = [{"input": f"text {i}", "output": labels[(i + changed) % 2]} for i in range(16)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return here


def with_base(folder, name, changed=False, token=None):
    """Give a process a base of its own, which others may have in another form."""
    here = folder / name
    _, params, description = safetensors_io.load("random:llama-tiny")
    if changed:
        params["final_norm"]["scale"] = params["final_norm"]["scale"] * np.float32(1.5)
    safetensors_io.save(description, params, str(here / "base"))
    tokenizer_lib.load("random:llama-tiny").save(str(here / "base"))
    if token:
        file = here / "base/tokenizer.json"
        file.write_text(file.read_text().replace("<|pad|>", token))
    return here


def with_code(folder, name):
    """Give a process a copy of jft in which a comment differs."""
    here = folder / name
    shutil.copytree(REPO / "jft", here / "jft")
    with (here / "jft/batch.py").open("a") as file:
        file.write("# another version\n")
    return here


ROWS = ["--config.data.train=rows.jsonl", "--config.data.shots=0"]
BASE = ["--config.model.path=base"]
SCORE_ROWS = ["--config.eval.datasets=sentiment:rows.jsonl", "--config.eval.shots=0"]


DIFFERENCES = {
    "rows": ("train", with_rows, {"changed": True}, ROWS, "other training rows (rows.jsonl) than"),
    "base": ("train", with_base, {"changed": True}, BASE, "other model than the rest"),
    "tokenizer": ("train", with_base, {"token": "<|gap|>"}, BASE, "other tokenizer than the rest"),
    "devices": (
        "train",
        None,
        {"devices": 2},
        [],
        "other number of devices than the rest (2 instead of 1)",
    ),
    "code": ("train", None, {"code": True}, [], "other code of jft than the rest"),
    "setting": (
        "train",
        None,
        {"setting": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"}},
        [],
        "other setting jax_default_matmul_precision than the rest (bfloat16 instead of None)",
    ),
    "dry run": (
        "train",
        None,
        {"dry": True},
        [],
        "other flag --dry_run than the rest (True instead of F",
    ),
    "scored rows": (
        "eval",
        with_rows,
        {"changed": True},
        SCORE_ROWS,
        "other rows of sentiment/rows than the",
    ),
    "scored model": ("eval", with_base, {"changed": True}, BASE, "other model than the rest"),
}


@pytest.mark.parametrize(
    ("number", "kind"),
    # Of evaluations two are enough.
    [(2, kind) for kind in DIFFERENCES]
    + [(4, kind) for kind, case in DIFFERENCES.items() if case[0] == "train"],
)
def test_what_processes_differ_in_is_named(start, tmp_path, number, kind):
    program, make, odd, more, message = DIFFERENCES[kind]
    run, port, started, last = tmp_path / "run", free_port(), [], number - 1
    command = (
        training(run, *more) if program == "train" else scoring(run, "random:llama-tiny", *more)
    )
    for i in range(number):
        is_odd = i == last
        folder, devices = REPO, 1
        if make:
            folder = make(tmp_path, f"host{i}", **(odd if is_odd else {}))
        elif is_odd and "code" in odd:
            folder = with_code(tmp_path, f"host{i}")
        elif is_odd:
            devices = odd.get("devices", 1)
        dry = ["--dry_run"] if is_odd and "dry" in odd else []
        setting = odd.get("setting") if is_odd else None
        started += start(
            [*command, *dry, *at(port, i, number)], devices=devices, cwd=folder, setting=setting
        )
    for text in end(started, *[2] * number):
        assert f"process {last} has {message}" in text
        assert text.count("error: ") == 1
    assert not run.exists()


def test_two_of_one_number_are_refused(start, tmp_path):
    texts = end(start(training(tmp_path / "run"), 3, which=(0, 1, 1)), *[2] * 3)
    assert all("each with a number of its own" in text for text in texts)


def test_a_workdir_that_they_do_not_share_is_refused(start, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    port = free_port()
    (one,) = start([*training(first), *at(port, 0)])
    (two,) = start([*training(second), *at(port, 1)])
    others, text = end([one, two], 1, 2)
    assert f"--workdir={second} is not the folder that process 0 has" in text
    assert "error: process 1 of 2 has ended" in others
    assert "Traceback" not in others


def test_an_error_of_process_0_is_told_once_and_by_the_others_in_a_line(start, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "metrics.jsonl").touch()
    one, two = end(start(training(tmp_path / "taken"), 2), 2, 1)
    assert "error: process 0 of 2: " in one
    assert "holds other files" in one
    assert re.fullmatch("error: process 0 of 2 has ended, and so process 1 of 2 does; .*\n", two)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("does", "code", "says"),
    [
        ("raise RuntimeError('a bug')", 1, "RuntimeError: a bug"),
        ("os.kill(os.getpid(), 15)", 128 + signal.SIGTERM, "interrupted; run the same command"),
    ],
    ids=["bug", "SIGTERM"],
)
def test_what_ends_one_before_it_trains_ends_all(
    start, monkeypatch, tmp_path, which, does, code, says
):
    (tmp_path / "broken.py").write_text(
        "import os, runpy\nfrom jft.training import start\n"
        f"def begin(*_):\n    {does}\n"
        "start.begin = begin\nrunpy.run_module('jft.train', run_name='__main__')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    port, (_, *arguments) = free_port(), training(tmp_path / "run")
    modules = ["broken" if i == which else "jft.train" for i in (0, 1)]
    found = [start([name, *arguments, *at(port, i)])[0] for i, name in enumerate(modules)]
    texts = end(found, *(code if i == which else 1 for i in (0, 1)))
    assert says in texts[which]
    other = texts[1 - which]
    assert f"error: process {which} of 2 has ended, and so process {1 - which}" in other
    assert not re.search("Traceback|absl|gRPC", other)


def start_with_one_that_hangs(start, monkeypatch, tmp_path, which, seconds):
    """Start two processes, of which one never comes to a barrier; the other waits so long there."""
    (tmp_path / "hanging.py").write_text(
        "import os, runpy, time\nfrom jft.runtime import processes\n"
        f"processes.BARRIER_SECONDS = {seconds}\n"
        "if os.environ.get('HANGS'): processes.barrier = lambda label: time.sleep(600)\n"
        "runpy.run_module('jft.train', run_name='__main__')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    port, (_, *arguments) = free_port(), training(tmp_path / "run")
    found = []
    for i in (0, 1):
        monkeypatch.setenv("HANGS", "1" if i == which else "")
        found += start(["hanging", *arguments, *at(port, i)])
    return found


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_hangs_before_a_barrier_is_named(start, monkeypatch, tmp_path, which):
    found = start_with_one_that_hangs(start, monkeypatch, tmp_path, which, 3.0)
    texts = end(found, 1, 1)
    wanted = f"of 2 processes these did not come to the barrier 'compare programs' in 3 s: {which};"
    assert f"error: process {1 - which} of 2: {wanted}" in texts[1 - which]
    assert f"error: process {1 - which} of 2 has ended, and so process {which}" in texts[which]
    assert not any(re.search("Traceback|absl|gRPC", text) for text in texts)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_waits_for_another_hears_a_signal(start, monkeypatch, tmp_path, number):
    """Python runs no handler while JAX waits."""
    found = start_with_one_that_hangs(start, monkeypatch, tmp_path, 1, 600.0)
    while "2 processes, 2 devices" not in (tmp_path / "log.0").read_text():
        time.sleep(0.1)
    time.sleep(1)
    found[0].send_signal(number)
    texts = end(found, 128 + number, 1)
    assert texts[0].count("interrupted; run the same command again to go on") == 1
    assert "error: process 0 of 2 has ended, and so process 1 of 2 does" in texts[1]


def test_what_jft_uses_of_jax_and_is_not_public_is_there():
    """Where JAX moved it, `jft.runtime.processes` has to follow; it is used nowhere else."""
    from jax._src import clusters, distributed, lib

    names = {env.name for env in getattr(clusters.ClusterEnv, "_cluster_types", ())}
    assert names >= set(processes.CLUSTERS), (
        "JAX lists its clusters elsewhere, or calls them otherwise: change processes._detect and "
        "CLUSTERS; without it every process of a cluster believes that it is alone"
    )
    client = getattr(lib._jax, "DistributedRuntimeClient", None)
    assert hasattr(distributed.global_state, "client"), "change processes._coordination_client"
    assert hasattr(client, "wait_at_barrier"), "change processes.barrier"


def test_one_that_is_started_again_before_all_have_come_is_one_of_them(start, tmp_path):
    port = free_port()
    arguments = [*training(tmp_path / "run"), "--dry_run"]
    first = start([*arguments, *at(port, 0, 3)])
    lost = None
    while lost is None:
        with contextlib.suppress(OSError):
            lost = socket.create_connection(("localhost", port))
    lost.sendall(b"jft 1 3\n")
    lost.close()
    others = [start([*arguments, *at(port, i, 3)])[0] for i in (1, 2)]
    assert "3 processes" in end([*first, *others])[0]


def test_a_peer_that_sends_a_byte_now_and_then_is_not_waited_for():
    one, other = socket.socketpair()
    heard = threading.Event()

    def drip():
        while not heard.wait(0.01):
            other.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with one, other:
        assert not rendezvous._read_line(one, 0.2).endswith("\n")
        heard.set()
        dripping.join()


def at(port, process, number=2):
    return [f"--coordinator=localhost:{port}", f"--processes={number}", f"--process={process}"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=host"], "--coordinator=host: is written HOST:PORT"),
        (["--processes=2"], "--coordinator=: is written HOST:PORT"),
        (["--coordinator=host:1"], "--processes=0: how many"),
        (["--coordinator=host:70000"], "--coordinator=host:70000: is written HOST:PORT"),
        (["--coordinator=host:1", "--processes=2"], "--process=-1: of 2 processes it is one from"),
        ([*at(1, 0), "--wait=nan"], "--wait=nan: must be from 0 to 1000000 seconds"),
        (at(1, 2), "--process=2: of 2 processes it is one from 0 to 1"),
    ],
    ids=str,
)
def test_flags_that_do_not_fit_are_named(monkeypatch, capsys, tmp_path, flags, message):
    argv = ["jft", "--config=configs/finetune.py", f"--workdir={tmp_path / 'run'}", *flags]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit):
        cli.run(lambda *_: pytest.fail("must not start"), "", {"workdir": ""}, distributed=True)
    assert message in capsys.readouterr().err


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    ("tasks", "devices"), [("1(x2)", None), ("8(x2)", [0]), ("16", [0])], ids=str
)
def test_slurm_says_where_it_is_and_a_lone_task_has_all_gpus(monkeypatch, tasks, devices):
    for name, value in (SLURM | {"SLURM_STEP_TASKS_PER_NODE": tasks}).items():
        monkeypatch.setenv(name, value)
    place = processes._detect(1.0)
    host, port = place.coordinator.split(":")
    assert (host, place.num_processes, place.process_id) == ("node3", 2, 1)
    assert place.local_device_ids == devices
    assert 1024 < int(port) < 65536


def test_a_single_task_is_alone(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    assert processes._detect(1.0).num_processes == 1

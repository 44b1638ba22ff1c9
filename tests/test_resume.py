"""Nothing is lost: killed at any moment and run again, a run ends bit-equal to one left alone."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import flags
import jax
import numpy as np
import pytest

from jft.checkpoints import model_record, model_ref, orbax_steps, safetensors_io, tokenizer
from jft.errors import UserError
from jft.model import flops
from jft.model import mesh as mesh_lib
from jft.runtime import workdir
from jft.training import loop, run_data
from jft.training import step as step_lib
from jft.training.stop import Stop

REPO = Path(__file__).parent.parent
STEPS = 28


@pytest.fixture
def command(suite_root, tmp_path):
    """The arguments of a run that saves every third step and probes every fourth."""

    def arguments(workdir, *more):
        return [
            *(sys.executable, "-m", "jft.train", "--config=configs/finetune.py"),
            *(f"--workdir={workdir}", "--config.model.path=random:llama-tiny"),
            *(f"--config.data.root={suite_root}", "--config.data.train=shops_train_20"),
            *("--config.data.shots=2", "--config.data.demo_mode=per_row"),
            *(f"--config.train.steps={STEPS}", "--config.train.batch_size=4"),
            *("--config.optim.lr=1e-3", "--config.checkpoint.every=3"),
            *("--config.probe.every=4", "--config.probe.limit=2", *more),
        ]

    return arguments


def environment(tmp_path):
    # One device, and a compilation cache of these tests' own: a kill may leave half an entry.
    cache = str(tmp_path.parent / "cache")
    return {**os.environ, "XLA_FLAGS": flags.QUICKLY, "XDG_CACHE_HOME": cache}


def run(arguments, tmp_path, expect=0):
    done = subprocess.run(
        arguments, cwd=REPO, env=environment(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_a_second_process_compiles_nothing(command, suite_root, tmp_path):
    """Neither a training nor an evaluation, whose models have other weights; not even small ones.

    The base's answers to the probe are read, too.
    """
    variables = environment(tmp_path) | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    del variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]  # of these tests
    variables["JAX_DEBUG_LOG_MODULES"] = "jax._src.compiler"  # which logs each compilation

    def program(arguments):
        done = subprocess.run(arguments, cwd=REPO, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, re.findall(r"PERSISTENT COMPILATION CACHE MISS for '\S+'", done.stderr)

    def work(name):
        folder = tmp_path / name
        trained = program([*command(folder / "run"), "--config.train.steps=4"])
        scored = program(
            [
                *(sys.executable, "-m", "jft.eval", "--config=configs/evaluate.py"),
                *(f"--workdir={folder / 'scores'}", f"--config.model.path={folder / 'run'}"),
                *(f"--config.data.root={suite_root}", "--config.eval.datasets=('shops',)"),
                "--config.eval.limit=4",
            ]
        )
        metrics = (folder / "run" / "probes.jsonl").read_text()
        return trained[0], trained[1] + scored[1], metrics

    (first, compiled, probes), (second, again, same) = work("first"), work("second")
    assert len(compiled) > 20
    assert again == []
    assert "Probe before the first step" in first
    assert "Probe before the first step" not in second
    assert same == probes


def interrupt(arguments, tmp_path, when, number):
    """Start a run, signal it when `when()` is first true; its exit code and what it printed."""
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            arguments, cwd=REPO, env=environment(tmp_path), stdout=log, stderr=subprocess.STDOUT
        )
        while process.poll() is None and not when():
            time.sleep(0.002)
        process.send_signal(number)
        code = process.wait()
        log.seek(0)
        return code, log.read()


def losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


def params(workdir):
    mesh = mesh_lib.make_mesh(mesh_lib.config_lib.Mesh())
    return jax.tree.leaves(model_ref.resolve(str(workdir)).load(mesh)[1])


def assert_equal_runs(one, other):
    assert losses(one) == losses(other)
    assert [step for step, _ in losses(one)] == list(range(1, STEPS + 1))
    for name in ("probes.jsonl", "drift.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    lines = (one / "probes.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [step for step in range(0, STEPS + 1, 4) for _ in range(3)]
    for a, b in zip(params(one), params(other), strict=True):
        np.testing.assert_array_equal(a, b)


def reached(workdir, step):
    """Whether the run has logged a step."""

    def when():
        file = workdir / "metrics.jsonl"
        return file.exists() and file.read_bytes().count(b"\n") >= step

    return when


def saving(workdir, after):
    """Whether the run is in the middle of a save, past a step."""

    def when():
        return reached(workdir, after)() and any((workdir / "checkpoints").glob("*-tmp*"))

    return when


def test_stopped_and_killed_at_five_moments_it_ends_as_if_left_alone(command, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(command(whole), tmp_path)
    first = command(killed, "--config.checkpoint.every=0")
    code, text = interrupt(first, tmp_path, reached(killed, 2), signal.SIGTERM)
    assert code == 0, text
    assert re.search(r"saved \d+\.\d s after SIGTERM; run the same command again to go on", text)
    done = losses(killed)
    assert 2 <= len(done) < STEPS

    rng = random.Random(time.time_ns())  # other moments each time: that is the point
    moments = sorted(rng.sample(range(len(done) + 1, STEPS - 4), 5))
    print("stopped after", len(done), "killed at", moments)
    hits = 0
    for i, moment in enumerate(moments):
        when = saving(killed, moment) if i % 2 else reached(killed, moment)
        code, text = interrupt(command(killed), tmp_path, when, signal.SIGKILL)
        hits += code == -signal.SIGKILL
        assert i or f"Going on from step {len(done)}" in text
    assert hits >= 3  # the others had finished before the signal came
    run(command(killed), tmp_path)
    assert losses(killed)[: len(done)] == done
    assert_equal_runs(whole, killed)
    assert "holds all" in run(command(killed), tmp_path).stdout


def test_what_a_killed_save_has_left_goes(config, tmp_path):
    loop.train(config, str(tmp_path / "run"))
    left = tmp_path / "run" / "checkpoints" / "3.orbax-checkpoint-tmp-9"
    (left / "model").mkdir(parents=True)
    loop.train(config, str(tmp_path / "run"))
    assert not left.exists()


def test_a_finished_run_deletes_what_a_kill_left_of_the_steps_before(config, tmp_path):
    config.checkpoint.every = 1
    loop.train(config, str(tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(folder / "2", folder / "1")  # as if killed between a save and its clean-up
    loop.train(config, str(tmp_path / "run"))
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def test_a_full_disk_and_a_flipped_byte_are_loud_and_the_step_before_stays(command, tmp_path):
    workdir = tmp_path / "run"
    interrupt(command(workdir), tmp_path, reached(workdir, 10), signal.SIGTERM)
    before, last = sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    # The largest file a process may write stands for the disk: arrays no longer fit, logs do.
    limited = ["bash", "-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "_", *command(workdir)]
    error = run(limited, tmp_path, expect=2).stderr
    assert re.fullmatch(rf"error: .*saving failed: .*; step {last} is whole; .*\n", error)
    newest = workdir / "checkpoints" / str(last)
    assert (newest / "manifest").is_dir()

    (array,) = newest.glob("optimizer/*mu*query*")
    flip_a_byte(max(array.rglob("*"), key=lambda path: path.stat().st_size))
    error = run(command(workdir), tmp_path, expect=2).stderr
    assert "mu.layers.attention.query.kernel" in error
    assert f"to go on from step {before}, remove" in error
    newest.rename(tmp_path / "removed")
    assert f"Going on from step {before}" in run(command(workdir), tmp_path).stdout
    assert len(losses(workdir)) == STEPS


def test_other_data_is_refused_and_a_folder_that_is_no_step_is_named(config, suite_root, tmp_path):
    workdir = tmp_path / "run"
    config.data.train, config.train.steps, config.checkpoint.every = "shops_train_20", 3, 1
    loop.train(config, str(workdir))
    newest = workdir / "checkpoints" / "3"
    newest.rename(tmp_path / "removed")
    file = suite_root / "sentiment/shops_train_20.json"
    before = file.read_text()
    file.write_text(before.replace("negative", "positive"))
    with pytest.raises(UserError, match="was begun with other data"):
        loop.train(config, str(workdir))
    file.write_text(before)
    newest.mkdir()
    with pytest.raises(UserError, match=r"3 is damaged: manifest .*to go on from step 2"):
        loop.train(config, str(workdir))
    newest.rmdir()
    loop.train(config, str(workdir))
    assert [step for step, _ in losses(workdir)] == [1, 2, 3]
    file.write_text(before.replace("negative", "positive"))
    with pytest.raises(UserError, match="was begun with other data"):
        loop.train(config, str(workdir))


def base_folder(folder):
    pretrained = safetensors_io.load("random:llama-tiny")
    safetensors_io.save(pretrained.description, pretrained.params, str(folder))
    tokenizer.load("random:llama-tiny").save(str(folder))
    return folder


@pytest.mark.parametrize("lost", ["model.safetensors", ""])
def test_a_run_of_all_weights_goes_on_without_its_base(config, tmp_path, capsys, lost):
    base = base_folder(tmp_path / "base")
    config.model.path, config.checkpoint.every = str(base), 1
    config.probe.every, config.probe.limit = 1, 2
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    loop.train(config, str(whole))
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "3")
    (base / lost).rename(tmp_path / "lost")
    loop.train(config, str(cut))
    out = capsys.readouterr()
    assert ("is not there any more" in out.out + out.err) == (not lost)
    assert losses(cut) == losses(whole)
    assert (cut / "probes.jsonl").read_text() == (whole / "probes.jsonl").read_text()
    loop.train(config, str(cut))
    assert "Finished: " in capsys.readouterr().out


def test_adapters_say_that_files_of_their_base_are_gone(config, tmp_path):
    base = base_folder(tmp_path / "base")
    config.model.path, config.lora.rank = str(base), 2
    loop.train(config, str(tmp_path / "run"))
    (base / "model.safetensors").unlink()
    ref = model_ref.resolve(str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"base is missing: .*holds neither model.safetensors"):
        ref.check(mesh_lib.make_mesh(config.mesh))


def test_a_run_from_before_answers_were_tokenized_apart_was_joined(config, tmp_path):
    folder = tmp_path / "run"
    loop.train(config, str(folder))
    file = folder / workdir.CONFIG
    content = json.loads(file.read_text())
    del content["data"]["answer_tokens"]
    file.write_text(json.dumps(content))
    assert workdir.read_config(file).data.answer_tokens == "joined"
    with pytest.raises(UserError, match=r"tokens: 'joined' -> 'auto'\); set these keys back"):
        loop.train(config, str(folder))
    assert json.loads(file.read_text()) == content
    config.data.answer_tokens = "joined"
    loop.train(config, str(folder))


@pytest.mark.parametrize(
    "damage",
    [
        {"steps": float("inf")},
        {"steps": None},
        {"description": {"num_hidden_layers": None}},
        {"description": {"rms_norm_eps": "x"}},
        {"description": {"rope_scaling": [None]}},
        {"base_sha256": None, "description": 5},
    ],
    ids=str,
)
def test_a_damaged_description_of_a_model_is_named(tmp_path, damage):
    saved = model_record.ModelRecord(
        safetensors_io.describe("random:llama-tiny"), 3, "base", "hash", 0
    )
    model_record.write_record(tmp_path, saved)
    assert model_record.read_record(tmp_path) == saved
    record = json.loads((tmp_path / "model.json").read_text())
    shape = damage.get("description", {})
    shape = record["description"] | shape if isinstance(shape, dict) else shape
    (tmp_path / "model.json").write_text(json.dumps(record | damage | {"description": shape}))
    with pytest.raises(UserError, match=r"model.json: .*; restore it"):
        model_record.read_record(tmp_path)


@pytest.mark.parametrize("older", [False, True])
def test_a_run_knows_its_data_whatever_was_deleted(config, suite_root, tmp_path, older):
    folder, file = tmp_path / "run", suite_root / "sentiment/shops_train_20.json"
    loop.train(config, str(folder))
    (folder / "data_report.json").unlink()
    if older:  # from before model.json held the hash
        record = json.loads((folder / "model.json").read_text())
        record.pop("data_sha256")
        (folder / "model.json").write_text(json.dumps(record))
    file.write_text(file.read_text().replace("red", "green"))
    with pytest.raises(UserError, match="data_report.json is gone" if older else "other data"):
        run_data.check_same(folder, loop.plan_run(config, tokenizer.load("random:llama-tiny")))


def test_told_to_end_while_it_saves_its_last_step_it_saves_it(config, tmp_path, monkeypatch):
    save = orbax_steps.Checkpoints.save

    def told_and_save(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        save(*args)

    monkeypatch.setattr(orbax_steps.Checkpoints, "save", told_and_save)
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody listened"))
    try:
        loop.train(config, str(tmp_path / "run"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "run" / "checkpoints" / "3" / "manifest").is_dir()


def test_one_that_has_saved_in_time_does_not_give_up(config, tmp_path, monkeypatch):
    config.checkpoint.grace = 0.5
    gave_up = []
    monkeypatch.setattr(Stop, "_give_up", gave_up.append)
    save_last = loop._save_last

    def saved_and_told(*args):
        ended = save_last(*args)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return ended

    def slow(*args):
        time.sleep(1)

    monkeypatch.setattr(loop, "_save_last", saved_and_told)
    monkeypatch.setattr(loop.drift, "write", slow)
    loop.train(config, str(tmp_path / "run"))
    assert gave_up == []


def test_one_that_cannot_save_in_time_gives_up(command, tmp_path):
    workdir = tmp_path / "run"
    late = command(workdir, "--config.checkpoint.grace=0.001")
    code, text = interrupt(late, tmp_path, reached(workdir, 2), signal.SIGTERM)
    assert code == 1
    assert "error: checkpoint.grace=0.001: not saved by so many seconds after SIGTERM" in text


def test_devices_that_hold_copies_share_the_writing_of_large_arrays_alone(tmp_path):
    everywhere = jax.sharding.NamedSharding(
        jax.sharding.Mesh(jax.devices(), "x"), jax.sharding.PartitionSpec()
    )
    small = np.arange(64, dtype=np.float32)
    large = np.arange(len(jax.devices()) * orbax_steps.SLICE_BYTES // 4, dtype=np.float32)
    arrays = {"params": {"small": small, "large": large}, "step": np.int32(1)}
    state = jax.device_put(arrays, everywhere)
    store = orbax_steps.Checkpoints(tmp_path)
    store.save(1, state)
    store.wait()
    files = {
        name: len(list((tmp_path / "checkpoints/1/model").glob(f"params.{name}/[0-9]*")))
        for name in state["params"]
    }
    assert files == {"small": 1, "large": len(jax.devices())}
    jax.tree.map(np.testing.assert_array_equal, store.restore(state), state)
    store.close()


def test_restoring_into_another_shape_is_refused(tmp_path):
    store = orbax_steps.Checkpoints(tmp_path)
    store.save(1, {"params": {"w": jax.numpy.zeros((2, 3))}, "step": jax.numpy.int32(1)})
    store.wait()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {"params": {"w": jax.ShapeDtypeStruct((3, 2), np.float32, sharding=sharding)}}
    with pytest.raises(UserError, match=r"params.w is float32\[2, 3\].*float32\[3, 2\]"):
        store.restore(like)
    store.close()


def test_every_shape_is_compiled_before_the_first_step(config, suite_root, tmp_path, monkeypatch):
    """Under the bar it would take the time of a step, and a second display on a terminal."""
    file = suite_root / "sentiment/shops_train_20.json"
    rows = json.loads(file.read_text())
    rows[5]["input"] = "very " * 50 + "long"
    file.write_text(json.dumps(rows))
    monkeypatch.setitem(flops.COMPILE_FLOPS, "cpu", 1)
    config.data.shuffle = False
    events = []

    def record(name):
        method = getattr(step_lib.CompiledStep, name)

        def recorded(*args):
            events.append(name)
            return method(*args)

        monkeypatch.setattr(step_lib.CompiledStep, name, recorded)

    record("compile")
    record("__call__")
    loop.train(config, str(tmp_path / "run"))
    assert events == ["compile"] * 2 + ["__call__"] * 3


def test_two_programs_on_one_workdir(command, config, tmp_path):
    folder = tmp_path / "run"
    with workdir.claim(str(folder), config, "jft.train"):
        done = run(command(folder), tmp_path, expect=2)
        assert "another program is writing there" in done.stderr
        assert sorted(file.name for file in folder.iterdir()) == [".lock", "config.json"]
    with (
        workdir.claim(str(folder), config, "jft.train"),
        pytest.raises(UserError, match="another program is writing there"),
        workdir.claim(str(folder), config, "jft.train"),
    ):
        pass

"""Validation: rows held out, the loss on them, the end of a run by it, and generations."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import plain_row
import pytest

from jft import config as config_lib
from jft.checkpoints import model_ref, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import train_batches, validation
from jft.data.rows import datasets
from jft.errors import UserError
from jft.evaluation import loop as evaluation
from jft.model import mesh as mesh_lib
from jft.reporting import render
from jft.reporting.content import gather
from jft.runtime import records
from jft.training import loop as training


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.load("random:llama-tiny")


def held(config, tokenizer):
    """The inputs of the rows that are held out, and of those that are trained on."""
    plan = train_batches.plan_run(config, tokenizer)
    (valid,) = plan.valid
    examples = valid.of.dataset.examples
    trained = {examples[i]["input"] for _, i in plan.examples}
    return {examples[i]["input"] for i in valid.indices}, trained


def test_what_is_held_out_never_moves(config, suite_root, tokenizer):
    config.data.valid, config.train.steps, config.train.epochs = ("0.3",), 0, 3
    out, trained = held(config, tokenizer)
    assert out
    assert not out & trained
    assert len(out | trained) == 20
    file = suite_root / "sentiment" / "shops_train_20.json"
    rows = json.loads(file.read_text())
    more = [{"input": f"another {i}", "output": "positive"} for i in range(40)]
    file.write_text(json.dumps([*more, *reversed(rows[3:])]))
    again, _ = held(config, tokenizer)
    kept = {row["input"] for row in rows[3:]}
    assert again & kept == out & kept
    assert 5 < len(again - kept) < 20  # about a third of the new ones
    config.data.valid = ("0.6",)
    wider, _ = held(config, tokenizer)
    assert wider > again


def test_rows_that_are_the_same_are_on_one_side(config, suite_root, tokenizer):
    file = suite_root / "sentiment" / "shops_train_20.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps(rows + [row | {"input": row["input"].upper()} for row in rows]))
    config.data.valid = ("0.3",)
    out, trained = held(config, tokenizer)
    assert not {each.lower() for each in out} & {each.lower() for each in trained}


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (("1.5",), r"data\.valid=1\.5: a share is between 0 and 1; or name a set"),
        (("0.001",), r"data\.valid=0\.001: holds out 0 of 20 rows of .*; choose another share"),
        (("nothing",), r"data\.valid=nothing: no such test set"),
    ],
)
def test_what_is_no_share_and_no_set_is_refused(config, tokenizer, valid, message):
    config.data.valid = valid
    with pytest.raises(UserError, match=message):
        train_batches.plan_run(config, tokenizer)


def probes(folder):
    return [r for r in records.read_lines(folder, records.PROBES) if r["relation"] == "validation"]


@pytest.mark.parametrize("shots", [0, 2])
def test_the_loss_is_that_of_training_on_these_rows(config, tmp_path, tokenizer, shots):
    config.data.valid, config.data.shots, config.data.demo_loss = ("0.3",), shots, bool(shots)
    training.train(config, str(tmp_path / "run"))
    first, last = probes(tmp_path / "run")
    plan = train_batches.plan_run(config, tokenizer)
    (valid,) = plan.valid
    mesh = mesh_lib.make_mesh(config.mesh, None)
    tuned = model_ref.resolve(str(tmp_path / "run")).load(mesh)
    for record, (model, params) in (
        (first, safetensors_io.load("random:llama-tiny")[:2]),
        (last, tuned),
    ):
        total, tokens = 0.0, 0
        for i in valid.indices:
            request = valid.of.request(i, tuple(valid.of.demos[:shots]))
            ((ids, start),) = valid.of.prompter.encode([request])[0].sequences
            logits = plain_row.logits(model, params, jnp.array(ids[None]))
            logs = np.asarray(jax.nn.log_softmax(logits), float)
            total -= sum(logs[j - 1, ids[j]] for j in range(start, len(ids)))
            tokens += len(ids) - start
        assert record["n"] == len(valid.indices)
        assert record["loss"] == pytest.approx(total / tokens, rel=1e-4)
    assert last["loss"] < first["loss"]
    assert 0 <= last["accuracy"] <= 1


def test_a_set_may_be_named(config, tmp_path):
    config.data.valid = ("films",)
    training.train(config, str(tmp_path / "run"))
    assert [(r["step"], r["dataset"], r["n"]) for r in probes(tmp_path / "run")] == [
        (0, "films", 20),
        (3, "films", 20),
    ]


@pytest.fixture
def rising(config):
    """A run whose loss rises from some step on: its learning rate is far too large."""
    config.data.valid, config.train.steps, config.probe.every = ("0.4",), 30, 2
    config.optim.lr, config.train.stop_after = 0.3, 2
    config.optim.schedule = "constant"
    return config


def test_a_run_ends_when_its_loss_rises_and_is_finished_then(rising, tmp_path, capsys):
    folder = tmp_path / "run"
    rising.checkpoint.every, rising.checkpoint.keep_best = 2, 1
    training.train(rising, str(folder))
    losses = {r["step"]: r["loss"] for r in probes(folder)}
    last, best = max(losses), min(losses, key=losses.get)
    assert last < 30
    assert sum(step > best for step in losses) == 2
    said = capsys.readouterr().out
    assert f"Ending at step {last} (train.stop_after): the lowest loss was" in said
    ref = model_ref.resolve(str(folder))
    assert (ref.step, ref.finished) == (last, True)
    if best:
        assert (folder / "checkpoints" / str(best)).exists()
    before = (folder / "metrics.jsonl").read_text()
    training.train(rising, str(folder))
    assert f"Finished: {folder} holds all {last} steps" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == before


def test_a_run_that_is_to_end_by_nothing_is_refused(config, tmp_path):
    config.train.stop_after = 2
    with pytest.raises(UserError, match=r"train\.stop_after=2 goes by probes: give data\.valid"):
        config_lib.validate(config)
    config.probe.every = 1
    with pytest.raises(UserError, match=r"there are no rows to go by; set data\.valid"):
        training.train(config, str(tmp_path / "run"))


@pytest.fixture
def texts(notes_config, suite_root):
    config = notes_config
    rows = [{"input": f"word {i}", "output": f"w{i}"} for i in range(12)]
    (suite_root / "summary" / "notes_train_12.json").write_text(json.dumps(rows))
    config.data.task, config.data.train, config.data.valid = "summary", "notes_train_12", ("0.4",)
    config.train.steps, config.probe.every, config.probe.generations = 4, 2, 2
    config.eval.max_new_tokens = 6
    return config


@pytest.mark.parametrize("rank", [0, 2])
def test_generations_of_a_few_rows_are_those_of_an_evaluation(texts, tmp_path, rank):
    texts.lora.rank = rank
    training.train(texts, str(tmp_path / "run"))
    found = records.read_lines(tmp_path / "run", records.GENERATIONS)
    assert [record["step"] for record in found] == [0, 0, 2, 2, 4, 4]
    assert len({record["index"] for record in found}) == 2
    source = datasets.suite(texts.data)
    examples = source.training_sets()[0].examples
    rows = [examples[record["index"]] for record in found[-2:]]
    assert [record["output"] for record in found[-2:]] == [row["output"] for row in rows]
    (tmp_path / "few_test.json").write_text(json.dumps(rows))
    texts.model.path, texts.eval.shots, texts.eval.prompts = str(tmp_path / "run"), (0,), (0,)
    texts.eval.datasets = (f"summary:{tmp_path / 'few_test.json'}",)
    evaluation.evaluate(texts, str(tmp_path / "eval"))
    scored = records.read_lines(tmp_path / "eval", records.ROWS)
    for name in ("generation", "rougeL"):
        assert [record[name] for record in found[-2:]] == [row[name] for row in scored]


def test_generations_of_steps_that_are_trained_again_are_dropped(texts, tmp_path):
    texts.checkpoint.every = 2
    training.train(texts, str(tmp_path / "run"))
    whole = records.read_lines(tmp_path / "run", records.GENERATIONS)
    records.append(tmp_path / "run", records.GENERATIONS, [whole[-1] | {"step": 99}])
    again = train_again(texts, tmp_path / "run", 2)
    assert again == whole


def train_again(config, folder, step):
    """Go on from an earlier step, as after a kill."""
    import shutil

    for path in (folder / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path)
    training.train(config, str(folder))
    return records.read_lines(folder, records.GENERATIONS)


def test_places_of_rows_do_not_depend_on_python(config):
    """Of another process, or another day: a hash of the text alone."""
    task = datasets.suite(config.data).task
    place = validation._place(task, {"input": "A fine  day"})
    assert place == validation._place(task, {"input": "a fine day", "output": "x"})
    known = hashlib.sha256(b'["valid", "a fine day"]').hexdigest()[:14]
    assert place == int(known, 16) / 16**14


def test_the_report_shows_what_was_said(texts, tmp_path):
    training.train(texts, str(tmp_path / "run"))
    texts.eval.shots, texts.eval.prompts, texts.eval.datasets = (0,), (0,), ("notes",)
    base = texts.model.path
    for name, path in (("base", base), ("tuned", str(tmp_path / "run"))):
        texts.model.path = path
        evaluation.evaluate(texts, str(tmp_path / f"eval-{name}"))
    content = gather([str(tmp_path / "eval-base"), str(tmp_path / "eval-tuned")])
    ((name, rows),) = content.said.items()
    assert name == "FT notes_train_12"
    assert [[step for step, _, _ in row.texts] for row in rows] == [[0, 2, 4]] * 2
    page, text = render.page_of(content), render.markdown_of(content)
    assert "What was said during training" in page
    for row in rows:
        assert row.place in page
        assert row.reference in text


def test_rows_that_are_trained_on_are_no_validation(config, suite_root, tokenizer, tmp_path):
    folder = suite_root / "sentiment"
    rows = json.loads((folder / "shops_train_20.json").read_text())
    more = [{"input": f"new {i}", "output": "positive"} for i in range(4)]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:9] + more))
    config.data.valid = (f"sentiment:{tmp_path / 'dev.jsonl'}",)
    training.train(config, str(tmp_path / "run"))
    assert {record["n"] for record in probes(tmp_path / "run")} == {4}
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[:9]))
    with pytest.raises(UserError, match=r"data\.valid: of 9 rows of .* 9 are trained on"):
        training.train(config, str(tmp_path / "other"))


def test_sets_of_one_name_are_all_judged(config, suite_root, tmp_path):
    folder = suite_root / "sentiment"
    text = (folder / "shops_train_20.json").read_text()
    rows = [row | {"input": f"other {row['input']}"} for row in json.loads(text)]
    (folder / "shops_train_21.json").write_text(json.dumps(rows))
    config.data.train, config.data.valid = ("shops_train_20", "shops_train_21"), ("0.3",)
    training.train(config, str(tmp_path / "run"))
    assert len([r for r in probes(tmp_path / "run") if r["step"] == 0]) == 2


def test_steps_are_counted_without_what_is_held_out(config, tmp_path):
    config.data.valid, config.train.steps, config.train.epochs = ("0.3",), 0, 1
    training.train(config, str(tmp_path / "run"), dry_run=True)
    report = records.read(tmp_path / "run", records.DATA_REPORT)
    assert 0 < report["held_out"] < 20
    assert report["rows_trained_on"] + report["held_out"] > 16
    left = [f for f in report["findings"] if f["check"] == "steps_left_out"]
    assert all(f["of"] == 20 - report["held_out"] for f in left)


def test_a_workdir_of_a_run_that_came_to_nothing_may_begin_anew(config, tmp_path, monkeypatch):
    """It died before its first step: what it had planned counts no more."""

    def fail(*_):
        raise UserError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(training, "_compile", fail)
        with pytest.raises(UserError, match="no memory"):
            training.train(config, str(tmp_path / "run"))
    config.train.steps = 5
    training.train(config, str(tmp_path / "run"))
    assert model_ref.resolve(str(tmp_path / "run")).step == 5


def test_a_long_row_among_those_that_are_to_be_continued_is_left_out(texts, suite_root, tmp_path):
    texts.data.max_length = 64
    texts.data.valid = ("notes",)
    file = suite_root / "summary" / "notes_test_7.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"input": "long " * 60} for row in rows[:6]] + rows[6:]))
    training.train(texts, str(tmp_path / "run"))
    found = records.read_lines(tmp_path / "run", records.GENERATIONS)
    assert {record["index"] for record in found} <= set(range(6, 12))

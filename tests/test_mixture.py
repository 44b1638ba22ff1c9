"""Mixtures of training sets: what each step holds, on any number of devices, and resumed."""

import json
import os
import subprocess
import sys
from collections import Counter

import flags
import numpy as np
import pytest

from jft import config as config_lib
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import mixture, train_batches
from jft.errors import UserError
from jft.evaluation import loop as evaluation
from jft.runtime import records
from jft.training import loop as training


@pytest.mark.parametrize(
    ("of_all", "size", "steps", "wanted"),
    [
        ([0.5, 0.25, 0.25], 16, 3, [[8, 4, 4]] * 3),
        ([0.5, 0.5], 3, 4, [[2, 1], [1, 2], [2, 1], [1, 2]]),
        ([0.9, 0.1], 5, 4, None),
        ([1 / 3] * 3, 16, 9, None),
        ([0.7, 0.2, 0.1], 1, 10, None),
    ],
)
def test_every_stretch_of_a_run_has_the_shares_that_are_asked_for(of_all, size, steps, wanted):
    order = mixture.order([7, 5, 3][: len(of_all)], of_all, steps, size, 0, True)
    counts = [
        [sum(n == number for n, _ in step) for number in range(len(of_all))] for step in order
    ]
    assert all(len(step) == size for step in order)
    assert wanted is None or counts == wanted
    taken = np.cumsum(counts, axis=0)
    asked = np.outer(np.arange(1, steps + 1) * size, of_all)
    assert np.abs(taken - asked).max() < 1


def test_each_set_is_gone_through_epoch_after_epoch():
    order = mixture.order([4, 6], [0.4, 0.6], 5, 4, 3, True)
    for number, size in ((0, 4), (1, 6)):
        places = [place for step in order for of, place in step if of == number]
        assert sorted(places[:size]) == list(range(size))
        second = places[size : 2 * size]
        assert len(set(second)) == len(second)
    assert order != mixture.order([4, 6], [0.4, 0.6], 5, 4, 4, True)
    plain = mixture.order([4, 6], [0.4, 0.6], 1, 10, 3, False)
    assert plain == [[*((0, i) for i in range(4)), *((1, i) for i in range(6))]]


def test_without_weights_an_epoch_has_every_example_once():
    sizes = [13, 5, 22]
    order = mixture.order(sizes, mixture.shares((), sizes), 8, 5, 0, True)
    assert Counter(each for step in order for each in step) == Counter(
        (number, i) for number, size in enumerate(sizes) for i in range(size)
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), r"data\.weights=1: 1 weights for the 2 sets of data\.train; give one for each"),
        ((1.0, 0.0), "every weight must be above 0; leave out a set without one"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        mixture.shares(weights, [3, 4])


@pytest.fixture
def mixed(config, tmp_path):
    """Labels, text and completions together, two to one to one."""
    rows = [{"prompt": f"{i} and {i} is", "completion": f" {2 * i}"} for i in range(10)]
    (tmp_path / "sums_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.train = (
        "shops_train_20",
        "detection/pairs_train_20",
        str(tmp_path / "sums_train.jsonl"),
    )
    config.data.weights = (2, 1, 1)
    config.train.batch_size, config.train.steps = 8, 4
    return config


def test_every_set_has_its_own_task_and_template(mixed):
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    plan = train_batches.plan_run(mixed, tokenizer)
    for step in plan.packed:
        items = {i for row in step.rows for i, _ in row}
        assert Counter(plan.examples[i][0] for i in items) == {0: 4, 1: 2, 2: 2}
    texts = {
        number: [
            tokenizer.decode(each.sequences[0].tokens)
            for each, (of, _) in zip(plan.encoded, plan.examples, strict=True)
            if of == number
        ]
        for number in range(3)
    }
    assert all(text.startswith("Text: ") for text in texts[0])
    assert all(text.endswith(("Same:yes", "Same:no")) for text in texts[1])
    assert all(" is " in text for text in texts[2])


def losses(folder):
    return [record["loss"] for record in records.read_lines(folder, records.METRICS)]


def test_the_number_of_devices_changes_nothing(mixed, tmp_path):
    """Demonstrations are learned, too, each once, wherever it is."""
    mixed.data.train, mixed.data.weights = mixed.data.train[:2], (2, 1)
    mixed.data.shots, mixed.data.demo_mode, mixed.data.demo_loss = 2, "per_row", True
    found = []
    for devices in (1, 2, 8):
        folder, file = tmp_path / str(devices), tmp_path / "config.json"
        file.write_text(json.dumps(config_lib.to_dict(mixed)))
        subprocess.run(
            [sys.executable, "-m", "jft.train", f"--config={file}", f"--workdir={folder}"],
            env=os.environ | {"XLA_FLAGS": flags.devices(devices), "JAX_PLATFORMS": "cpu"},
            check=True,
        )
        found.append(losses(folder))
    assert len(found[0]) == 4
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-5)


def test_a_resumed_run_goes_on_exactly(mixed, tmp_path, monkeypatch):
    mixed.checkpoint.every = 2
    training.train(mixed, str(tmp_path / "whole"))

    class Stopped:
        """A stop that is asked for after two steps."""

        def __init__(self, *_):
            self.left = 3

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def agreed(self):
            self.left -= 1
            return self.left == 0

        def since(self):
            return ""

    with monkeypatch.context() as patched:
        patched.setattr(training, "Stop", Stopped)
        training.train(mixed, str(tmp_path / "parts"))
    assert len(losses(tmp_path / "parts")) == 2
    training.train(mixed, str(tmp_path / "parts"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_the_report_says_what_each_set_had(mixed, tmp_path):
    training.train(mixed, str(tmp_path / "run"))
    report = records.read(tmp_path / "run", records.DATA_REPORT)
    assert [(s["dataset"], s["share"], s["examples"]) for s in report["sets"]] == [
        ("shops", 0.5, 16),
        ("pairs", 0.25, 8),
        ("sums", 0.25, 8),
    ]
    assert report["dataset"] == "shops + pairs + sums"
    steps = records.read_lines(tmp_path / "run", records.METRICS)
    assert [record["sets"] for record in steps] == [[4, 2, 2]] * 4
    page = (tmp_path / "run" / "data_report.html").read_text()
    for name in ("shops", "pairs", "sums"):
        assert f" of {name}" in page
    mixed.model.path = str(tmp_path / "run")
    mixed.eval.datasets = ("shops", "films", "pairs")
    evaluation.evaluate(mixed, str(tmp_path / "eval"))
    cells = records.read_lines(tmp_path / "eval", records.CELLS)
    assert {cell["dataset"]: cell["relation"] for cell in cells} == {
        "shops": "in-domain",
        "films": "out-of-domain",
        "pairs": "in-domain",
    }
    model = records.read_scored_model(tmp_path / "eval")
    assert model["model"] == "FT shops_train_20 + pairs_train_20 + sums_train"
    assert model["train_task"] == "sentiment + detection + completion"

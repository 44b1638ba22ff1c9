"""Lengths, starts and ends of answers, and texts that a tokenizer reads otherwise than meant."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import eval_batches, eval_cells, token_checks, train_batches
from jft.data.eval_grid import all_cells
from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompter import encode_labels, text_prompter
from jft.data.prompting.prompts import Encoded, Request
from jft.data.rows import datasets
from jft.data.rows.datasets import Dataset
from jft.data.training_report import training_report
from jft.errors import UserError
from jft.tasks import TASKS, Task

EXAMPLE = {"input": "a b", "output": "positive"}


@pytest.fixture(scope="module")
def tiny():
    return tokenizer_lib.load("random:llama-tiny")


def encode(tokenizer, labels, template, eos=False, max_length=1000):
    task = Task("mood", ("input",), ("input",), tuple(labels))
    prompter = text_prompter(tokenizer, task, template, max_length, eos)
    return prompter.encode([Request(EXAMPLE, (), tuple(labels), "row 0")])[0]


def answers(tokenizer, encoded):
    return ["".join(tokenizer.pieces(s.tokens[s.start :])) for s in encoded.sequences]


@pytest.mark.parametrize("labels", [("positive", "0"), ("0", "1", "no"), ("7", "8")])
def test_all_labels_are_scored_from_the_earliest_start(merging, labels):
    apart = encode(merging, labels, "{input} is ")
    within = encode(merging, [f" {label}" for label in labels], "{input} is")
    starts = {sequence.start for sequence in apart.sequences}
    assert len(starts) == 1
    if any(label.isalpha() for label in labels):  # one of them merges with the space
        assert answers(merging, apart) == [f" {label}" for label in labels]
        pairs = zip(apart.sequences, within.sequences, strict=True)
        assert all(a.start == b.start and np.array_equal(a.tokens, b.tokens) for a, b in pairs)
    else:
        assert answers(merging, apart) == list(labels)


@pytest.mark.parametrize(
    ("labels", "nest"),
    [
        (("support", "support strongly", "oppose"), True),
        (("A", "AB"), True),
        (("positive", "negative"), False),
        (("not positive", "positive"), False),
        ((), False),
    ],
)
def test_labels_of_which_one_begins_another_are_scored_to_their_end(
    config, suite_root, tiny, labels, nest
):
    if not labels:
        return
    rows = [{"input": f"text {i}", "output": labels[i % len(labels)]} for i in range(8)]
    file = suite_root / "mood_test.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.task, config.data.template = "mood", "{input}\nMood:"
    config.data.labels, config.eval.datasets = labels, (str(file),)
    (cell,) = all_cells(config)
    packed = eval_batches.pack_cell(cell, tiny, config)
    for encoded in packed.encoded:
        texts = [tiny.pieces(s.tokens[s.start :]) for s in encoded.sequences]
        assert ["".join(each) for each in texts] == [
            label + ("<|eos|>" if nest else "") for label in labels
        ]
        # None begins another, so that each can be the likeliest.
        ids = [tuple(s.tokens) for s in encoded.sequences]
        assert not any(a != b and b[: len(a)] == a for a in ids for b in ids)


def cut(tokenizer, task, template, example, max_length):
    prompter = text_prompter(tokenizer, task, template, max_length, eos=False)
    encoded = prompter.encode([Request(example, (), ("",), "row 0")])[0]
    return encoded, tokenizer.decode(encoded.sequences[0].tokens) if encoded.fits else None


@pytest.mark.parametrize(
    "text",
    [
        "第0号 " + "这家工厂今年新建了一座厂房主要生产水壶和台灯" * 9,
        "โรงงาน " + "กาต้มน้ำเปิดห้องโถงใหม่" * 9,
        "see " + "https://example.org/" + "a" * 300,
    ],
)
def test_a_text_with_few_spaces_is_cut_near_the_limit(tiny, text):
    encoded, shown = cut(tiny, TASKS["summary"], "{input}", {"input": text}, 150)
    assert text.startswith(shown)
    assert 150 - len("第".encode()) - 6 < encoded.length <= 150


def test_words_are_kept_whole_where_there_are_any(tiny):
    words = "one two three four five six seven " * 9
    encoded, shown = cut(tiny, TASKS["summary"], "{input}", {"input": words}, 150)
    assert words.startswith(shown + " ")
    assert encoded.length > 150 - len(" three")


def test_of_two_long_texts_both_are_cut(tiny):
    template = "A: {input_1}\nB: {input_2}"
    example = {"input_1": "one two " * 40, "input_2": "three four " * 60, "output": "yes"}
    encoded, shown = cut(tiny, TASKS["detection"], template, example, 120)
    first, second = shown.removeprefix("A: ").split("\nB: ")
    assert abs(len(first) - len(second)) < 12
    assert 100 < encoded.length <= 120


def long_rows(root, n, long):
    """Write a training set of `n` rows, with `long` answers that fit no sequence of 64 tokens."""
    rows = [{"input": f"text number {i}", "output": "short"} for i in range(n)]
    for row in rows[:long]:
        row["output"] = "far too long " * 9
    (root / "summary").mkdir(exist_ok=True)
    prompts = [{"summary": "{input}\nSo:", "sentiment": "{input}:", "detection": "{input_1}"}]
    (root / "prompt_map.json").write_text(json.dumps(prompts))
    for kind in ("train", "test"):
        (root / f"summary/town_{kind}_{n}.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("mode", ["fixed", "per_example", "per_row"])
def test_rows_that_never_fit_are_skipped_and_counted(config, suite_root, tiny, mode):
    long_rows(suite_root, 30, 3)
    demos = [{"input": f"d {i}", "output": "e"} for i in range(4)]
    (suite_root / "summary/few_shot").mkdir()
    (suite_root / "summary/few_shot/town_few_shot.json").write_text(json.dumps(demos))
    config.data.task, config.data.train, config.data.max_length = "summary", "town_train_30", 64
    config.data.shots, config.data.demo_mode, config.train.steps = 2, mode, 14
    plan = train_batches.plan_run(config, tiny)
    assert plan.unfit == [(0, 0), (0, 1), (0, 2)]
    trained = {plan.examples[i] for step in plan.packed for row in step.rows for i, _ in row}
    assert trained == {(0, i) for i in range(3, 30)}
    report = training_report(plan, datasets.suite(config.data), config, tiny)
    assert report["too_long"] == 3
    (found,) = [f for f in report["findings"] if f["check"] == "too_long"]
    assert found["text"].startswith(
        "3 of 30 examples do not fit data.max_length=64 at 2 shots, even with an empty input"
    )


def test_more_than_a_tenth_that_never_fit_are_refused(config, suite_root, tiny):
    long_rows(suite_root, 30, 4)
    config.data.task, config.data.train, config.data.max_length = "summary", "town_train_30", 64
    config.train.steps = 14
    message = r"town_train_30.json row 0 \(from 0\): \d+ tokens even with an empty input; it and 3 "
    with pytest.raises(UserError, match=message):
        train_batches.plan_run(config, tiny)


def test_items_that_never_fit_are_skipped_in_scoring(config, suite_root, tiny):
    rows = [{"input_1": f"a {i}", "input_2": "b", "output": "yes"} for i in range(20)]
    demos = [{"input_1": "c", "input_2": "d" * 100, "output": "no"}]
    (suite_root / "detection/pairs_test_20.json").write_text(json.dumps(rows))
    (suite_root / "detection/few_shot/pairs_few_shot.json").write_text(json.dumps(demos))
    config.data.task, config.eval.datasets, config.eval.shots = "detection", ("pairs",), (0, 1)
    config.data.max_length = 64
    free, asked = all_cells(config)
    assert eval_cells.encode_cell(free, tiny, config).skipped == 0
    with pytest.raises(UserError, match="it and 19 more of 20 examples do not fit"):
        eval_batches.pack_cell(asked, tiny, config)


def summary(*rows, name="town"):
    examples = [dict(zip(("input", "output"), row, strict=True)) for row in rows]
    return Dataset(name, TASKS["summary"], f"{name}.jsonl", True, examples)


def checks_of(findings):
    return {finding.check: finding.indices for finding in findings}


def test_special_tokens_in_texts_are_found(tiny):
    dataset = summary(
        ("plain", "plain"),
        ("with <|pad|> and <|bos|> in it", "x"),
        ("x", "an end<|eos|>"),
        ("<s>90</s> is no token of this model", "<|im_end|>"),
        ("x", "a <|pad|> and an end<|eos|>"),
    )
    spelled, ends = token_checks.special_tokens(dataset, tiny)
    assert (spelled.check, spelled.indices, spelled.count) == ("special_tokens", [1, 4], 2)
    assert "(<|bos|>, <|pad|>)" in spelled.text
    assert (ends.check, ends.indices) == ("end_in_outputs", [2, 4])
    assert token_checks.special_tokens(summary(("a < b", "| c |> d")), tiny) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{input}\nSummary:", []),
        ("<|bos|>{input}\nSummary:", ["stands there twice"]),
        ("{input}\\nSummary:\\t", [r"holds \n and \t as two characters each"]),
        ("{input} <|pad|>\nSummary:", []),
    ],
)
def test_what_a_template_is_unlikely_to_mean_is_found(tiny, text, found):
    result = token_checks.template(text, "data.template", 2, tiny)
    assert len(result) == len(found)
    assert all(part in each.text for part, each in zip(found, result, strict=True))


def test_outputs_that_no_generation_equals_are_found(tiny):
    dataset = summary(
        ("a", "short"),
        ("b", "Dear shop,\n\nit broke."),
        ("c", "x" * 61),
        ("d", "\n\nends well\n\n"),
    )
    found = token_checks.unreachable_outputs(dataset, tiny, 60, chat=False)
    assert checks_of(found) == {"blank_lines": [1], "long_outputs": [2]}
    assert "raise that" in found[1].text
    assert checks_of(token_checks.trained_blank_lines(dataset)) == {"blank_lines": [1]}
    labelled = dataset._replace(task=replace(dataset.task, labels=("short",)))
    assert token_checks.unreachable_outputs(labelled, tiny, 60, chat=False) == []


@pytest.mark.parametrize(
    ("rows", "epochs", "batch", "left_out"),
    [(31, 1.0, 16, 15), (31, 2.0, 16, 14), (480, 2.0, 16, 0), (33, 1.0, 16, 0), (20, 0.9, 8, 2)],
)
def test_examples_that_the_last_step_leaves_out_are_told(
    config, suite_root, tiny, rows, epochs, batch, left_out
):
    examples = [{"input": f"t {i}", "output": ("positive", "negative")[i % 2]} for i in range(rows)]
    (suite_root / "sentiment/shops_train_20.json").write_text(json.dumps(examples))
    config.train.steps, config.train.epochs, config.train.batch_size = 0, epochs, batch
    plan = train_batches.plan_run(config, tiny)
    report = training_report(plan, datasets.suite(config.data), config, tiny)
    found = [f for f in report["findings"] if f["check"] == "steps_left_out"]
    assert [f["count"] for f in found] == ([left_out] if left_out else [])


def encoded_ids(*ids):
    return [Encoded([TokenSequence(np.array(ids, np.int32), 1)], len(ids))]


def test_tokens_that_the_model_does_not_know_are_told_and_refused(tiny, capsys):
    token_checks.check_tokens(encoded_ids(1, 2), tiny, 259, 99, "m")
    assert capsys.readouterr().out == ""
    token_checks.check_tokens(encoded_ids(1, 2), tiny, 258, 99, "m")
    assert "the tokenizer of m knows 259 tokens, but it has embeddings for 258" in (
        capsys.readouterr().out
    )
    for ids, vocab in (((1, 258), 258), ((1, 2), 257)):  # in a text; the end of sequence
        with pytest.raises(UserError, match=f"but it has embeddings for {vocab} tokens"):
            token_checks.check_tokens(encoded_ids(*ids), tiny, vocab, 99, "m")


def test_a_long_text_alone_in_a_prompt_is_shortened(merging):
    """Without BOS nothing stands before the text, so that it cannot become empty."""
    example = {"input": "one two three " * 30, "output": "x"}
    encoded, shown = cut(merging, TASKS["summary"], "{input}", example, 64)
    assert example["input"].startswith(shown)
    assert 55 < encoded.length <= 64
    with pytest.raises(UserError, match="row 0: nothing stands before the answer"):
        cut(merging, TASKS["summary"], "{input}", example | {"input": ""}, 64)


@pytest.fixture(scope="module")
def lower():
    """A tokenizer that knows lower case letters alone, and takes all else for one token."""
    from tokenizers import Tokenizer, models, normalizers

    vocab = {
        each: i for i, each in enumerate(["<unk>", "</s>", " ", *"abcdefghijklmnopqrstuvwxyz"])
    }
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    return tokenizer_lib.Tokenizer(backend, vocab["</s>"])


@pytest.mark.parametrize("labels", [("Polish", "polish"), ("好", "坏"), ("a好", "a坏", "b")])
def test_labels_that_the_tokenizer_does_not_tell_apart_are_refused(lower, labels):
    prompter = text_prompter(
        lower, Task("mood", ("input",), ("input",), labels), "{input} is ", 99, False
    )
    requests = [Request(EXAMPLE, (), labels, "row 0")]
    with pytest.raises(UserError, match="row 0: the tokenizer makes the same tokens of '"):
        encode_labels(prompter, requests)


def test_labels_that_nest_as_tokens_alone_are_scored_to_their_end(lower):
    labels = ("Polish", "polish food")
    prompter = text_prompter(
        lower, Task("mood", ("input",), ("input",), labels), "{input} is ", 99, False
    )
    (encoded,) = encode_labels(prompter, [Request(EXAMPLE, (), labels, "row 0")])
    assert [s.tokens[-1] for s in encoded.sequences] == [lower.eos_id] * 2
    apart = ("polish", "food")
    (encoded,) = encode_labels(prompter, [Request(EXAMPLE, (), apart, "row 0")])
    assert all(s.tokens[-1] != lower.eos_id for s in encoded.sequences)


def test_characters_that_the_tokenizer_does_not_know_are_found(lower, tiny):
    task = Task("mood", ("input",), ("input",))
    texts = ["a plain text", "第0号", "ß is one"]
    rows = [{"input": text, "output": "fine"} for text in texts]
    dataset = Dataset("moods", task, "moods.jsonl", True, rows)
    for tokenizer, expected in ((lower, [1, 2]), (tiny, [])):
        prompter = text_prompter(tokenizer, task, "{input}", 99, eos=True)
        encoded = prompter.encode([Request(row, (), ("fine",), "row") for row in rows])
        found = token_checks.unknown_tokens(dataset, enumerate(encoded), tokenizer)
        assert [f.indices for f in found] == ([expected] if expected else [])


def test_texts_that_programs_write_for_a_missing_value_are_found():
    task = Task("mood", ("input",), ("input",))
    texts = [("a", "NaN"), ("None", "b"), ("a", "none of these"), ("#N/A", "nan"), ("ok", "ok")]
    rows = [{"input": text, "output": output} for text, output in texts]
    dataset = Dataset("moods", task, "moods.csv", True, rows)
    (finding,) = token_checks.missing_values(dataset)
    assert finding.indices == [0, 1, 3]
    labels = Task("mood", ("input",), ("input",), ("none", "b", "nan"))
    (finding,) = token_checks.missing_values(dataset._replace(task=labels))
    assert finding.indices == [1, 3]  # a label may be none

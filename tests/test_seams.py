"""Answers that follow their prompts as one text, or with tokens of their own."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import eval_batches, token_checks, train_batches
from jft.data.eval_grid import all_cells
from jft.data.prompting import seams
from jft.data.prompting.prompter import text_prompter
from jft.data.prompting.prompts import Request
from jft.data.rows import datasets
from jft.data.training_report import training_report
from jft.tasks import TASKS, Task


def run(config, folder, tokenizer, outputs, template="{input} ="):
    """Plan a run on these outputs.

    Returns:
      The targets, one text a row, and the findings about seams by the names of their checks.
    """
    file = folder / "mood_train.jsonl"
    rows = [{"input": f"t {i}", "output": output} for i, output in enumerate(outputs)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.task, config.data.template, config.data.train = "mood", template, str(file)
    config.train.steps, config.train.epochs, config.train.batch_size = 0, 1.0, len(outputs)
    plan = train_batches.plan_run(config, tokenizer)
    targets = {
        i: spelled(tokenizer, encoded.sequences[0])
        for (_, i), encoded in zip(plan.examples, plan.encoded, strict=True)
    }
    report = training_report(plan, datasets.suite(config.data), config, tokenizer)
    found = {each["check"]: each for each in report["findings"]}
    checks = {name: found[name] for name in ("merged_answers", "answers_apart") if name in found}
    return [targets[i] for i in range(len(outputs))], checks


def spelled(tokenizer, sequence):
    return "".join(tokenizer.pieces(sequence.tokens[sequence.start :]))


@pytest.mark.parametrize("setting", ["auto", "apart", "joined"])
def test_labels_of_which_some_merge_are_apart_unless_asked_otherwise(
    config, suite_root, merging, setting
):
    outputs, config.data.labels = ["good", "0", "good", "1", "0", "good"], ("good", "0", "1")
    config.data.answer_tokens = setting
    targets, found = run(config, suite_root, merging, outputs)
    if setting == "joined":  # as the paper does: the prompt ends before the =, or after it
        assert targets == ["=good<eos>", "0<eos>", "=good<eos>", "1<eos>", "0<eos>", "=good<eos>"]
        finding = found.pop("merged_answers")
        assert (finding["count"], finding["of"], finding["indices"]) == (3, 6, [0, 2, 5])
        assert "in 3 of 6 examples" in finding["text"]
        assert "of the label (good)" in finding["text"]
        assert "data.answer_tokens=apart" in finding["text"]
    else:
        assert targets == [f"{output}<eos>" for output in outputs]
    if setting == "auto":
        assert "end of the prompt with good," in found.pop("answers_apart")["text"]
    assert found == {}


@pytest.mark.parametrize(
    ("template", "end"), [("{input} =", "="), ("{input} is ", " "), ("{input} is:", "")]
)
def test_labels_that_all_merge_or_none_are_joined(config, suite_root, merging, template, end):
    config.data.labels = ("good", "bad")
    outputs = ["good", "bad", "bad", "good"]
    targets, found = run(config, suite_root, merging, outputs, template)
    assert (targets, found) == ([f"{end}{output}<eos>" for output in outputs], {})


def test_texts_are_joined_and_those_that_no_generation_begins_so_are_found(
    config, suite_root, merging
):
    config.data.labels, outputs = (), ["a town", "7 towns", "the town", "8", "9"]
    targets, found = run(config, suite_root, merging, outputs)
    assert targets[:2] == ["=a town<eos>", "7 towns<eos>"]
    finding = found.pop("merged_answers")
    assert (finding["count"], finding["indices"]) == (2, [0, 2])
    assert "that no generation begins with" in finding["text"]
    assert found == {}
    assert run(config, suite_root, merging, outputs, "{input} is:")[1] == {}
    config.data.answer_tokens = "apart"
    targets, found = run(config, suite_root, merging, outputs)
    assert (targets, found) == ([f"{output}<eos>" for output in outputs], {})


def test_scoring_asks_as_training_does(config, suite_root, merging):
    file = suite_root / "mood_test.jsonl"
    rows = [{"input": f"t {i}", "output": "good"} for i in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.task, config.data.template, config.data.labels = (
        "mood",
        "{input} =",
        ("good", "0"),
    )
    config.eval.datasets = (str(file),)
    wanted = {"auto": ["good", "0"], "apart": ["good", "0"], "joined": ["=good", "=0"]}
    for setting, labels in wanted.items():
        config.data.answer_tokens = setting
        (cell,) = all_cells(config)
        packed = eval_batches.pack_cell(cell, merging, config)
        for encoded in packed.encoded:
            assert [spelled(merging, each) for each in encoded.sequences] == labels
            assert len({sequence.start for sequence in encoded.sequences}) == 1


def test_a_model_that_was_trained_otherwise_is_told_of(merging):
    mood = Task("mood", ("input",), ("input",), ("good", "0"))
    prompts = [(mood, "{input} is:"), (mood, "{input} =")]

    def found(trained, asked, prompts=prompts):
        return token_checks.asked_otherwise(trained, asked, merging, prompts, "a run")

    assert found("auto", "apart", prompts[1:]) == found("joined", "joined") == []
    (finding,) = found("joined", "auto")
    assert "trained with data.answer_tokens=joined, and is asked with auto" in finding.text
    assert found("joined", "auto", prompts[:1]) == []
    assert len(found("apart", "joined")) == 1


def test_demonstrations_are_apart_as_their_prompts_are(merging):
    task = Task("mood", ("input",), ("input",), ("good", "0"))
    demos = ({"input": "x", "output": "good"}, {"input": "y", "output": "0"})
    for apart, end in ((True, ["=", *"good"]), (False, ["=g", *"ood"])):
        prompter = text_prompter(merging, task, "{input} =", 99, eos=False, apart=apart)
        request = Request({"input": "z", "output": ""}, demos, ("good",), "row 0")
        ((tokens, _),) = prompter.encode([request])[0].sequences
        assert merging.decode(tokens) == "x =good\n\ny =0\n\nz =good"
        pieces = [merging.decode([i]) for i in tokens]
        assert pieces[-len(end) :] == end
        demo = pieces[: pieces.index("\n")]
        assert demo[-len(end) :] == end


@pytest.fixture(scope="module")
def tiny():
    return tokenizer_lib.load("random:llama-tiny")


TEXTS = st.lists(st.text(st.sampled_from("ab 07\n.,:=")), min_size=1, max_size=5).filter(
    lambda parts: parts[0]
)


@given(parts=TEXTS)
def test_apart_no_token_spans_two_parts(merging, tiny, parts):
    for tokenizer in (merging, tiny):
        (ids,) = seams.tokenize(tokenizer, [tuple(parts)], apart=True)
        (joined,) = seams.tokenize(tokenizer, [tuple(parts)], apart=False)
        np.testing.assert_array_equal(joined, tokenizer.encode(["".join(parts)])[0])
        assert tokenizer.decode(ids) == tokenizer.decode(joined)
        ends = {len(tokenizer.decode(ids[:n])) for n in range(len(ids) + 1)}
        so_far = 0
        for part in parts:
            so_far += len(part)
            assert so_far in ends
        if tokenizer is tiny:  # which has a token for each byte
            np.testing.assert_array_equal(ids, joined)


def test_a_space_before_labels_is_joined_with_those_that_merge(config, suite_root, merging):
    outputs, config.data.labels = ["good", "0"], ("good", "0")
    targets, found = run(config, suite_root, merging, outputs, "{input} is ")
    assert targets == [" good<eos>", "0<eos>"]
    assert found.keys() == {"merged_answers"}


def test_a_template_that_ends_in_a_field_is_taken_to_end_in_a_letter(merging):
    task = TASKS["sentiment"]
    assert seams.merged_tokens(merging, task, "{input}") == {"positive": 0, "negative": 0}
    assert seams.merged_tokens(merging, task, "{input} ") == {"positive": 1, "negative": 1}


@pytest.mark.parametrize(
    ("template", "apart"),
    [
        ("{input} =", True),
        ("{input} ={{", False),
        ("{{{input}}} =", True),
        ("{input}\n=", True),
        ("= {input}", False),
    ],
)
def test_the_text_after_the_last_field_decides(merging, template, apart):
    task = Task("mood", ("input",), ("input",), ("good", "0"))
    assert seams.is_apart("auto", merging, task, template) == apart


def test_the_end_of_a_template_is_tokenized_in_its_place():
    """With `a:` for a token, the `:` of a template that begins a text would not merge with it."""
    vocab = {token: i for i, token in enumerate([*"a:nepositv", "a:", ":n", "<eos>"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("a", ":"), (":", "n")]))
    backend.add_special_tokens(["<eos>"])
    tokenizer = tokenizer_lib.Tokenizer(backend, vocab["<eos>"])
    task = Task("mood", ("input",), ("input",), ("n", "p"))
    assert seams.merged_tokens(tokenizer, task, "{input}:") == {"n": 0, "p": 0}

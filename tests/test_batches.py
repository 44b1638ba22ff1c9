"""A run's batches: what they hold, and that they depend on the step and nothing else."""

import itertools
import json

import jax
import numpy as np
import pytest

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import key_blocks, prefix_tree
from jft.data import train_batches as batches_lib
from jft.data.prompting.prompter import text_prompter
from jft.data.prompting.prompts import Request
from jft.data.rows import datasets
from jft.errors import UserError
from jft.tasks import TASKS


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.load("random:llama-tiny")


def texts(plan, tokenizer, step):
    """The decoded sequences of a step, sorted."""
    ids = [i for row in plan.packed[step].rows for i, _ in row]
    return sorted(tokenizer.decode(plan.encoded[i].sequences[0].tokens) for i in ids)


def test_a_step_holds_the_prompts_and_answers_of_its_examples(config, tokenizer):
    config.data.shuffle = False
    plan = batches_lib.plan_run(config, tokenizer)
    examples = datasets.suite(config.data).training_sets()[0].examples
    expected = [f"Text: {e['input']}\nSentiment:{e['output']}" for e in examples[4:8]]
    assert texts(plan, tokenizer, 1) == sorted(expected)


def test_targets_are_the_answer_and_the_end_of_sequence(config, tokenizer):
    plan = batches_lib.plan_run(config, tokenizer)
    for encoded in plan.encoded:
        tokens, start = encoded.sequences[0]
        assert tokenizer.decode(tokens[start:-1]) in ("positive", "negative")
        assert tokens[-1] == tokenizer.eos_id


def test_demonstrations_stand_before_every_example(config, tokenizer):
    config.data.shots = 2
    plan = batches_lib.plan_run(config, tokenizer)
    demos = datasets.suite(config.data).demos(TASKS["sentiment"], "shops", 2)
    before = "".join(f"Text: {d['input']}\nSentiment:{d['output']}\n\n" for d in demos[:2])
    for step in range(plan.steps):
        assert all(text.startswith(before) for text in texts(plan, tokenizer, step))


@pytest.mark.parametrize("mode", ["fixed", "per_row", "per_example"])
@pytest.mark.parametrize("shots", [0, 3])
def test_every_mode_trains_on_the_same_examples(config, tokenizer, mode, shots):
    config.data.demo_mode, config.data.shots = mode, shots
    plan = batches_lib.plan_run(config, tokenizer)
    config.data.demo_mode, config.data.shots = "fixed", 0
    plain = batches_lib.plan_run(config, tokenizer)
    for step in range(plan.steps):
        own = [text.split("\n\n")[-1] for text in texts(plan, tokenizer, step)]
        assert sorted(own) == texts(plain, tokenizer, step)


def contexts(plan, tokenizer, step):
    """The demonstrations of each row of a step."""
    packed = plan.packed[step].sequences
    decoded = [[tokenizer.decode(sequence.tokens) for sequence in row] for row in packed]
    return [{text.rpartition("\n\n")[0] for text in row} for row in decoded]


def test_per_row_draws_once_for_each_row_and_per_example_for_each_example(config, tokenizer):
    config.data.shots, config.train.batch_size, config.data.row_length = 2, 8, 384
    config.data.demo_mode = "per_row"
    plan = batches_lib.plan_run(config, tokenizer)
    steps = [contexts(plan, tokenizer, step) for step in range(plan.steps)]
    assert all(len(set.union(*rows)) <= len(rows) for rows in steps)
    assert len(set.union(*(set.union(*rows) for rows in steps))) > 1
    config.data.demo_mode = "per_example"
    plan = batches_lib.plan_run(config, tokenizer)
    assert len(set.union(*contexts(plan, tokenizer, 0))) > 2


@pytest.mark.parametrize("mode", ["fixed", "per_row", "per_example"])
def test_no_example_is_its_own_demonstration(config, tokenizer, suite_root, mode):
    """The training set has the demonstrations here, white space aside: each must give way once."""
    demos = (suite_root / "sentiment/few_shot/shops_few_shot.json").read_text()
    spaced = [demo | {"input": demo["input"].replace(" ", "  ")} for demo in json.loads(demos)]
    (suite_root / "sentiment/shops_train_20.json").write_text(json.dumps(spaced))
    config.data.shots, config.data.demo_mode = 4, mode
    plan = batches_lib.plan_run(config, tokenizer)
    for step in range(plan.steps):
        for text in texts(plan, tokenizer, step):
            *demos, own = text.replace("  ", " ").split("\n\n")
            assert len(demos) == 4
            assert own not in demos


def test_batches_depend_on_the_step_alone(config, tokenizer):
    config.data.shots, config.data.demo_mode = 2, "per_example"
    one, other = (batches_lib.plan_run(config, tokenizer) for _ in range(2))
    backwards = [other.batch(step) for step in reversed(range(other.steps))][::-1]
    for step, batch in enumerate(backwards):
        for got, want in zip(one.batch(step), batch, strict=True):
            np.testing.assert_array_equal(got, want)


def test_the_seed_changes_the_order_and_every_epoch_holds_every_example(config, tokenizer):
    config.train.steps, config.train.batch_size = 10, 4  # two epochs of 20 examples
    plan = batches_lib.plan_run(config, tokenizer)
    steps = [texts(plan, tokenizer, step) for step in range(10)]
    epochs = [sorted(itertools.chain(*steps[:5])), sorted(itertools.chain(*steps[5:]))]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == 20
    assert steps[:5] != steps[5:]
    config.data.seed = 1
    other = batches_lib.plan_run(config, tokenizer)
    assert texts(other, tokenizer, 0) != steps[0]


def test_epochs_count_when_steps_do_not(config, tokenizer):
    config.train.steps, config.train.epochs, config.train.batch_size = 0, 1.5, 4
    assert batches_lib.plan_run(config, tokenizer).steps == 7


def test_processes_share_a_batch_and_micro_batches_hold_every_row(config, tokenizer):
    config.train.batch_size, config.data.row_length = 16, 128
    plan = batches_lib.plan_run(config, tokenizer, shards=4)
    assert plan.shapes[0].rows % 4 == 0
    whole = plan.batch(0)
    parts = [plan.batch(0, process, 2) for process in range(2)]
    for got, *halves in zip(*map(jax.tree.leaves, (whole, *parts)), strict=True):
        np.testing.assert_array_equal(got, np.concatenate(halves, axis=1))
    assert whole.loss_weight_BM.sum() == prefix_tree.count(plan.packed[0].sequences).target_tokens


def test_an_input_too_long_loses_its_end_and_keeps_its_answer(tokenizer):
    prompter = text_prompter(
        tokenizer, TASKS["sentiment"], "Text: {input}\nSentiment:", 40, eos=True
    )
    example = {"input": "one two three four five six seven eight nine ten", "output": "positive"}
    encoded = prompter.encode([Request(example, (), ("positive",), "row 0")])[0]
    tokens, start = encoded.sequences[0]
    assert encoded.shortened
    assert tokenizer.decode(tokens[:-1]) == "Text: one two three\nSentiment:positive"
    assert tokenizer.decode(tokens[start:-1]) == "positive"
    assert len(tokens) <= 40


def test_two_texts_are_shortened_where_they_are_longest(tokenizer):
    template = "A: {input_1}\nB: {input_2}\nSame:"
    prompter = text_prompter(tokenizer, TASKS["detection"], template, 40, eos=False)
    example = {"input_1": "a b", "input_2": "one two three four five six seven", "output": "yes"}
    encoded = prompter.encode([Request(example, (), ("yes", "no"), "row 0")])[0]
    shown = [tokenizer.decode(sequence.tokens) for sequence in encoded.sequences]
    assert [text.rpartition("Same:")[2] for text in shown] == ["yes", "no"]
    assert all("A: a b\nB: one two" in text for text in shown)
    assert max(len(sequence.tokens) for sequence in encoded.sequences) <= 40


def test_an_answer_that_cannot_fit_names_its_row(config, tokenizer):
    config.data.max_length = 20
    with pytest.raises(
        UserError, match=r"shops_train_20.json row \d+ \(from 0\): 2\d tokens even with an empty"
    ):
        batches_lib.plan_run(config, tokenizer)


def test_the_plan_packs_into_rows_that_hold_the_longest_sequence(config, tokenizer):
    config.data.shots = 4
    plan = batches_lib.plan_run(config, tokenizer)
    longest = max(len(e.sequences[0].tokens) for e in plan.encoded)
    for step in range(plan.steps):
        shape = plan.shapes[step]
        assert longest <= shape.row_length
        assert len(plan.packed[step].rows) <= shape.micro_batches * shape.rows
        for sequences in plan.packed[step].sequences:
            assert prefix_tree.row_tokens(sequences) <= shape.row_length
            assert prefix_tree.num_entries(sequences) <= shape.num_entries
            widths = key_blocks.widths_of(prefix_tree.visible_until(sequences))
            assert widths[shape.num_prefix_blocks :].max(initial=0) <= shape.num_key_blocks


@pytest.mark.parametrize(
    ("epochs", "rows", "examples"),
    [(2.3, 100, 230), (0.29, 100, 29), (0.57, 100, 57), (1.0, 31, 31), (0.5, 31, 15), (2.0, 7, 14)],
)
def test_the_examples_of_some_epochs_lose_none_to_rounding(epochs, rows, examples):
    assert batches_lib.examples_of(epochs, rows) == examples


def test_an_example_that_is_twice_in_a_step_counts_twice(config, tokenizer):
    config.data.examples, config.train.batch_size, config.train.steps = 3, 6, 2
    plan = batches_lib.plan_run(config, tokenizer)
    for step in range(2):
        ids = [each for row in plan.packed[step].rows for each in row]
        assert sorted(ids) == sorted([(i, 0) for i in range(3)] * 2)
        assert plan.examples_by_set(step) == [6]
        weights = plan.batch(step).loss_weight_BM
        assert weights.sum() == 2 * sum(
            len(each.sequences[0].tokens) - each.sequences[0].start for each in plan.encoded
        )

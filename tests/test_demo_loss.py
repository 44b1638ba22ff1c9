"""`data.demo_loss`: the outputs of demonstrations as targets, each once in a step."""

import dataclasses

import chat_templates
import jax
import numpy as np
import pytest
from test_step import assert_same, batch_of, run

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import prefix_tree
from jft.data import train_batches as batches_lib
from jft.data.prompting.chat_prompts import ChatStyle, ChatWriter
from jft.data.prompting.chat_template import ChatTemplate
from jft.data.prompting.prompts import Request, TextWriter
from jft.tasks import TASKS

DEMOS = (
    {"input": "a fine day", "output": "positive"},
    {"input": "a dull day", "output": "negative"},
    {"input": "the best", "output": "positive"},
)
TEMPLATE = "Text: {input}\nSentiment:"


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.load("random:llama-tiny")


def requests(*inputs, demos=DEMOS):
    return [
        Request({"input": each, "output": "negative"}, demos, ("negative",), each)
        for each in inputs
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_each_output_is_predicted_from_all_that_stands_before_it(tokenizer, merging, apart):
    for backend in (tokenizer, merging):
        (encoded,) = TextWriter(backend, TEMPLATE, True, apart, demo_loss=True).write(requests("x"))
        outputs = [backend.decode(s.tokens[s.start :]) for s in encoded.shown]
        assert outputs == [demo["output"] for demo in DEMOS]
        for number, sequence in enumerate(encoded.shown):
            before = backend.decode(sequence.tokens[: sequence.start])
            shown = [f"Text: {d['input']}\nSentiment:{d['output']}\n\n" for d in DEMOS[:number]]
            assert before == "".join(shown) + f"Text: {DEMOS[number]['input']}\nSentiment:"
            # It begins the prompt: the tree holds it already.
            np.testing.assert_array_equal(
                sequence.tokens, encoded.sequences[0].tokens[: len(sequence.tokens)]
            )
        assert prefix_tree.row_tokens(
            [encoded.packed[i] for i in prefix_tree.order(encoded.packed)]
        ) == len(encoded.sequences[0].tokens)


def test_a_chat_predicts_whole_turns_of_its_demonstrations():
    tokenizer = chat_templates.tokenizer("chatml")
    style = ChatStyle(ChatTemplate(tokenizer.chat_template, {}), demo_loss=True)
    writer = ChatWriter(tokenizer, style, TASKS["sentiment"], "{input}", True)
    (encoded,) = writer.write(requests("x"))
    pieces = ["".join(tokenizer.pieces(s.tokens[s.start :])) for s in encoded.packed]
    ends = [f"{each}<|im_end|>\n" for each in ("negative", "positive", "negative", "positive")]
    assert pieces == ends
    plain = writer._replace(style=style._replace(demo_loss=False)).write(requests("x"))
    assert [len(each.packed) for each in plain] == [1]


def plan(config, tokenizer, mode, **data):
    config.data.shots, config.data.demo_mode = 3, mode
    for name, value in data.items():
        setattr(config.data, name, value)
    return batches_lib.plan_run(config, tokenizer)


@pytest.mark.parametrize("mode", ["fixed", "per_row", "per_example"])
def test_what_a_step_learns_of_demonstrations_does_not_depend_on_its_rows(config, tokenizer, mode):
    long = plan(config, tokenizer, mode, demo_loss=True, row_length=512)
    config.train.micro_batch_tokens = 512
    short = plan(config, tokenizer, mode, row_length=512 if mode == "per_row" else 256)
    for of_long, of_short in zip(long.packed, short.packed, strict=True):
        if mode != "per_row":  # there the rows decide what is drawn
            assert len(of_long.rows) < len(of_short.rows)
        held = [
            sorted((s.tokens.tobytes(), s.start) for row in each.sequences for s in row)
            for each in (of_long, of_short)
        ]
        assert held[0] == held[1]
        assert len(set(held[0])) == len(held[0])
        of_demos = len(held[0]) - config.train.batch_size
        assert of_demos == 3 if mode == "fixed" else of_demos >= 3


def test_loss_and_gradients_equal_separate_rows(config, tokenizer, decoder_config):
    wide = dataclasses.replace(decoder_config, vocab_size=tokenizer.vocab_size)
    planned = plan(config, tokenizer, "fixed", demo_loss=True)
    sequences = [[s for row in step.sequences for s in row] for step in planned.packed]
    length = max(len(s.tokens) for step in sequences for s in step)
    entries = max(len(s.tokens) - s.start for step in sequences for s in step)
    apart = [batch_of([[s] for s in step], len(step), length, entries) for step in sequences]
    packed = [jax.tree.map(np.asarray, planned.batch(i)) for i in range(planned.steps)]
    plain = [batch._replace(key_blocks_BQW=None, prefix_blocks_BU=None) for batch in apart]
    assert_same(run(wide, packed), run(wide, plain))
    without = plan(config, tokenizer, "fixed", demo_loss=False)
    assert without.sha256() != planned.sha256()

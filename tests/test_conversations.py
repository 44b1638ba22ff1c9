"""Conversations: which tokens of a chat are predicted, for eight public templates."""

import chat_templates
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from jft.data import prefix_tree
from jft.data.prompting import conversations
from jft.data.prompting.chat_template import ChatTemplate
from jft.data.prompting.conversations import Conversation
from jft.errors import UserError

TOKENIZERS = {name: chat_templates.tokenizer(name) for name in chat_templates.TEMPLATES}


def template(name):
    tokenizer = TOKENIZERS[name]
    return ChatTemplate(tokenizer.chat_template, tokenizer.special_spellings)


def encode(name, messages, loss="turns"):
    conversation = Conversation(messages, None, "chats.jsonl row 0")
    return conversations.encode([conversation], template(name), TOKENIZERS[name], loss)[0].own


def obvious(name, messages, loss="turns"):
    """Render the conversation with Transformers once for each turn of the assistant, and compare.

    Returns:
      (tokens, where the targets begin) of each predicted turn.
    """
    tokenizer = TOKENIZERS[name]
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._backend,
        bos_token="<s>",
        eos_token="</s>",
        chat_template=chat_templates.TEMPLATES[name],
    )

    def ids(part, asks):
        text = theirs.apply_chat_template(part, add_generation_prompt=asks, tokenize=False)
        return theirs(text, add_special_tokens=False)["input_ids"]

    found = []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant" and turn:
            seen, whole = ids(messages[:turn], True), ids(messages[: turn + 1], False)
            start = 0
            while start < min(len(seen), len(whole)) and seen[start] == whole[start]:
                start += 1
            found.append((whole, 1 if loss == "all" else max(1, start)))
    return found if loss == "turns" else found[-1:]


def check(name, messages, loss="turns"):
    found = encode(name, messages, loss)
    wanted = obvious(name, messages, loss)
    assert [(s.tokens.tolist(), s.start) for s in found] == wanted
    return found


def say(role, content):
    return {"role": role, "content": content}


TALK = [
    say("user", "What is the capital of the Netherlands?"),
    say("assistant", "Amsterdam.\n\nThe seat of government is The Hague."),
    say("user", "And of Peru: name it"),
    say("assistant", "Lima"),
]


@pytest.mark.parametrize("loss", conversations.LOSSES)
@pytest.mark.parametrize("name", chat_templates.TEMPLATES)
def test_targets_are_those_of_the_obvious_way(name, loss):
    found = check(name, TALK, loss)
    ends = chat_templates.ENDS[name]
    for sequence in found:
        assert TOKENIZERS[name].pieces(sequence.tokens[-len(ends) :]) == ends
    if loss == "turns":
        texts = [TOKENIZERS[name].decode(s.tokens[s.start :]).strip() for s in found]
        said = [message["content"] for message in TALK if message["role"] == "assistant"]
        assert [text.removeprefix("<think>").strip() for text in texts] == said


WORDS = st.text(st.sampled_from("the a.n:\n 0"), min_size=1, max_size=8).filter(str.strip)
THOUGHTS = st.builds("<think>\n{}\n</think>\n\n{}".format, WORDS, WORDS)


@st.composite
def talks(draw):
    """Conversations that begin with a question, with or without a system message."""
    system = [say("system", draw(WORDS))] if draw(st.booleans()) else []
    answers = draw(st.lists(st.one_of(WORDS, THOUGHTS), min_size=1, max_size=4))
    turns = [[say("user", draw(WORDS)), say("assistant", answer)] for answer in answers]
    return [*system, *(message for turn in turns for message in turn)]


@pytest.mark.parametrize("name", chat_templates.TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(messages=talks(), loss=st.sampled_from(conversations.LOSSES))
def test_random_conversations_have_the_targets_of_the_obvious_way(name, messages, loss):
    if name == "mistral" and messages[0]["role"] == "system":
        with pytest.raises(UserError, match="Only user and assistant roles are supported"):
            encode(name, messages, loss)
    else:
        check(name, messages, loss)


THINKING = [
    say("user", "2+2?"),
    say("assistant", "<think>\nadd\n</think>\n\n4"),
    say("user", "and 3?"),
    say("assistant", "<think>\nadd again\n</think>\n\n7"),
]


def test_a_template_that_strips_thinking_trains_each_turn_on_what_it_will_see():
    first, second = check("qwen3", THINKING)
    pieces = TOKENIZERS["qwen3"].pieces
    assert "".join(pieces(first.tokens[first.start :])) == "<think>\nadd\n</think>\n\n4<|im_end|>\n"
    seen = "".join(pieces(second.tokens[: second.start]))
    assert "add" not in seen
    assert seen.endswith(
        "assistant\n4<|im_end|>\n<|im_start|>user\nand 3?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "".join(pieces(second.tokens[second.start :])).startswith("<think>\nadd again\n")
    # They branch where the first turn begins to think: both see the question once.
    shared = prefix_tree.shared_length(first.tokens, second.tokens)
    assert shared == first.start
    row = [first, second]
    assert prefix_tree.row_tokens(row) == len(first.tokens) + len(second.tokens) - shared


def test_a_template_that_keeps_turns_costs_one_row_of_tokens():
    first, second = check("chatml", TALK)
    np.testing.assert_array_equal(first.tokens, second.tokens[: len(first.tokens)])
    assert prefix_tree.row_tokens([first, second]) == len(second.tokens)


def test_of_a_prompt_with_messages_only_the_completion_is_predicted():
    conversation = Conversation([*TALK, *TALK], None, "row 0", given=len(TALK))
    (turns,) = conversations.encode([conversation], template("chatml"), TOKENIZERS["chatml"])
    pieces = TOKENIZERS["chatml"].pieces
    said = ["".join(pieces(s.tokens[s.start :])).partition("<|im_end|>")[0] for s in turns.own]
    assert said == [m["content"] for m in TALK if m["role"] == "assistant"]


def test_a_first_message_of_the_assistant_answers_nothing_even_after_demonstrations():
    messages = [*TALK, say("assistant", "Hello"), *TALK]
    conversation = Conversation(messages, None, "row 0", shown=len(TALK))
    (turns,) = conversations.encode([conversation], template("chatml"), TOKENIZERS["chatml"])
    assert len(turns.own) == 2
    assert turns.shown == []
    (turns,) = conversations.encode(
        [conversation], template("chatml"), TOKENIZERS["chatml"], demo_loss=True
    )
    assert (len(turns.own), len(turns.shown)) == (2, 2)

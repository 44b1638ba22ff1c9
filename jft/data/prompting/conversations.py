"""Conversations as token sequences: each turn of the assistant is one.

A turn's sequence is what the model sees in use, and then what it is to say: the conversation up to
the turn, rendered with the prompt to answer, and rendered with the turn. Its targets begin where
the tokens of the two part. Where a template keeps earlier turns as they were, every sequence is the
beginning of the next one, and the tree holds a conversation once. Where it rewrites them, such as
one that strips the thinking of earlier turns, the sequences branch:

    messages            user A   assistant <think>t</think>B   user C   assistant <think>u</think>D
    sequence of turn 1  A <think> t </think> B .
    sequence of turn 2  A B . C <think> u </think> D .
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jft.data.prefix_tree import TokenSequence, shared_length
from jft.data.prompting.chat_template import ChatError, ChatTemplate
from jft.data.rows.messages import ASSISTANT, Message
from jft.errors import UserError

# What of a conversation is predicted: every turn of the assistant, its last, or all tokens.
TURNS, LAST, ALL = LOSSES = ("turns", "last", "all")


class ChatEncoder(Protocol):
    """The part of a tokenizer that conversations need."""

    eos_id: int

    @property
    def control_ids(self) -> frozenset[int]:
        """The ids of special tokens: with one of them a template ends a turn."""
        ...

    def encode_rendered(self, texts: list[str]) -> list[np.ndarray]:
        """Return the token ids of texts that hold all special tokens already."""
        ...


class Conversation(NamedTuple):
    """The messages of a row.

    Attributes:
      messages: as `messages.read_messages` gives them, those of demonstrations first.
      tools: JSON schemas of the tools that the assistant may call; None: there are none.
      where: the name of the row in errors.
      shown: the number of messages of demonstrations, and of a system message before them.
      given: the number of messages after those that are the row's prompt: no turn of theirs is
        predicted.
    """

    messages: list[Message]
    tools: Any
    where: str
    shown: int = 0
    given: int = 0

    @property
    def turns(self) -> list[int]:
        """The indices of the assistant's messages that answer something and are to be learned."""
        said = [i for i, each in enumerate(self.messages) if each["role"] == ASSISTANT]
        return [i for i in said if i > 0 and self.messages[i].get("learn", True)]


class Turns(NamedTuple):
    """The sequences of a conversation: of its own turns, and of those of demonstrations.

    Attributes:
      own, shown: the sequences.
      unlike: the most tokens at the end of a prompt to answer that its turn does not begin with.
    """

    own: list[TokenSequence]
    shown: list[TokenSequence]
    unlike: int = 0


def encode(
    conversations: Sequence[Conversation],
    template: ChatTemplate,
    tokenizer: ChatEncoder,
    loss: str = TURNS,
    demo_loss: bool = False,
) -> list[Turns]:
    """Make the sequences of each conversation.

    Args:
      conversations: each with a turn of the assistant at least.
      template: the model's.
      tokenizer: the model's.
      loss: one of `LOSSES`.
      demo_loss: whether the turns of demonstrations are predicted, too.

    Returns:
      The sequences of each conversation, in the order of its turns. Of `all` there is one, of which
      every token but the first is a target, or every token after the demonstrations.

    Raises:
      UserError: a conversation without a turn of the assistant, or one that the template refuses,
        or whose turns have no tokens.
    """
    made = [list(_rendered(each, template, loss, demo_loss)) for each in conversations]
    texts = dict.fromkeys(text for of_row in made for turn in of_row for text in turn)
    ids = dict(zip(texts, tokenizer.encode_rendered(list(texts)), strict=True))
    found = []
    for each, of_row in zip(conversations, made, strict=True):
        sequences = [_sequence(each, turn, ids, tokenizer) for turn in of_row]
        own = len(sequences) - len(_own_turns(each, loss))
        pairs = [(ids[turn.asked], ids[turn.whole]) for turn in of_row]
        unlike = max(len(asked) - shared_length(asked, whole) for asked, whole in pairs)
        found.append(Turns(sequences[own:], sequences[:own], unlike))
    return found


def _own_turns(conversation: Conversation, loss: str) -> list[int]:
    """List the turns of a row, without those of demonstrations, that a sequence is made of.

    Its first message is none, even if demonstrations stand before it: it answers nothing.
    """
    _, _, _, shown, given = conversation
    turns = [i for i in conversation.turns if i > shown and i >= shown + given]
    if not turns:
        raise UserError(
            f"{conversation.where}: the assistant answers nothing, so that there is nothing to "
            "learn; remove it"
        )
    return turns if loss == TURNS else turns[-1:]


class Rendered(NamedTuple):
    """A turn as text.

    Attributes:
      asked: what the model sees before it.
      whole: that with the turn.
      before: what is not predicted.
    """

    asked: str
    whole: str
    before: str


def _rendered(
    conversation: Conversation, template: ChatTemplate, loss: str, demo_loss: bool
) -> Iterator[Rendered]:
    """Render each turn that a sequence is made of."""
    messages, tools, where, shown, _ = conversation
    demos = [i for i in conversation.turns if i < shown] if demo_loss else []
    for turn in (*demos, *_own_turns(conversation, loss)):
        try:
            asked = template.render(messages[:turn], True, tools)
            whole = template.render(messages[: turn + 1], False, tools)
            _check_calls(messages[turn], whole, where)
            before = asked
            if loss == ALL and turn >= shown:
                before = template.render(messages[:shown], False, tools) if shown else ""
        except ChatError as error:
            raise UserError(
                f"{where}: the model's chat template refuses it up to message {turn - shown} "
                f"(from 0): {error}"
            ) from None
        yield Rendered(asked, whole, before)


def _check_calls(message: Message, rendered: str, where: str) -> None:
    """Check that a chat template writes the calls of tools: some know of none.

    Raises:
      UserError: it leaves them out, so that the model would learn to say nothing.
    """
    for call in message.get("tool_calls", ()):
        inner = call.get("function") or call
        if (name := str(inner.get("name"))) not in rendered:
            raise UserError(
                f"{where}: the model's chat template leaves out the call of {name}; use a model "
                "that is made for tools, or data.chat_template"
            )


def _sequence(
    conversation: Conversation,
    turn: Rendered,
    ids: Mapping[str, np.ndarray],
    tokenizer: ChatEncoder,
) -> TokenSequence:
    """Make the sequence of a turn, with the end of sequence if the template ends no turn."""
    asked, whole, before = (ids[text] for text in turn)
    begin = shared_length(asked, whole)
    if begin + 1 >= len(whole):
        raise UserError(
            f"{conversation.where}: the model's chat template leaves nothing of a turn of the "
            "assistant to predict"
        )
    return TokenSequence(with_end(whole, begin, tokenizer), max(1, shared_length(before, whole)))


def with_end(whole: np.ndarray, start: int, tokenizer: ChatEncoder) -> np.ndarray:
    """Add the end of sequence to a turn from `start` on that the template does not end itself."""
    if tokenizer.control_ids.intersection(whole[start:].tolist()):
        return whole
    return np.append(whole, np.int32(tokenizer.eos_id))

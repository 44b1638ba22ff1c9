"""Prompts as chats: requests that become token sequences through a model's chat template.

A request of a task is a question of the user, in the task's template. Demonstrations are earlier
turns, or text before the question in the same message. A conversation is asked as it is.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import NamedTuple

import numpy as np

from jft.data.prefix_tree import TokenSequence, longest, shared_length
from jft.data.prompting import conversations
from jft.data.prompting.chat_template import ChatError, ChatTemplate
from jft.data.prompting.conversations import ChatEncoder, Conversation
from jft.data.prompting.prompts import Encoded, Request, fill, prompt_parts
from jft.data.rows import forms
from jft.data.rows.messages import ASSISTANT, SYSTEM, USER, Message
from jft.errors import UserError
from jft.tasks import CONVERSATION, Example, Task


class ChatStyle(NamedTuple):
    """The way in which chats are made.

    Attributes:
      template: the model's chat template.
      system: the system message of chats that have none; empty: none.
      turns: whether demonstrations are earlier turns, not text in the user's message.
      loss: what of a conversation is predicted in training, one of `conversations.LOSSES`.
      demo_loss: whether the answers of demonstrations are predicted, too.
    """

    template: ChatTemplate
    system: str = ""
    turns: bool = True
    loss: str = conversations.TURNS
    demo_loss: bool = False


class ChatWriter(NamedTuple):
    """Prompts through a chat template.

    Attributes:
      tokenizer: the model's.
      style: how chats are made.
      task: of the requests.
      template: of the user's message; of no use to conversations.
      eos: whether an answer is a whole turn, with its end, as in training.
    """

    tokenizer: ChatEncoder
    style: ChatStyle
    task: Task
    template: str
    eos: bool

    def settings(self) -> str:
        """Describe all that the sequences depend on besides the tokenizer."""
        return repr(("chat", *self[1:]))

    def to_the_end(self) -> ChatWriter:
        """Return the same way with the end of the turn predicted after every answer."""
        return self._replace(eos=True)

    def write(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every request, however long they are.

        Raises:
          UserError: the chat template refuses one.
        """
        return self._turns(requests) if self.eos else self._beginnings(requests)

    def _turns(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of whole turns."""
        asked = [self._asked(request) for request in requests]
        whole = [
            each._replace(messages=[*each.messages, self._answer(request, answer)])
            for request, each in zip(requests, asked, strict=True)
            for answer in request.answers
        ]
        style, loss = self.style, self.style.loss if self._is_conversation else conversations.LAST
        made = iter(
            conversations.encode(whole, style.template, self.tokenizer, loss, style.demo_loss)
        )
        found = []
        for request in requests:
            turns = [next(made) for _ in request.answers]
            sequences = [each for of_answer in turns for each in of_answer.own]
            if len(turns) > 1:  # all answers continue one text
                start = min(each.start for each in sequences)
                sequences = [each._replace(start=start) for each in sequences]
            encoded = Encoded(sequences, longest(sequences), 0, request.example)
            unlike = max(each.unlike for each in turns)
            found.append(encoded._replace(shown=tuple(turns[0].shown), merged=unlike))
        return found

    def _beginnings(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of a prompt and each answer, up to the answer's last character."""
        texts = []
        for request in requests:
            messages, tools, where, *_ = self._asked(request)
            try:
                asked = self.style.template.render(messages, True, tools)
                texts.append(asked)
                for answer in request.answers:
                    whole = [*messages, _say(ASSISTANT, answer)] if answer else []
                    turn = self.style.template.render(whole, False, tools) if whole else ""
                    end = turn_end(self.style.template) if whole else ""
                    cut = turn.removesuffix(end) if end and turn.endswith(end) else ""
                    texts.append(cut or asked + answer)
            except ChatError as error:
                raise UserError(f"{where}: the model's chat template refuses it: {error}") from None
        ids = iter(self.tokenizer.encode_rendered(texts))
        found = []
        for request in requests:
            sequences = _continued(next(ids), [next(ids) for _ in request.answers])
            found.append(Encoded(sequences, longest(sequences), 0, request.example))
        return found

    @property
    def _is_conversation(self) -> bool:
        return self.task == CONVERSATION

    def _asked(self, request: Request) -> Conversation:
        """Return what a request asks, without the answer, after its demonstrations."""
        own, tools, given = [_say(USER, self._text(request))], None, 0
        if self._is_conversation:
            own, tools, given = forms.read_conversation(request.example)
        shown = self._shown(request.demos) if self.style.turns else []
        system = own[:1] if own[0]["role"] == SYSTEM else []
        own, given = own[len(system) :], max(0, given - len(system))
        if not system and self.style.system:
            system = [_say(SYSTEM, self.style.system)]
        number = len(system) + len(shown) if shown else 0
        given += 0 if shown else len(system)
        return Conversation([*system, *shown, *own], tools, request.where, number, given)

    def _text(self, request: Request) -> str:
        delimiter = self.task.delimiter
        before = [] if self.style.turns else prompt_parts(self.template, request.demos, delimiter)
        return "".join(before) + fill(self.template, request.example)

    def _shown(self, demos: tuple[Example, ...]) -> list[Message]:
        """Return demonstrations as turns, without their system messages."""
        found = []
        for demo in demos:
            if self._is_conversation:
                found += [*forms.read_conversation(demo).messages, forms.read_turn(demo)]
            else:
                found += [_say(USER, fill(self.template, demo)), _say(ASSISTANT, demo["output"])]
        return [each for each in found if each["role"] != SYSTEM]

    def _answer(self, request: Request, answer: str) -> Message:
        """Return the turn of an answer; of a conversation's own it may hold more than text."""
        if self._is_conversation and answer == request.example["output"]:
            return forms.read_turn(request.example)
        return _say(ASSISTANT, answer.strip())  # a completion begins with the space before it


@functools.lru_cache(maxsize=8)
def _turn_end(template: str, variables: str) -> str:
    """Find what a template writes after an answer; `variables` as JSON."""
    chat = ChatTemplate(template, json.loads(variables))
    one, other = (
        chat.render([_say(USER, "a"), _say(ASSISTANT, answer)], False) for answer in ("b", "c")
    )
    pairs = zip(reversed(one), reversed(other), strict=False)
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    return one[len(one) - alike :]


def turn_end(template: ChatTemplate) -> str:
    """Find what a chat template writes after an answer of the assistant.

    Raises:
      ChatError: it refuses a question with an answer.
    """
    return _turn_end(template.template, json.dumps(template.variables))


def end_ids(template: ChatTemplate, tokenizer: ChatEncoder) -> frozenset[int]:
    """Find the special tokens that end a turn of the assistant; none where the template has none.

    A model that was trained on chats says them, whatever its end of sequence is.
    """
    try:
        (ids,) = tokenizer.encode_rendered([turn_end(template)])
    except ChatError:
        return frozenset()
    return tokenizer.control_ids.intersection(ids.tolist())


def _continued(asked: np.ndarray, wholes: list[np.ndarray]) -> list[TokenSequence]:
    start = min(shared_length(asked, whole) for whole in wholes)
    return [TokenSequence(whole, start) for whole in wholes]


def _say(role: str, content: str) -> Message:
    return {"role": role, "content": content}

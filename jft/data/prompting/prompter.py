"""The prompter: sequences of requests that fit a limit, shortened where they have to be."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import unicodedata
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from jft import config as config_lib
from jft.data.prompting import seams
from jft.data.prompting.chat_prompts import ChatStyle, ChatWriter
from jft.data.prompting.chat_template import ChatTemplate
from jft.data.prompting.conversations import ChatEncoder
from jft.data.prompting.prompts import Encoded, PlainWriter, Request, TextWriter, Writer
from jft.data.prompting.seams import Encoder
from jft.errors import UserError
from jft.tasks import CONVERSATION, PLAIN_TEXT, TEXT, Example, Task

# An input is shortened between words. In a run of more characters without white space than this,
# such as Chinese text, any character may be the last.
LONGEST_WORD = 32
# Arguments of `render_jinja_template` that are no variables.
OWN = (
    *("messages", "conversations", "tools", "chat_template", "add_generation_prompt"),
    *("return_assistant_tokens_mask", "continue_final_message"),
)
# Values of a template's variables as Python spells them.
SPELLED = {"True": True, "False": False, "None": None}


class PromptEncoder(Encoder, ChatEncoder, Protocol):
    """The part of a tokenizer that prompts of any kind need."""

    @property
    def chat_template(self) -> str | None:
        """The model's chat template, in Jinja; None where it has none."""
        ...

    def sha256(self) -> str:
        """Hash everything that the ids of a text depend on."""
        ...

    @property
    def special_spellings(self) -> dict[str, str]:
        """The special tokens that a chat template may name, such as `bos_token`."""
        ...


class Prompter(NamedTuple):
    """The maker of sequences for the requests of one task.

    Attributes:
      writer: makes them, however long they are.
      task: names the fields that may be shortened.
      max_length: the longest sequence allowed, in tokens, the end of sequence included.
    """

    writer: Writer
    task: Task
    max_length: int

    def encode(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every request.

        Of an input that is too long the end is left out, never of the answer. A request that does
        not fit even so has no sequences.

        Raises:
          UserError: a prompt is empty, so that nothing would predict the answer.
        """
        result = self.writer.write(requests)
        for request, encoded in zip(requests, result, strict=True):
            if not encoded.sequences:
                raise UserError(
                    f"{request.where}: nothing stands before the answer; add text to the prompt"
                )
        long = [i for i, encoded in enumerate(result) if encoded.whole > self.max_length]
        if not self.task.texts:  # nothing may be shortened: turns that do not fit are left out
            for i in long:
                result[i] = self._only_what_fits(result[i])
            return result
        for i, shorter in zip(long, self._shorten([requests[i] for i in long]), strict=True):
            result[i] = shorter._replace(whole=result[i].whole)
        return result

    def _shorten(self, requests: list[Request]) -> list[Encoded]:
        """Bisect over the characters that the texts of each request keep, all requests in step.

        Texts longer than a limit lose their end, so that of two the longer one is cut first, and
        then both.

        Requests that are too long even with an empty input get no sequences.
        """
        ends = [_text_ends(self.task, request.example) for request in requests]
        limits = [sorted(set().union(*of_texts.values())) for of_texts in ends]
        low, high = [0] * len(requests), [len(each) - 1 for each in limits]

        def cut(places: Iterable[int]) -> list[Encoded]:
            each = zip(requests, ends, limits, places, strict=True)
            return self.writer.write(
                [
                    request._replace(example=_keep(request.example, of_texts, sizes[place]))
                    for request, of_texts, sizes, place in each
                ]
            )

        empty = cut(low)
        best = [each if self._fits(each) else each._replace(sequences=[]) for each in empty]
        while any(lo + 1 < hi for lo, hi in zip(low, high, strict=True)):
            middle = [(lo + hi) // 2 for lo, hi in zip(low, high, strict=True)]
            for i, each in enumerate(cut(middle)):
                if self._fits(each):
                    low[i], best[i] = middle[i], each
                else:
                    high[i] = middle[i]
        return [each._replace(least=of.whole) for each, of in zip(best, empty, strict=True)]

    def _only_what_fits(self, encoded: Encoded) -> Encoded:
        kept = [each for each in encoded.sequences if len(each.tokens) <= self.max_length]
        least = min(len(each.tokens) for each in encoded.sequences)
        return encoded._replace(sequences=kept, least=least)

    def _fits(self, encoded: Encoded) -> bool:
        return encoded.fits and encoded.whole <= self.max_length


def make_prompter(
    data: config_lib.Data,
    tokenizer: PromptEncoder,
    task: Task,
    template: str,
    chat: bool,
    max_length: int,
    eos: bool,
) -> Prompter:
    """Make the prompter that a config asks for.

    Args:
      data: of the config.
      tokenizer: the model's.
      task: of the requests.
      template: of its prompts.
      chat: whether they go through the model's chat template, from `is_chat`.
      max_length: the longest sequence allowed, in tokens.
      eos: whether an answer is predicted to its end, as in training.

    Raises:
      UserError: a chat is asked for that the model, or the config, does not allow.
    """
    if task == PLAIN_TEXT:
        return Prompter(PlainWriter(tokenizer, max_length), task, max_length)
    if not chat:
        apart = seams.is_apart(data.answer_tokens, tokenizer, task, template)
        demo_loss = data.demo_loss and eos  # nothing but training learns
        return text_prompter(tokenizer, task, template, max_length, eos, apart, demo_loss)
    style = chat_style(data, tokenizer)._replace(demo_loss=data.demo_loss and eos)
    if task == CONVERSATION and not style.turns:
        raise UserError("data.demo_style=text: demonstrations of conversations are turns")
    return Prompter(ChatWriter(tokenizer, style, task, template, eos), task, max_length)


def is_chat(setting: str, task: Task) -> bool:
    """Decide whether prompts of a task go through a chat template.

    Conversations always do, and texts to read never.

    Args:
      setting: `data.chat`, or `eval.chat`.
      task: of the prompts.
    """
    return task == CONVERSATION or (setting == "chat" and task.kind != TEXT)


def chat_style(data: config_lib.Data, tokenizer: PromptEncoder) -> ChatStyle:
    """Read from a config how chats are made.

    Raises:
      UserError: the model has no chat template, or variables that are not written as such.
    """
    turns = data.demo_style == "turns"
    return ChatStyle(template_of(data, tokenizer), data.system, turns, data.loss, data.demo_loss)


def template_of(data: config_lib.Data, tokenizer: PromptEncoder) -> ChatTemplate:
    """Return the chat template of a model with the variables of a config.

    Raises:
      UserError: the model has none, or variables that are not written as such.
    """
    if tokenizer.chat_template is None:
        raise UserError(
            "data.chat_template is empty, and the model has no chat template of its own, which "
            "chats need; give a file with one, or use an instruction-tuned model"
        )
    variables = tokenizer.special_spellings | chat_variables(data.chat_variables)
    return ChatTemplate(tokenizer.chat_template, variables)


def chat_variables(values: Iterable[str]) -> dict[str, Any]:
    """Read variables written name=value, the value in Python's or JSON's spelling, or text.

    Raises:
      UserError: one is not written so, or is one of the messages' own.
    """
    found = {}
    for each in values:
        name, sign, value = each.partition("=")
        if not sign or not name.isidentifier() or name in OWN:
            raise UserError(
                f"data.chat_variables={each}: is written name=value, such as enable_thinking=False"
            )
        found[name] = SPELLED.get(value, value)
        with contextlib.suppress(ValueError, RecursionError):
            found[name] = found[name] if value in SPELLED else json.loads(value)
    return found


def text_prompter(
    tokenizer: Encoder,
    task: Task,
    template: str,
    max_length: int,
    eos: bool,
    apart: bool = False,
    demo_loss: bool = False,
) -> Prompter:
    """Make the prompter of plain text; see `TextWriter`."""
    writer = TextWriter(tokenizer, template, eos, apart, demo_loss, task.delimiter)
    return Prompter(writer, task, max_length)


def encode_labels(prompter: Prompter, requests: list[Request]) -> list[Encoded]:
    """Make the sequences of requests that have several answers, so that each can be the likeliest.

    What begins a text is never less likely than the text. Where the tokens of an answer begin those
    of another, all are predicted with the end of sequence after them.

    Raises:
      UserError: the tokenizer makes the same tokens of two answers.
    """
    encoded = prompter.encode(requests)
    refuse_alike(requests, encoded)
    for each in encoded:
        answers = sorted(s.tokens[s.start :].tolist() for s in each.sequences)
        if any(longer[: len(one)] == one for one, longer in itertools.pairwise(answers)):
            return encode_labels(prompter._replace(writer=prompter.writer.to_the_end()), requests)
    return encoded


def refuse_alike(requests: list[Request], encoded: list[Encoded]) -> None:
    """Check that the answers of a request can be told apart.

    Raises:
      UserError: the tokenizer makes the same tokens of two of them.
    """
    for request, each in zip(requests, encoded, strict=True):
        known: dict[bytes, str] = {}
        for sequence, answer in zip(each.sequences, request.answers, strict=False):
            other = known.setdefault(sequence.tokens.tobytes(), answer)
            if other is not answer:
                raise UserError(
                    f"{request.where}: the tokenizer makes the same tokens of {other!r} and "
                    f"{answer!r}; rename one (in data.labels, or among the choices)"
                )


def _text_ends(task: Task, example: Example) -> dict[str, list[int]]:
    """List the numbers of characters that each text of an example may be cut to, by its field."""
    return {name: _ends(example[name]) for name in task.texts}


def _ends(text: str) -> list[int]:
    """Count the characters up to the end of each word, 0 first; of a single word, up to each."""
    ends, begin = [0], 0
    for i in range(1, len(text) + 1):
        if i < len(text) and (text[i].isspace() <= text[i - 1].isspace()):
            continue
        if i - begin > LONGEST_WORD:
            # No letter loses an accent that is a character of its own.
            ends += [j for j in range(begin + 1, i) if not unicodedata.combining(text[j])]
        ends.append(i)
        begin = i
    return ends if len(ends) > 2 else list(range(len(text) + 1))


def _keep(example: Example, ends: dict[str, list[int]], limit: int) -> Example:
    """Cut the texts of an example to the most characters allowed that are at most `limit`."""
    kept = {name: each[bisect.bisect_right(each, limit) - 1] for name, each in ends.items()}
    return example | {name: example[name][:end] for name, end in kept.items()}

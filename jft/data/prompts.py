"""Prompts: examples as token sequences, made here alone, for training and for evaluation.

A prompt is the demonstrations, each with its output and a blank line, and then the example in the
task's template. With the template `Text: {input}\nSentiment:` and one demonstration:

    Text: so good          demonstration
    Sentiment:positive     with its output
                           blank line
    Text: a bad one        example
    Sentiment:             then the answer, such as `negative`

Whole texts are tokenized, never pieces: byte-level BPE merges across the seams.
"""

from __future__ import annotations

import string
from typing import NamedTuple, Protocol

import numpy as np

from jft.data.prefix_tree import TokenSequence, longest, shared_length
from jft.errors import UserError
from jft.tasks import Example, Task


class Encoder(Protocol):
    """The part of a tokenizer that prompts need."""

    eos_id: int

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Return the token ids of each text, with the tokenizer's own prefix."""
        ...


class Request(NamedTuple):
    """One prompt and the answers to predict after it.

    Attributes:
      example: the fields of the task; its output is not looked at.
      demos: the demonstrations, with their outputs.
      answers: the example's output in training; every label in scoring; one empty text for
        generation.
      where: the name of the example in errors, such as `paws_train_2000.json row 7`.
    """

    example: Example
    demos: tuple[Example, ...]
    answers: tuple[str, ...]
    where: str


class Encoded(NamedTuple):
    """The sequences of a request.

    Attributes:
      sequences: prompt and answer, for each answer.
      whole: the length of the longest of them before the input was shortened, in tokens.
    """

    sequences: list[TokenSequence]
    whole: int

    @property
    def length(self) -> int:
        """The length of the longest sequence, in tokens."""
        return longest(self.sequences)

    @property
    def shortened(self) -> bool:
        """True where the input lost its end."""
        return self.length < self.whole


def fill(template: str, example: Example) -> str:
    """Fill the fields of an example into a template."""
    return template.format_map(example)


def context(template: str, demos: tuple[Example, ...]) -> str:
    """Return the text of demonstrations, which is the beginning of a prompt."""
    return "".join(fill(template, demo) + demo["output"] + "\n\n" for demo in demos)


class Prompter(NamedTuple):
    """The maker of sequences for the requests of one task.

    Attributes:
      tokenizer: the model's.
      task: names the fields that may be shortened.
      template: an entry of `prompt_map.json`.
      max_length: the longest sequence allowed, in tokens, the end of sequence included.
      eos: whether the end of sequence is predicted after the answer, as in training.
      key: the config key of `max_length`, for messages.
    """

    tokenizer: Encoder
    task: Task
    template: str
    max_length: int
    eos: bool
    key: str = "data.max_length"

    def encode(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every request; an input too long loses its end, never the answer.

        Raises:
          UserError: a request is too long even with an empty input.
        """
        result = [Encoded(each, longest(each)) for each in self._sequences(requests)]
        long = [i for i, encoded in enumerate(result) if encoded.whole > self.max_length]
        shorter = self._shorten([requests[i] for i in long])
        for i, sequences in zip(long, shorter, strict=True):
            result[i] = result[i]._replace(sequences=sequences)
        return result

    def _sequences(self, requests: list[Request]) -> list[list[TokenSequence]]:
        """Tokenize the prompts and the prompts with each answer, all in one call."""
        prompts = self._prompts(requests)
        fulls = [p + a for p, each in zip(prompts, requests, strict=True) for a in each.answers]
        ids = iter(self.tokenizer.encode(prompts + fulls))
        prompt_ids = [next(ids) for _ in requests]
        return [
            [self._sequence(prompt, next(ids), request) for _ in request.answers]
            for prompt, request in zip(prompt_ids, requests, strict=True)
        ]

    def _prompts(self, requests: list[Request]) -> list[str]:
        contexts: dict[int, str] = {}  # requests that share demonstrations share the tuple
        prompts = []
        for request in requests:
            if id(request.demos) not in contexts:
                contexts[id(request.demos)] = context(self.template, request.demos)
            prompts.append(contexts[id(request.demos)] + fill(self.template, request.example))
        return prompts

    def _sequence(self, prompt: np.ndarray, full: np.ndarray, request: Request) -> TokenSequence:
        # Where the tokenizer merges the prompt's end with the answer's beginning, the merged token
        # is part of the answer: it is the first that the prompt does not determine.
        start = shared_length(prompt, full)
        if start == 0:
            raise UserError(
                f"{request.where}: nothing stands before the answer; add text to the prompt"
            )
        if self.eos:
            full = np.append(full, np.int32(self.tokenizer.eos_id))
        return TokenSequence(full, start)

    def _fits(self, sequences: list[TokenSequence]) -> bool:
        return longest(sequences) <= self.max_length

    def _shorten(self, requests: list[Request]) -> list[list[TokenSequence]]:
        """Bisect over the words that each input keeps, all requests in step."""
        words = [_word_ends(self.task, request.example) for request in requests]
        low, high = [0] * len(requests), [len(ends) - 1 for ends in words]
        best = self._without_input(requests)
        while any(lo + 1 < hi for lo, hi in zip(low, high, strict=True)):
            middle = [(lo + hi) // 2 for lo, hi in zip(low, high, strict=True)]
            ends = [each[n] for each, n in zip(words, middle, strict=True)]
            for i, sequences in enumerate(self._cut(requests, ends)):
                if self._fits(sequences):
                    low[i], best[i] = middle[i], sequences
                else:
                    high[i] = middle[i]
        return best

    def _cut(self, requests: list[Request], ends: list[int]) -> list[list[TokenSequence]]:
        """Make the sequences with the longest text of each example cut to `ends` characters."""
        pairs = zip(requests, ends, strict=True)
        return self._sequences(
            [each._replace(example=_keep(self.task, each.example, end)) for each, end in pairs]
        )

    def _without_input(self, requests: list[Request]) -> list[list[TokenSequence]]:
        result = self._cut(requests, [0] * len(requests))
        for request, sequences in zip(requests, result, strict=True):
            if not self._fits(sequences):
                raise UserError(
                    f"{request.where}: {longest(sequences)} tokens even with an empty input, but "
                    f"{self.key}={self.max_length}; raise it or use fewer shots"
                )
        return result


def template_fields(template: str, where: str) -> tuple[str, ...]:
    """List the fields that a template asks for.

    Raises:
      UserError: it is malformed, or holds more than names of fields in braces.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"{where}: not a valid template: {error}") from None
    for name, form, conversion in parts:
        if form or conversion or not str(name).isidentifier():
            raise UserError(f"{where}: {{{name}}} must be the name of a field, and nothing else")
    return tuple(dict.fromkeys(str(name) for name, _, _ in parts))


def check_template(template: str, task: Task, where: str) -> None:
    """Check that a template uses the task's fields and no others.

    Raises:
      UserError: names the field that is unknown or missing.
    """
    used = template_fields(template, where)
    unknown = [name for name in used if name not in task.fields]
    if unknown:
        raise UserError(
            f"{where}: template field {{{unknown[0]}}} is not one of task {task.name}: "
            f"{', '.join(task.fields)}"
        )
    missing = [name for name in task.texts if name not in used]
    if missing:
        raise UserError(f"{where}: the template lacks {{{missing[0]}}} of task {task.name}")


def _longest_field(task: Task, example: Example) -> str:
    return max(task.texts, key=lambda name: len(example[name]))


def _word_ends(task: Task, example: Example) -> list[int]:
    """Count the characters of the longest input up to the end of each word, 0 first."""
    text = example[_longest_field(task, example)]
    ends = [i for i in range(1, len(text)) if text[i].isspace() and not text[i - 1].isspace()]
    # A text without spaces is cut between characters.
    return [0, *ends, len(text)] if ends else list(range(len(text) + 1))


def _keep(task: Task, example: Example, characters: int) -> Example:
    name = _longest_field(task, example)
    return example | {name: example[name][:characters]}

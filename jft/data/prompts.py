"""Prompts: examples as token sequences, made here alone, for training and for evaluation.

A prompt is the demonstrations, each with its output and a blank line, and then the example in the
task's template. With the template `Text: {input}\nSentiment:` and one demonstration:

    Text: so good          demonstration
    Sentiment:positive     with its output
                           blank line
    Text: a bad one        example
    Sentiment:             then the answer, such as `negative`

Whole texts are tokenized, since byte-level BPE merges across the seams, unless that gives labels
away; see `seams`.
"""

from __future__ import annotations

import bisect
import itertools
import string
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from jft.data import seams
from jft.data.prefix_tree import TokenSequence, longest, shared_length
from jft.data.seams import Encoder
from jft.errors import UserError
from jft.tasks import Example, Task

# An input is shortened between words. In a run of more characters without white space than this,
# such as Chinese text, any character may be the last.
LONGEST_WORD = 32


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
      sequences: prompt and answer, for each answer; none where they do not fit even with an empty
        input.
      whole: the length of the longest of them before the input was shortened, in tokens.
      least: the length of the longest with an empty input, where the input had to be shortened.
      example: the fields as they were asked, shortened where they had to be.
      reference: the prompt with the output after it, where that is read beside a generation.
      num_bytes: of the text that is read, as far as its tokens are predicted; each has an equal
        share. 0 where none is read.
      merged: the tokens at the end of the prompt that are targets, since the tokenizer merges them
        with the beginning of an answer.
    """

    sequences: list[TokenSequence]
    whole: int
    least: int = 0
    example: Example | None = None
    reference: TokenSequence | None = None
    num_bytes: float = 0.0
    merged: int = 0

    @property
    def packed(self) -> list[TokenSequence]:
        """All sequences that rows hold: those of the request, and then the reference."""
        return self.sequences if self.reference is None else [*self.sequences, self.reference]

    @property
    def fits(self) -> bool:
        """True unless the request is too long to be used at all."""
        return bool(self.sequences)

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


def prompt_parts(template: str, demos: tuple[Example, ...]) -> list[str]:
    """Return the text of demonstrations, which is the beginning of a prompt, split at its seams.

    Each part but the first begins with the output of a demonstration, and the last is to be
    continued: of no demonstrations it is empty.
    """
    ends = ["", *(demo["output"] + "\n\n" for demo in demos)]
    begins = [*(fill(template, demo) for demo in demos), ""]
    return [end + begin for end, begin in zip(ends, begins, strict=True)]


class Prompter(NamedTuple):
    """The maker of sequences for the requests of one task.

    Attributes:
      tokenizer: the model's.
      task: names the fields that may be shortened.
      template: an entry of `prompt_map.json`.
      max_length: the longest sequence allowed, in tokens, the end of sequence included.
      eos: whether the end of sequence is predicted after the answer, as in training.
      apart: whether no token spans a prompt and its answer, in demonstrations, too.
    """

    tokenizer: Encoder
    task: Task
    template: str
    max_length: int
    eos: bool
    apart: bool = False

    def encode(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every request.

        Of an input that is too long the end is left out, never of the answer. A request that does
        not fit even so has no sequences.

        Raises:
          UserError: a prompt is empty, so that nothing would predict the answer.
        """
        result = self._encode_as_given(requests)
        for request, encoded in zip(requests, result, strict=True):
            if not encoded.sequences:
                raise UserError(
                    f"{request.where}: nothing stands before the answer; add text to the prompt"
                )
        long = [i for i, encoded in enumerate(result) if encoded.whole > self.max_length]
        for i, shorter in zip(long, self._shorten([requests[i] for i in long]), strict=True):
            result[i] = shorter._replace(whole=result[i].whole)
        return result

    def _encode_as_given(self, requests: list[Request]) -> list[Encoded]:
        """Tokenize the prompts and the prompts with each answer, all in one call, whole."""
        texts = []
        for prompt, request in zip(self._prompts(requests), requests, strict=True):
            texts += [prompt, *((*prompt, answer) for answer in request.answers)]
        ids = iter(seams.tokenize(self.tokenizer, texts, self.apart))
        return [
            self._of_request(request, next(ids), [next(ids) for _ in request.answers])
            for request in requests
        ]

    def _prompts(self, requests: list[Request]) -> list[tuple[str, ...]]:
        """Make the parts of each prompt."""
        before: dict[int, list[str]] = {}  # requests that share demonstrations share the tuple
        prompts = []
        for request in requests:
            if id(request.demos) not in before:
                before[id(request.demos)] = prompt_parts(self.template, request.demos)
            *parts, last = before[id(request.demos)]
            prompts.append((*parts, last + fill(self.template, request.example)))
        return prompts

    def _of_request(self, request: Request, prompt: np.ndarray, fulls: list[np.ndarray]) -> Encoded:
        """Make the sequences of a request from the ids of its prompt, alone and with each answer.

        There are none where the prompt is empty, since nothing would predict the answer.

        Where the tokenizer merges the prompt's end with an answer's beginning, the merged token is
        part of the answer: it is the first that the prompt does not determine. Then the prompt's
        last tokens belong to the other answers, too: all answers of a request are the continuation
        of one text.
        """
        start = min(shared_length(prompt, full) for full in fulls)
        if not start:
            fulls = []
        if self.eos:
            fulls = [np.append(full, np.int32(self.tokenizer.eos_id)) for full in fulls]
        sequences = [TokenSequence(full, start) for full in fulls]
        whole = longest(sequences) if sequences else 0
        return Encoded(sequences, whole, 0, request.example, merged=len(prompt) - start)

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
            return self._encode_as_given(
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

    def _fits(self, encoded: Encoded) -> bool:
        return encoded.fits and encoded.whole <= self.max_length


def make_prompter(
    setting: str, tokenizer: Encoder, task: Task, template: str, max_length: int, eos: bool
) -> Prompter:
    """Make a prompter; `setting` is `data.answer_tokens`, which decides about the seams."""
    apart = seams.is_apart(setting, tokenizer, task, template)
    return Prompter(tokenizer, task, template, max_length, eos, apart)


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
            return encode_labels(prompter._replace(eos=True), requests)
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


def task_fields(template: str, where: str) -> tuple[str, ...]:
    """List the fields of a task that its template describes.

    Raises:
      UserError: the template is malformed, has no field, or holds the answer.
    """
    fields = template_fields(template, where)
    if not fields or "output" in fields:
        why = "{output} is the answer, which a prompt must not hold" if fields else "has no {field}"
        raise UserError(f"{where}: {why}; name the inputs, such as {{input}}")
    return fields


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

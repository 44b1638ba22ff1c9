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

from typing import NamedTuple, Protocol

import numpy as np

from jft.data.prefix_tree import TokenSequence, longest, shared_length
from jft.data.prompting import seams
from jft.data.prompting.seams import Encoder
from jft.tasks import Example


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
      shown: the beginnings of the prompt whose ends are predicted, too: the outputs of its
        demonstrations, with `data.demo_loss`.
    """

    sequences: list[TokenSequence]
    whole: int
    least: int = 0
    example: Example | None = None
    reference: TokenSequence | None = None
    num_bytes: float = 0.0
    merged: int = 0
    shown: tuple[TokenSequence, ...] = ()

    @property
    def packed(self) -> list[TokenSequence]:
        """All sequences that rows hold: the request's, its reference, its demonstrations'."""
        if self.reference is None and not self.shown:
            return self.sequences
        reference = [] if self.reference is None else [self.reference]
        return [*self.sequences, *reference, *self.shown]

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


def prompt_parts(template: str, demos: tuple[Example, ...], delimiter: str = "") -> list[str]:
    """Return the text of demonstrations, which is the beginning of a prompt, split at its seams.

    Each part but the first begins with the output of a demonstration, and the last is to be
    continued: of no demonstrations it is empty.
    """
    ends = ["", *(delimiter + demo["output"] + "\n\n" for demo in demos)]
    begins = [*(fill(template, demo) for demo in demos), ""]
    return [end + begin for end, begin in zip(ends, begins, strict=True)]


class Writer(Protocol):
    """The way in which requests become token sequences: as plain text, or as a chat."""

    def write(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every request, however long they are."""
        ...

    def to_the_end(self) -> Writer:
        """Return the same way with the end of sequence predicted after every answer."""
        ...

    def settings(self) -> str:
        """Describe all that the sequences depend on besides the tokenizer."""
        ...


class TextWriter(NamedTuple):
    """Prompts in plain text.

    Attributes:
      tokenizer: the model's.
      template: an entry of `prompt_map.json`.
      eos: whether the end of sequence is predicted after the answer, as in training.
      apart: whether no token spans a prompt and its answer, in demonstrations, too.
      demo_loss: whether the outputs of demonstrations are predicted, too.
      delimiter: stands before every answer.
    """

    tokenizer: Encoder
    template: str
    eos: bool
    apart: bool = False
    demo_loss: bool = False
    delimiter: str = ""

    def settings(self) -> str:
        """Describe all that the sequences depend on besides the tokenizer."""
        return repr(("text", *self[1:]))

    def to_the_end(self) -> TextWriter:
        """Return the same way with the end of sequence predicted after every answer."""
        return self._replace(eos=True)

    def write(self, requests: list[Request]) -> list[Encoded]:
        """Tokenize the prompts, and the prompts with each answer, all in one call."""
        texts = []
        for prompt, request in zip(self._prompts(requests), requests, strict=True):
            texts += [prompt, *((*prompt, self._after(each)) for each in request.answers)]
        ids = iter(seams.tokenize(self.tokenizer, texts, self.apart))
        shown = self._shown(requests) if self.demo_loss else {}
        return [
            self._of_request(request, next(ids), [next(ids) for _ in request.answers])._replace(
                shown=shown.get(id(request.demos), ())
            )
            for request in requests
        ]

    def _after(self, answer: str) -> str:
        """Return what follows the prompt; nothing where the answer is to be generated."""
        return self.delimiter + answer if answer else ""

    def _shown(self, requests: list[Request]) -> dict[int, tuple[TokenSequence, ...]]:
        """Make the sequences that predict the outputs of demonstrations, by the id of their tuple.

        What follows an output, the blank line, is no target: after an answer the end of sequence
        is to come.
        """
        distinct = {id(request.demos): request.demos for request in requests if request.demos}
        texts = []
        for demos in distinct.values():
            parts = prompt_parts(self.template, demos, self.delimiter)
            texts.append(tuple(parts))
            for k, demo in enumerate(demos, 1):
                texts += [tuple(parts[:k]), (*parts[:k], self._after(demo["output"]))]
        ids = iter(seams.tokenize(self.tokenizer, texts, self.apart))
        found = {}
        for key, demos in distinct.items():
            whole = next(ids)
            ends = [
                (shared_length(next(ids), whole), shared_length(next(ids), whole)) for _ in demos
            ]
            found[key] = tuple(
                TokenSequence(whole[:end], start) for start, end in ends if 0 < start < end
            )
        return found

    def _prompts(self, requests: list[Request]) -> list[tuple[str, ...]]:
        """Make the parts of each prompt."""
        before: dict[int, list[str]] = {}  # requests that share demonstrations share the tuple
        prompts = []
        for request in requests:
            if id(request.demos) not in before:
                before[id(request.demos)] = prompt_parts(
                    self.template, request.demos, self.delimiter
                )
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


class PlainWriter(NamedTuple):
    """Texts to learn from their first token, or second, to the end of sequence.

    What stands before all texts, such as BOS, predicts the first; without it nothing does.

    Attributes:
      tokenizer: the model's.
      max_length: a longer text becomes several sequences.
    """

    tokenizer: Encoder
    max_length: int

    def settings(self) -> str:
        """Describe all that the sequences depend on besides the tokenizer."""
        return repr(("whole texts", *self[1:]))

    def to_the_end(self) -> PlainWriter:
        """Return the same way, which is to the end already."""
        return self

    def write(self, requests: list[Request]) -> list[Encoded]:
        """Make the sequences of every text, of at least two tokens each."""
        found = []
        texts = [request.answers[0] for request in requests]
        for request, ids in zip(requests, self.tokenizer.encode(texts), strict=True):
            whole = np.append(ids, np.int32(self.tokenizer.eos_id))
            size = self.max_length  # the last token of a part is the first of the next one
            starts = range(0, max(1, len(whole) - 1), size - 1)
            parts = [whole[begin : begin + size] for begin in starts]
            sequences = [TokenSequence(part, 1) for part in parts if len(part) > 1]
            found.append(Encoded(sequences, longest(sequences), 0, request.example))
        return found

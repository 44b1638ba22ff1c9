"""The distinct items of a run: examples with the demonstrations that are drawn for them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from jft import config as config_lib
from jft.data import prefix_tree
from jft.data.mixture import ExampleId
from jft.data.prefix_tree import TokenSequence
from jft.data.prompting import token_cache
from jft.data.prompting.encoded_store import EncodedBlock, EncodedStore
from jft.data.prompting.prompter import PromptEncoder, Prompter, is_chat, make_prompter
from jft.data.prompting.prompts import Request
from jft.data.rows.datasets import Dataset, Suite
from jft.errors import UserError
from jft.runtime.progress import Ticker
from jft.tasks import Example

# Tokens of the rows whose examples draw their demonstrations together, if `data.row_length` is 0: a
# constant, so that the draw does not depend on the devices.
GROUP_TOKENS = 4096

# An example, and the demonstrations drawn for it, by their indices.
Draw = tuple[ExampleId, tuple[int, ...]]


class TrainingSet(NamedTuple):
    """A training set, and how its examples become sequences.

    Attributes:
      dataset: the examples.
      template: of its prompts.
      demos: those to draw from.
      prompter: makes the sequences.
      tokenizer: that the prompter uses.
    """

    dataset: Dataset
    template: str
    demos: list[Example]
    prompter: Prompter
    tokenizer: PromptEncoder

    @classmethod
    def of(cls, source: Suite, dataset: Dataset, tokenizer: PromptEncoder) -> TrainingSet:
        """Find the template and the demonstrations of a set.

        Raises:
          UserError: there are none, or the model has no chat template for conversations.
        """
        task, data = dataset.task, source.data
        demos = source.demos(task, source.demos_of(dataset), data.shots)
        template, chat = source.template(task, data.prompt), is_chat(data.chat, task)
        prompter = make_prompter(data, tokenizer, task, template, chat, data.max_length, eos=True)
        return cls(dataset, template, demos, prompter, tokenizer)

    def request(self, i: int, demos: tuple[Example, ...], answers: tuple[str, ...] = ()) -> Request:
        """Make the request of an example: its output after demonstrations, or other answers."""
        example = self.dataset.examples[i]
        return Request(example, demos, answers or (example["output"],), self.dataset.where(i))


class DrawnItems:
    """The distinct items of a run.

    Attributes:
      encoded: the sequences of each item.
      examples: the example of each item.
      order: the items in the order in which they were drawn.
    """

    def __init__(self, sets: Sequence[TrainingSet], data: config_lib.Data):
        """Begin without any item; `data` is of the config."""
        self.sets, self.data = sets, data
        self.encoded = EncodedStore()
        self.examples: list[ExampleId] = []
        self.order: list[int] = []
        self._demo_inputs = [[s.dataset.task.inputs(demo) for demo in s.demos] for s in sets]
        self._items: dict[Draw, int] = {}

    def draw(self, steps: Sequence[Sequence[ExampleId]]) -> list[list[int]]:
        """Draw demonstrations for the examples of every step; returns the items of every step.

        In the mode `per_row` these are the fixed ones, which `redraw_per_row` replaces.
        """
        if self.data.demo_mode == "per_example" and self.data.shots:
            draws = [
                [(each, self._random([each], step, place)) for place, each in enumerate(examples)]
                for step, examples in enumerate(steps)
            ]
        else:
            draws = [[(each, self._first(each)) for each in examples] for examples in steps]
        return self._encode(draws)

    def redraw_per_row(self, steps: list[list[int]]) -> list[list[int]]:
        """Draw demonstrations anew, the same for all examples that would share a row on one device.

        These are of one set. Other demonstrations may be longer, so that they may need two rows in
        the end.
        """
        draws: list[list[Draw]] = []
        for step, items in enumerate(steps):
            sequences = self._sequences(items)
            length = self.data.row_length or max(GROUP_TOKENS, prefix_tree.longest(sequences))
            draws.append([])
            for group, places in enumerate(prefix_tree.pack(sequences, length)):
                of_set: dict[int, list[ExampleId]] = defaultdict(list)
                for place in places:
                    of_set[self.examples[items[place]][0]].append(self.examples[items[place]])
                for examples in of_set.values():
                    drawn = self._random(examples, step, group)
                    draws[-1] += [(each, drawn) for each in examples]
        return self._encode(draws)

    def fits(self, steps: list[list[int]]) -> bool:
        """Check whether all items of the steps fit."""
        return all(self.encoded[i].fits for items in steps for i in items)

    def unfit(self) -> dict[ExampleId, int]:
        """Find the examples of items that do not fit, and their lengths with an empty input."""
        pairs = zip(self.examples, self.encoded, strict=True)
        return {example: encoded.least for example, encoded in pairs if not encoded.fits}

    def where(self, item: int) -> str:
        """Name the example of an item in errors."""
        number, i = self.examples[item]
        return self.sets[number].dataset.where(i)

    def _sequences(self, items: list[int]) -> list[TokenSequence]:
        return [max(self.encoded[i].sequences, key=_length) for i in items]

    def _encode(self, draws: list[list[Draw]]) -> list[list[int]]:
        """Encode the draws of every step that are new; returns the items of every step."""
        distinct = dict.fromkeys(draw for step in draws for draw in step)
        new = [draw for draw in distinct if draw not in self._items]
        ticker = Ticker(f"{{n}} of {len(new):,} examples tokenized")
        for number, of in enumerate(self.sets):
            # In the order of the set, so that blocks do not depend on that of the run.
            of_set = sorted(draw for draw in new if draw[0][0] == number)
            blocks = [
                of_set[i : i + token_cache.BLOCK] for i in range(0, len(of_set), token_cache.BLOCK)
            ]
            for some, block in zip(blocks, _encode_blocks(of, blocks), strict=True):
                for draw in some:
                    self._items[draw] = len(self.examples)
                    self.examples.append(draw[0])
                self.encoded.append(block)
                ticker.show(len(self.examples))
        self.order += [self._items[draw] for draw in new]
        return [[self._items[draw] for draw in step] for step in draws]

    def _first(self, example: ExampleId) -> tuple[int, ...]:
        return tuple(self._allowed([example])[: self.data.shots])

    def _random(self, examples: Sequence[ExampleId], *seed: int) -> tuple[int, ...]:
        rng = np.random.default_rng([self.data.seed, 1, *seed])
        return tuple(int(d) for d in rng.permutation(self._allowed(examples))[: self.data.shots])

    def _allowed(self, examples: Sequence[ExampleId]) -> list[int]:
        """Find the demonstrations that are none of some examples of a set, its own least of all."""
        if not self.data.shots:
            return []
        number = examples[0][0]
        dataset, inputs = self.sets[number].dataset, self._demo_inputs[number]
        own = {dataset.task.inputs(dataset.examples[i]) for _, i in examples}
        allowed = [d for d, demo in enumerate(inputs) if demo not in own]
        if len(allowed) < self.data.shots:
            raise UserError(
                f"data.shots={self.data.shots}: {dataset.where(examples[0][1])} is among its "
                f"{len(inputs)} demonstrations, which leaves {len(allowed)}"
            )
        return allowed


def _encode_blocks(of: TrainingSet, blocks: Sequence[Sequence[Draw]]) -> Iterator[EncodedBlock]:
    """Encode blocks of draws of a set, two at a time: one is written while one is tokenized."""

    def encode(draws: Sequence[Draw]) -> EncodedBlock:
        # Requests with the same demonstrations share one tuple, whose text is made once.
        shown = {demos: tuple(of.demos[d] for d in demos) for _, demos in draws}
        requests = [of.request(i, shown[demos]) for (_, i), demos in draws]
        return token_cache.encode(of.prompter, of.tokenizer, requests)

    with ThreadPoolExecutor(2) as pool:
        begun: deque[Future[EncodedBlock]] = deque()
        for block in blocks:
            begun.append(pool.submit(encode, block))
            if len(begun) > 2:  # at most three are in memory
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _length(sequence: TokenSequence) -> int:
    return len(sequence.tokens)

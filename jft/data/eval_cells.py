"""The cells of an evaluation as token sequences, which a model scores, continues or reads."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from jft import config as config_lib
from jft.data import checks, length_checks, prefix_tree
from jft.data.eval_grid import Cell
from jft.data.length_checks import LengthLimit
from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompter import (
    PromptEncoder,
    Prompter,
    encode_labels,
    make_prompter,
    refuse_alike,
    text_prompter,
)
from jft.data.prompting.prompts import Encoded, Request
from jft.data.rows.datasets import Dataset
from jft.errors import UserError
from jft.runtime.progress import say
from jft.tasks import CHOICE, GENERATED, GENERATION, LABELS, RETENTION_TASKS, TEXT, answers_of

# Characters around an estimate that are tried for where a token ends.
NEAR = 24
# The least limit of sequences of the retention panel, in tokens.
RETENTION_LENGTH = 512


@dataclass(frozen=True, slots=True)
class EncodedCell:
    """The items of one cell as token sequences.

    An item has one sequence for each label or choice; a text to read is one. Where texts are
    generated, it has its prompt, to be continued, and a second sequence if there is a reference:
    the prompt with that after it.

    Attributes:
      cell: how the items are asked.
      encoded: the items.
      indices: their indices in the dataset.
      skipped: the number of examples left out: their output is not one of the labels, or they do
        not fit `max_length` even with an empty input.
      unfit: the indices of the latter.
      row_length: of the rows that hold it; 0: chosen from the lengths.
      counts: its tokens in trees of its own, where what is shared stands once.
    """

    cell: Cell
    encoded: list[Encoded]
    indices: list[int]
    skipped: int
    unfit: list[int]
    row_length: int
    counts: prefix_tree.Counts


def max_length(config: config_lib.Config) -> tuple[str, int]:
    """Return the limit of prompts with their answers, in tokens, after its config key."""
    if config.eval.max_length:
        return "eval.max_length", config.eval.max_length
    return "data.max_length", config.data.max_length


def encode_cell(cell: Cell, tokenizer: PromptEncoder, config: config_lib.Config) -> EncodedCell:
    """Encode the first `eval.limit` examples of a cell.

    Raises:
      UserError: more than a few examples without a label of the task or too long, or a row length
        too short.
    """
    dataset = cell.dataset.first(config.eval.limit)
    indices = checks.labelled(dataset)
    key, limit = max_length(config)
    row_length = config.data.row_length
    if dataset.task.name in RETENTION_TASKS:  # limits are chosen for the user's own rows
        limit, row_length = max(limit, RETENTION_LENGTH), 0
    tried = _encode(cell, dataset, indices, tokenizer, config, limit)
    unfit = {i: each.least for i, each in zip(indices, tried, strict=True) if not each.fits}
    length_checks.refuse_unfit(dataset, unfit, len(indices), LengthLimit(cell.shots, limit, key))
    encoded = [each for each in tried if each.fits]
    indices = [i for i, each in zip(indices, tried, strict=True) if each.fits]
    sequences = [sequence for each in encoded for sequence in each.packed]
    longest = prefix_tree.longest(sequences)
    if row_length and row_length < longest:
        raise UserError(
            f"data.row_length={row_length}: an item of {dataset.name} has {longest} tokens; give "
            "at least that, or 0"
        )
    return EncodedCell(
        cell=cell,
        encoded=encoded,
        indices=indices,
        skipped=len(dataset.examples) - len(indices),
        unfit=list(unfit),
        row_length=row_length,
        counts=prefix_tree.count([[sequences[i] for i in prefix_tree.order(sequences)]]),
    )


def generates(cell: Cell) -> bool:
    """Check whether texts are generated for the items of a cell."""
    return cell.dataset.task.kind in GENERATED


def _encode(
    cell: Cell,
    dataset: Dataset,
    indices: list[int],
    tokenizer: PromptEncoder,
    config: config_lib.Config,
    limit: int,
) -> list[Encoded]:
    """Make the sequences of a cell's items, as the kind of its task wants them."""
    task = dataset.task
    if task.kind == TEXT:
        return _whole_texts(dataset, indices, tokenizer, limit)
    if task.name in RETENTION_TASKS and not cell.chat:  # it is asked as other harnesses ask it
        prompter = text_prompter(tokenizer, task, cell.template, limit, eos=False)
    else:
        data, template = config.data, cell.template
        prompter = make_prompter(data, tokenizer, task, template, cell.chat, limit, eos=False)
    asked = [(dataset.examples[i], dataset.where(i)) for i in indices]
    requests = [
        Request(example, cell.demos, answers_of(task, example) or ("",), where)
        for example, where in asked
    ]
    if task.kind == LABELS:
        return encode_labels(prompter, requests)
    encoded = prompter.encode(requests)
    if task.kind == CHOICE:
        refuse_alike(requests, encoded)
    if task.kind == GENERATION:
        return _add_references(prompter, tokenizer, requests, encoded, config)
    return encoded


def _add_references(
    prompter: Prompter,
    tokenizer: PromptEncoder,
    requests: list[Request],
    encoded: list[Encoded],
    config: config_lib.Config,
) -> list[Encoded]:
    """Add to each prompt its reference: a sequence with the output, as far as generations go.

    It shares the prompt, so that only the output's tokens are computed besides. There are none
    where `data.row_length` is too short for one of them: scores must not depend on it.
    """
    most, row_length = config.eval.max_new_tokens, config.data.row_length
    fit = [i for i, each in enumerate(encoded) if each.fits]
    wanted = [
        requests[i]._replace(
            example=encoded[i].example or requests[i].example,
            answers=(requests[i].example["output"],),
        )
        for i in fit
    ]
    found = list(encoded)
    unlimited = prompter._replace(max_length=sys.maxsize)
    alone = tokenizer.encode([request.answers[0] for request in wanted])
    for i, request, ids, each in zip(fit, wanted, alone, unlimited.encode(wanted), strict=True):
        ((tokens, start),) = each.sequences
        kept = TokenSequence(tokens[: start + most], start)
        if row_length and len(kept.tokens) > row_length:
            say(
                f"note: {request.where}: data.row_length={row_length} has no room for its prompt "
                "with its reference; bits of the reference are left out"
            )
            return encoded
        dropped = len(tokens) - len(kept.tokens)
        size = max(1, _bytes_of(tokenizer, request.answers[0], ids, len(ids) - dropped))
        found[i] = encoded[i]._replace(reference=kept, num_bytes=size)
    return found


def _whole_texts(
    dataset: Dataset, indices: list[int], tokenizer: PromptEncoder, limit: int
) -> list[Encoded]:
    """Make sequences of texts that are predicted from their first token, or second, to the limit.

    What stands before all texts, such as BOS, predicts the first; without it nothing does.

    Raises:
      UserError: a text with too few tokens for any to be predicted.
    """
    texts = [dataset.examples[i]["output"] for i in indices]
    start, found = max(1, len(tokenizer.encode([""])[0])), []
    for i, text, tokens in zip(indices, texts, tokenizer.encode(texts), strict=True):
        if len(tokens) <= start:
            raise UserError(f"{dataset.where(i)}: {text!r:.80} has no token to predict; remove it")
        ends = [_bytes_of(tokenizer, text, tokens, place) for place in (start, limit)]
        kept = TokenSequence(tokens[:limit], start)
        found.append(Encoded([kept], len(tokens), num_bytes=max(1, ends[1] - ends[0])))
    return found


def _bytes_of(tokenizer: PromptEncoder, text: str, tokens: np.ndarray, number: int) -> int:
    """Count the bytes of a text that its first `number` tokens stand for.

    That is the longest beginning of the text that has these tokens; where a character is split
    between tokens, the last that has no more.
    """
    prefix = len(tokenizer.encode([""])[0])
    if number <= prefix:
        return 0
    if number >= len(tokens):
        return len(text.encode())
    low, high = 0, len(text)
    while low + 1 < high:
        middle = (low + high) // 2
        (ids,) = tokenizer.encode([text[:middle]])
        low, high = (middle, high) if len(ids) <= number else (low, middle)
    near = range(max(0, low - NEAR), min(len(text), low + NEAR) + 1)
    same = [
        end
        for end, ids in zip(near, tokenizer.encode([text[:end] for end in near]), strict=True)
        if np.array_equal(ids, tokens[:number])
    ]
    return len(text[: max(same, default=low)].encode())

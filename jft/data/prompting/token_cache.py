"""A cache of encoded requests, so that the same rows are tokenized once on a machine.

A block of requests is kept under a hash of all that its tokens depend on: the rows, the
demonstrations, the way they are written, the tokenizer, and the versions of what renders and
tokenizes. Small sets make no whole block, and are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np

from jft.data.prefix_tree import TokenSequence
from jft.data.prompting.prompter import PromptEncoder, Prompter
from jft.data.prompting.prompts import Encoded, Request

# Requests of a block.
BLOCK = 4096
# The bytes that the cache may take; the blocks that were used longest ago are removed.
LIMIT = 4 << 30
# Changes with what is written.
VERSION = 1
UNREADABLE = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile)


def encode(prompter: Prompter, tokenizer: PromptEncoder, requests: list[Request]) -> list[Encoded]:
    """Encode at most `BLOCK` requests, or read what was made of them before.

    Args:
      prompter: makes the sequences.
      tokenizer: that the prompter uses.
      requests: what comes back has `example=None`.
    """
    if len(requests) < BLOCK:
        return prompter.encode(requests)
    file = folder() / f"{_key(prompter, tokenizer, requests)}.npz"
    with contextlib.suppress(*UNREADABLE):
        found = _read(file)
        os.utime(file)
        return found
    encoded = prompter.encode(requests)
    with contextlib.suppress(OSError):  # a cache that cannot be written is no error
        _write(file, encoded)
    return encoded


def folder() -> Path:
    """Return the folder of the cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jft" / "tokens"


def _key(prompter: Prompter, tokenizer: PromptEncoder, requests: list[Request]) -> str:
    facts = [
        *(VERSION, *map(metadata.version, ("transformers", "tokenizers", "jinja2"))),
        *(tokenizer.sha256(), prompter.writer.settings(), repr(prompter.task)),
        prompter.max_length,
    ]
    digest = hashlib.sha256(json.dumps(facts).encode())
    demos: dict[int, str] = {}  # requests share their tuples
    for example, shown, answers, _ in requests:
        if id(shown) not in demos:
            demos[id(shown)] = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
        digest.update(json.dumps([example, demos[id(shown)], answers]).encode())
    return digest.hexdigest()[:32]


def _write(file: Path, encoded: list[Encoded]) -> None:
    sequences = [sequence for each in encoded for sequence in each.packed]
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}.new")
    with new.open("wb") as opened:
        np.savez(
            opened,
            tokens=np.concatenate([np.zeros(0, np.int32), *(s.tokens for s in sequences)]),
            sequences=np.array([(len(s.tokens), s.start) for s in sequences], np.int32),
            requests=np.array(
                [(len(e.sequences), len(e.shown), e.whole, e.least, e.merged) for e in encoded],
                np.int32,
            ),
        )
    new.replace(file)
    _make_room(file.parent)


def _read(file: Path) -> list[Encoded]:
    with file.open("rb") as opened, np.load(opened) as arrays:
        tokens, sequences, requests = (arrays[n] for n in ("tokens", "sequences", "requests"))
    ends = np.cumsum(sequences[:, 0])
    made = [
        TokenSequence(tokens[end - length : end], int(start))
        for (length, start), end in zip(sequences, ends, strict=True)
    ]
    found, first = [], 0
    for own, shown, whole, least, merged in requests.tolist():
        last = first + own + shown
        mine, demos = made[first : first + own], tuple(made[first + own : last])
        found.append(Encoded(mine, whole, least, merged=merged, shown=demos))
        first = last
    return found


def _make_room(cache: Path) -> None:
    """Remove the blocks that were used longest ago, as far as the cache is too large."""
    files: list[tuple[float, int, Path]] = []
    for each in cache.glob("*.npz"):
        stat = each.stat()
        files.append((stat.st_mtime, stat.st_size, each))
    room: float = LIMIT
    for _, size, each in sorted(files, reverse=True):
        room -= size
        if room < 0:
            each.unlink(missing_ok=True)

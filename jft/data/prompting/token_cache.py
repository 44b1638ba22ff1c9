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
import threading
from importlib import metadata
from pathlib import Path

from jft.data.prompting.encoded_store import EncodedBlock
from jft.data.prompting.prompter import PromptEncoder, Prompter
from jft.data.prompting.prompts import Request

# Requests of a block.
BLOCK = 4096
# The bytes that the cache may take; the blocks that were used longest ago are removed.
LIMIT = 4 << 30
# Changes with what is written.
VERSION = 2


def encode(prompter: Prompter, tokenizer: PromptEncoder, requests: list[Request]) -> EncodedBlock:
    """Encode at most `BLOCK` requests, or read what was made of them before.

    Args:
      prompter: makes the sequences.
      tokenizer: that the prompter uses.
      requests: what comes back has no examples.
    """
    if len(requests) < BLOCK:
        return EncodedBlock.of(prompter.encode(requests))
    file = folder() / f"{_key(prompter, tokenizer, requests)}.npz"
    # Of a damaged archive NumPy raises whatever its parts do; it is made again then.
    with contextlib.suppress(Exception), file.open("rb") as opened:
        found = EncodedBlock.load(opened)
        os.utime(file)
        return found
    block = EncodedBlock.of(prompter.encode(requests))
    with contextlib.suppress(OSError):  # a cache that cannot be written is no error
        _write(file, block)
    return block


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


def _write(file: Path, block: EncodedBlock) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
    try:
        with new.open("wb") as opened:
            block.save(opened)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    _make_room(file.parent)


def _make_room(cache: Path) -> None:
    """Remove the blocks that were used longest ago, as far as the cache is too large."""
    files: list[tuple[float, int, Path]] = []
    for each in (*cache.glob("*.npz"), *cache.glob("*.new")):  # those of a run that was killed
        stat = each.stat()
        files.append((stat.st_mtime, stat.st_size, each))
    room: float = LIMIT
    for _, size, each in sorted(files, reverse=True):
        room -= size
        if room < 0:
            each.unlink(missing_ok=True)

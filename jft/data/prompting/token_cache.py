"""A cache of encoded requests, so that the same rows are tokenized once on a machine.

A block of requests is kept under a hash of all that its tokens depend on: the rows, the
demonstrations, the way they are written, the tokenizer, and the versions of what renders and
tokenizes. Small sets make no whole block, and are not kept.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata

from jft.data.prompting.encoded_store import EncodedBlock
from jft.data.prompting.prompter import PromptEncoder, Prompter
from jft.data.prompting.prompts import Request
from jft.runtime.file_cache import FileCache

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
    cache, key = FileCache("tokens", LIMIT), _key(prompter, tokenizer, requests)
    if found := cache.read(key, EncodedBlock.load):
        return found
    block = EncodedBlock.of(prompter.encode(requests))
    cache.write(key, block.save)
    return block


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

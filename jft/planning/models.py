"""The model that is planned for: its shape without weights, and its tokenizer or a stand-in."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from jft.checkpoints import hf_config, model_ref
from jft.checkpoints.files import read_json
from jft.data.prompts import Encoder
from jft.errors import UserError
from jft.model.decoder import DecoderConfig
from jft.runtime.progress import say

PREFIX = "shape:"
# Names after the prefix; each is a config.json in `shapes/` without rope scaling, which changes no
# shape.
SHAPES = ("llama-2-7b", "llama-2-13b", "llama-3.2-1b", "llama-3.1-8b", "smollm2-135m")


def decoder_config(path: str) -> DecoderConfig:
    """Find the decoder of `model.path`, of which no weights are needed, or one of `SHAPES`.

    Raises:
      UserError: there is no such model.
    """
    if path.startswith(PREFIX):
        name = path.removeprefix(PREFIX)
        if name not in SHAPES:
            raise UserError(f"model.path={path}: there are {', '.join(SHAPES)}")
        file = Path(__file__).parent / "shapes" / f"{name}.json"
        return hf_config.from_json(read_json(file), file)
    return model_ref.resolve(path).decoder


def tokenizer(path: str, vocab_size: int) -> Encoder:
    """Load the tokenizer of `model.path`, or `Words` where it has none."""
    if not path.startswith(PREFIX):
        try:
            return model_ref.resolve(path).tokenizer()
        except UserError as error:
            say(f"note: no tokenizer ({error}); tokens are counted by words")
    return Words(vocab_size)


class Words:
    """A stand-in for a tokenizer, which gives about as many tokens.

    Every four letters of a word, or what is left of it, are a token, and so is every other sign:

        The house.  ->  The| hous|e|.
    """

    eos_id = 2

    def __init__(self, vocab_size: int):
        self._vocab_size = vocab_size

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts by hashes of their pieces: texts that begin alike have ids that do."""
        return [np.array([1, *map(self._id, self._pieces(text))], np.int32) for text in texts]

    def _pieces(self, text: str) -> list[str]:
        return re.findall(r" ?\w{1,4}|[^\w ]| ", text)

    def _id(self, piece: str) -> int:
        return 3 + zlib.crc32(piece.encode()) % (self._vocab_size - 3)

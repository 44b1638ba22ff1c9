"""What is planned for: a model by its shape alone, and a tokenizer, or what stands for one."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from jft.checkpoints import hf_config, model_ref, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.files import locate, read_model_json
from jft.data.prompts import Encoder
from jft.errors import UserError
from jft.model.decoder import DecoderConfig
from jft.runtime.progress import say

PREFIX = "shape:"
SHAPES = {
    "llama-2-7b": DecoderConfig(
        vocab_size=32000,
        embed_dim=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        mlp_dim=11008,
        tied_head=False,
        max_positions=4096,
    ),
    "llama-2-13b": DecoderConfig(
        vocab_size=32000,
        embed_dim=5120,
        num_layers=40,
        num_heads=40,
        num_kv_heads=40,
        head_dim=128,
        mlp_dim=13824,
        tied_head=False,
        max_positions=4096,
    ),
    "llama-3.2-1b": DecoderConfig(
        vocab_size=128256,
        embed_dim=2048,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        mlp_dim=8192,
        rope_theta=500000.0,
        max_positions=131072,
    ),
    "llama-3.1-8b": DecoderConfig(
        vocab_size=128256,
        embed_dim=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        mlp_dim=14336,
        tied_head=False,
        rope_theta=500000.0,
        max_positions=131072,
    ),
    "smollm2-135m": DecoderConfig(
        vocab_size=49152,
        embed_dim=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        mlp_dim=1536,
        rope_theta=100000.0,
        max_positions=8192,
    ),
}


def shape(path: str) -> DecoderConfig:
    """The decoder of `model.path`, of which no weights are needed; or one of `SHAPES`.

    Raises:
      UserError: there is no such model.
    """
    if path.startswith(PREFIX):
        name = path.removeprefix(PREFIX)
        if name not in SHAPES:
            raise UserError(f"model.path={path}: there are {', '.join(SHAPES)}")
        return SHAPES[name]
    origin = model_ref.find(path)
    if origin.run:
        return model_ref.read_model(Path(origin.path)).decoder
    if model_ref.has_adapters(origin):
        return shape(model_ref.base_of(origin).path)
    if path.startswith("random:") or path.endswith(".gguf"):
        return safetensors_io.find(path).config
    file = locate(path, (safetensors_io.CONFIG,)) / safetensors_io.CONFIG
    return hf_config.read(read_model_json(file), file)


def tokenizer(path: str, vocab_size: int) -> Encoder:
    """The model's, or what counts about as many tokens where there is none."""
    if not path.startswith(PREFIX):
        try:
            return tokenizer_lib.load(model_ref.tokenizer_path(path))
        except UserError as error:
            say(f"note: no tokenizer ({error}); tokens are counted by words")
    return Words(vocab_size)


class Words:
    """Stands for a tokenizer: words are a token for each four letters begun, marks one each."""

    eos_id = 2

    def __init__(self, vocab_size: int):
        self._vocab_size = vocab_size

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids by hash, so that what begins alike has ids that begin alike."""
        return [np.array([1, *map(self._id, self._pieces(text))], np.int32) for text in texts]

    def _pieces(self, text: str) -> list[str]:
        return re.findall(r" ?\w{1,4}|[^\w ]| ", text)

    def _id(self, piece: str) -> int:
        return 3 + zlib.crc32(piece.encode()) % (self._vocab_size - 3)

"""GGUF, the format of llama.cpp: metadata, and parameters dequantized to float32.

The file is read here, within its bounds; the `gguf` package, whose reader takes seconds and trusts
every count, undoes the quantization.

    magic, version, number of tensors, number of keys
    keys                  name, type, value: a number, a text, or an array of these
    tensors               name, dimensions (innermost first), type, offset in the data
    data                  begins at a multiple of `general.alignment`
"""

from __future__ import annotations

import functools
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jft.checkpoints import tensor_names
from jft.checkpoints.files import locate
from jft.checkpoints.tensor_names import Pretrained, Source
from jft.errors import UserError, library_errors, naming
from jft.model.decoder import DecoderConfig

# Tensors that are no parameters: rotary tables, which the config holds as `rope_factors`.
TABLES = ("rope_freqs.weight", "attn_rot_embd.weight")
# Types of metadata by their number (ggml/include/gguf.h).
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
VERSIONS = (2, 3)
# Bytes of the shortest key with its value.
SHORTEST_KEY = 13
ALIGNMENT = 32


class Tensor(NamedTuple):
    """A tensor in a file.

    Attributes:
      shape: outermost dimension first.
      kind: its type, as `gguf.GGMLQuantizationType`.
      data: its bytes, [outer dimensions, bytes of a row], memory-mapped.
    """

    shape: tuple[int, ...]
    kind: Any
    data: np.ndarray


class GGUFFile(NamedTuple):
    """An open file: its metadata by key, and its tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


class _Cursor:
    """A place in the bytes of a file, which moves behind what is read."""

    def __init__(self, content: np.ndarray):
        self.content, self.at = content, 0

    def take(self, size: int) -> np.ndarray:
        """Read bytes.

        Raises:
          ValueError: the file ends before.
        """
        if size > len(self.content) - self.at:
            raise ValueError(f"{size} bytes are to follow byte {self.at}, where the file ends")
        self.at += size
        return self.content[self.at - size : self.at]

    def scalar(self, code: str) -> Any:
        """Read a number of a type of `struct`, little-endian."""
        [value] = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")).tobytes())
        return value

    def text(self) -> str:
        """Read a text after its length."""
        return self.take(self.scalar("Q")).tobytes().decode("utf-8")

    def value(self, kind: int) -> Any:
        """Read a value of metadata."""
        if kind == TEXT:
            return self.text()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner == TEXT:
            if count > (len(self.content) - self.at) // 8:
                raise ValueError(f"an array of {count} texts, for which the file is too short")
            return [self.text() for _ in range(count)]
        if inner == ARRAY:
            raise ValueError("an array of arrays, which no model has")
        code = SCALARS[inner]
        return np.frombuffer(self.take(count * struct.calcsize(f"<{code}")), f"<{code}").tolist()


# The weights and the tokenizer both need it.
@functools.lru_cache(maxsize=1)
def open_file(path: Path) -> GGUFFile:
    """Read a GGUF file's metadata, and find its tensors.

    Raises:
      UserError: it is not a whole GGUF file of a version that jft reads.
    """
    with naming(path), path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{path}: not a GGUF file: it does not begin with the bytes GGUF")
    try:
        found = _read(path)
    except (ValueError, KeyError, OverflowError, struct.error) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); copy or download it again"
        ) from None
    parts = found.metadata.get("split.count", 1)
    if not isinstance(parts, int) or parts > 1:
        raise UserError(f"{path}: one part of several; join them with llama-gguf-split --merge")
    return found


def _read(path: Path) -> GGUFFile:
    cursor = _Cursor(np.memmap(path, np.uint8, "r"))
    cursor.take(4)
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise ValueError(f"version {version}; jft reads 2 and 3, little-endian")
    num_tensors, num_keys = cursor.scalar("Q"), cursor.scalar("Q")
    if max(num_tensors, num_keys) > len(cursor.content) // SHORTEST_KEY:
        raise ValueError(f"{num_keys} keys and {num_tensors} tensors, for which it is too short")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key, kind = cursor.text(), cursor.scalar("I")
        if key in metadata:
            raise ValueError(f"the key {key} stands twice")
        metadata[key] = cursor.value(kind)
    headers = [_read_header(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment={alignment}")
    start = math.ceil(cursor.at / alignment) * alignment
    tensors = {header[0]: _find(cursor, start, *header) for header in headers}
    if len(tensors) < num_tensors:
        raise ValueError("a tensor stands twice")
    return GGUFFile(path, metadata, tensors)


def _read_header(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Read the name, the shape, the type and the offset of a tensor."""
    name, num_dims = cursor.text(), cursor.scalar("I")
    if num_dims > 8:
        raise ValueError(f"the tensor {name} has {num_dims} dimensions")
    dims = [cursor.scalar("Q") for _ in range(num_dims)]
    return name, tuple(reversed(dims)), cursor.scalar("I"), cursor.scalar("Q")


def _find(cursor: _Cursor, start: int, name: str, shape: tuple, kind: int, offset: int) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    *outer, inner = shape or (1,)
    if inner % block:
        raise ValueError(f"the tensor {name} has rows of {inner}, in blocks of {block}")
    row_bytes = inner // block * block_bytes
    cursor.at = start + offset
    data = cursor.take(math.prod(outer) * row_bytes)
    return Tensor(shape, GGMLQuantizationType(kind), data.reshape(*outer, row_bytes))


def open_weights(path: str) -> Pretrained:
    """Open the decoder in a GGUF file of architecture `llama`, with parameters as `LazyTensor`s.

    Raises:
      UserError: there is no such file, it is damaged or of another architecture, the `gguf` package
        cannot undo its quantization, or its tensors do not fit the metadata.
    """
    file = locate(path, ())
    if not file.is_file() or file.suffix != ".gguf":
        raise UserError(f"model.path={path}: neither a Hugging Face folder nor a .gguf file")
    opened = open_file(file)
    stored = opened.tensors
    with library_errors(f"{path}: damaged ({{error}}); convert the model again"):
        config = _config(opened.metadata, stored, path)
    shapes = {name: tensor.shape for name, tensor in stored.items() if not name.endswith(TABLES)}
    expected = tensor_names.expected_shapes(config, "gguf")
    # A file may lack single biases, such as that of the attention's output. The decoder has all of
    # them or none, so a missing one is read as zeros.
    zeros = {
        name: s for name, s in expected.items() if name.endswith(".bias") and name not in stored
    }

    @functools.lru_cache(maxsize=1)  # each device asks for its part of the same tensor
    def read_whole(name):
        if name in zeros:
            return np.zeros(zeros[name], np.float32)
        return _unpermute(config, name, _dequantize(name, stored[name], path))

    def read(name, index, dtype):
        return read_whole(name)[index].astype(dtype, copy=False)

    source = Source(path, shapes | zeros, read)
    return Pretrained(config, tensor_names.lazy_params(config, source, "gguf"))


def _config(metadata: dict[str, Any], stored: dict[str, Tensor], path: str) -> DecoderConfig:
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise UserError(f"{path}: general.architecture={kind!r}: jft supports llama only")
    if experts := metadata.get("llama.expert_count", 0):
        raise UserError(f"{path}: llama.expert_count={experts}: jft supports dense models only")
    for name in ("token_embd.weight", "blk.0.attn_q.weight"):
        if name not in stored:
            raise UserError(f"{path}: the tensor {name} is missing; the file is incomplete")
    size = functools.partial(_size, metadata, path)
    layers, embed_dim, heads = (
        size("block_count"),
        size("embedding_length"),
        size("attention.head_count"),
    )
    if layers > len(stored):
        raise UserError(
            f"{path}: llama.block_count={layers}, but the file holds {len(stored)} tensors in all"
        )
    rotated = size("rope.dimension_count", embed_dim // heads)
    head_dim = size("attention.key_length", rotated)
    if (rotated, size("attention.value_length", head_dim)) != (head_dim, head_dim):
        raise UserError(
            f"{path}: llama.rope.dimension_count, attention.key_length and attention.value_length "
            "differ: jft supports heads of one size, rotated whole"
        )
    if head_dim % 2:
        raise UserError(f"{path}: heads of {head_dim}: rotary embeddings need an even number")
    if (rows := stored["blk.0.attn_q.weight"].shape[0]) != heads * head_dim:
        raise UserError(
            f"{path}: the metadata asks for {heads} heads of {head_dim}, but blk.0.attn_q.weight "
            f"has {rows} rows"
        )
    rows, tokens = stored["token_embd.weight"].shape[0], metadata.get("tokenizer.ggml.tokens", ())
    if len(tokens) > rows:
        raise UserError(
            f"{path}: tokenizer.ggml.tokens holds {len(tokens)} tokens, but token_embd.weight has "
            f"{rows} rows; convert the model again"
        )
    return DecoderConfig(
        vocab_size=size("vocab_size", rows),
        embed_dim=embed_dim,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        mlp_dim=size("feed_forward_length"),
        norm_eps=_number(metadata, path, "attention.layer_norm_rms_epsilon"),
        rope_theta=_number(metadata, path, "rope.freq_base", 10000.0),
        rope_factors=_rope_factors(metadata, stored, head_dim, path),
        tied_head="output.weight" not in stored,
        attention_bias=any(name.endswith(".bias") and ".attn_" in name for name in stored),
        mlp_bias=any(name.endswith(".bias") and ".ffn_" in name for name in stored),
        max_positions=size("context_length"),
    )


def _rope_factors(
    metadata: dict[str, Any], stored: dict[str, Tensor], head_dim: int, path: str
) -> tuple[float, ...]:
    """Multiply linear scaling, from the metadata, with Llama 3's factors, stored as a tensor."""
    # As llama.cpp: a factor without a type is linear, and without a factor nothing is scaled.
    kind = metadata.get("llama.rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise UserError(f"{path}: llama.rope.scaling.type={kind!r}: jft supports none and linear")
    # Files from before scaling.type existed give the factor as scale_linear.
    before = _number(metadata, path, "rope.scale_linear", 0.0)
    factor = _number(metadata, path, "rope.scaling.factor", before)
    linear = factor if factor and kind == "linear" else 1.0
    if "rope_freqs.weight" not in stored:
        return () if linear == 1.0 else (linear,) * (head_dim // 2)
    factors = _dequantize("rope_freqs.weight", stored["rope_freqs.weight"], path)
    if factors.shape != (head_dim // 2,):
        raise UserError(
            f"{path}: the tensor rope_freqs.weight has the shape {factors.shape}, but the metadata "
            f"asks for {(head_dim // 2,)}"
        )
    return tuple((factors.astype(np.float64) * linear).tolist())


def _dequantize(name: str, tensor: Tensor, path: str) -> np.ndarray:
    from gguf import dequantize

    try:
        return dequantize(tensor.data, tensor.kind).reshape(tensor.shape)
    except NotImplementedError:
        raise UserError(
            f"{path}: the tensor {name} is of type {tensor.kind.name}, which the gguf package "
            "cannot turn into floats; use another quantization, such as Q8_0"
        ) from None


def _unpermute(config: DecoderConfig, name: str, tensor: np.ndarray) -> np.ndarray:
    """Undo llama.cpp's order of the rows of queries and keys.

    Its rotary embedding rotates neighbouring rows of a head as a pair; the decoder's, like that of
    Transformers, a row of the first half and the row at the same place of the second. So the
    converter interleaves the halves of each head (`LlamaModel.permute` in llama.cpp's
    convert_hf_to_gguf.py). With heads of 6 rows:

        Transformers  0 1 2 3 4 5
        GGUF          0 3 1 4 2 5
    """
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    # [N, H / 2, 2, ...], where the third axis says which half of the head a row is from.
    pairs = tensor.reshape(heads, config.head_dim // 2, 2, *tensor.shape[1:])
    return pairs.swapaxes(1, 2).reshape(tensor.shape)


def _number(metadata: dict[str, Any], path: str, key: str, default: float | None = None) -> float:
    value = metadata.get(f"llama.{key}", default)
    if value is None:
        raise UserError(f"{path}: the metadata key llama.{key} is missing; convert the model again")
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{path}: llama.{key}={value!r}: must be a number, 0 or more")
    return float(value)


def _size(metadata: dict[str, Any], path: str, key: str, default: int | None = None) -> int:
    value = metadata.get(f"llama.{key}", default)
    if value is None:
        raise UserError(f"{path}: the metadata key llama.{key} is missing; convert the model again")
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: llama.{key}={value!r}: jft supports one whole number above 0")
    return value

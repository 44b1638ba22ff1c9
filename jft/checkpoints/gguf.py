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
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jft.checkpoints import tensor_names
from jft.checkpoints.families import gguf_config
from jft.checkpoints.families import read as families
from jft.checkpoints.families.gguf_config import GgufModel
from jft.checkpoints.files import gguf_parts, locate
from jft.checkpoints.tensor_names import Pretrained, Source
from jft.errors import UserError, library_errors, naming
from jft.model.decoder import DecoderConfig

# Types of metadata by their number (ggml/include/gguf.h).
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
VERSIONS = (2, 3)
# Bytes of the shortest key with its value.
SHORTEST_KEY = 13
ALIGNMENT = 32
# Blocks of a quantized tensor that make one row, for the `gguf` package.
WIDE = 1024


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

    def __init__(self, content: mmap.mmap):
        self.content, self.at = content, 0

    def skip(self, size: int) -> int:
        """Move behind some bytes, and return where they begin.

        Raises:
          ValueError: the file ends before.
        """
        if size > len(self.content) - self.at:
            raise ValueError(f"{size} bytes are to follow byte {self.at}, where the file ends")
        self.at += size
        return self.at - size

    def scalar(self, code: str) -> Any:
        """Read a number of a type of `struct`, little-endian."""
        start = self.skip(struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{code}", self.content, start)[0]

    def text(self) -> str:
        """Read a text after its length."""
        start = self.skip(self.scalar("Q"))
        return self.content[start : self.at].decode("utf-8")

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
            return self._texts(count)
        if inner == ARRAY:
            raise ValueError("an array of arrays, which no model has")
        code = SCALARS[inner]
        start = self.skip(count * struct.calcsize(f"<{code}"))
        return np.frombuffer(self.content, f"<{code}", count, start).tolist()

    def _texts(self, count: int) -> list[str]:
        """Read texts: hundreds of thousands of them are a vocabulary, hence the plain loop."""
        content, at, texts = self.content, self.at, []
        length = struct.Struct("<Q").unpack_from
        for _ in range(count):
            end = at + 8 + length(content, at)[0]
            if end > len(content):
                raise ValueError(f"a text from byte {at} to {end}, past the end of the file")
            texts.append(content[at + 8 : end].decode("utf-8"))
            at = end
        self.at = at
        return texts


# The weights and the tokenizer both need it.
@functools.lru_cache(maxsize=1)
def open_file(path: Path) -> GGUFFile:
    """Read a GGUF file's metadata, and find its tensors; of a file in parts, those of all parts.

    Raises:
      UserError: it is not a whole GGUF file of a version that jft reads, or a part is missing.
    """
    parts = [_open_part(part) for part in gguf_parts(path)]
    tensors: dict[str, Tensor] = {}
    for number, part in enumerate(parts):
        said = part.metadata.get("split.count", 1), part.metadata.get("split.no", 0)
        if said != (len(parts), number):
            raise UserError(
                f"{part.path}: says that it is part {said[1]!r} of {said[0]!r}, counted from 0, "
                f"but its name that it is {number} of {len(parts)}; give it back its name"
            )
        if twice := tensors.keys() & part.tensors.keys():
            raise UserError(f"{part.path}: the tensor {min(twice)} is in another part, too")
        tensors |= part.tensors
    return GGUFFile(path, parts[0].metadata, tensors)


def _open_part(path: Path) -> GGUFFile:
    with naming(path), path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{path}: not a GGUF file: it does not begin with the bytes GGUF")
    try:
        return _read(path)
    except (ValueError, KeyError, OverflowError, struct.error) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); copy or download it again"
        ) from None


def _read(path: Path) -> GGUFFile:
    with path.open("rb") as file:
        cursor = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    cursor.skip(4)
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
    if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
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
    size = math.prod(outer) * row_bytes
    data = np.frombuffer(cursor.content, np.uint8, size, cursor.skip(size))
    return Tensor(shape, GGMLQuantizationType(kind), data.reshape(*outer, row_bytes))


def description(path: str) -> dict[str, Any]:
    """Make the config.json of the decoder in a GGUF file.

    Raises:
      UserError: there is no such file, or it is damaged or of a model that jft does not support.
    """
    model = _model(path)
    with library_errors(f"{path}: damaged ({{error}}); convert the model again"):
        return gguf_config.description(model)


def open_weights(path: str) -> Pretrained:
    """Open the decoder in a GGUF file, with parameters as `LazyTensor`s.

    Raises:
      UserError: there is no such file, it is damaged or of a model that jft does not support, the
        `gguf` package cannot undo its quantization, or its tensors do not fit the metadata.
    """
    model, raw = _model(path), description(path)
    family = families.family_of(raw, Path(path))
    config, tensors = families.decoder_config(raw, Path(path)), families.tensors(family)
    stored = open_file(_locate(path)).tensors
    shapes = {name: shape for name, shape in model.shapes.items() if name not in gguf_config.TABLES}
    expected = tensor_names.expected_shapes(config, tensors, "gguf")
    # A file may lack single biases, such as that of the attention's output. The decoder has all of
    # them or none, so a missing one is read as zeros.
    zeros = {
        name: s for name, s in expected.items() if name.endswith(".bias") and name not in stored
    }
    gguf = family.gguf
    assert gguf

    @functools.lru_cache(maxsize=1)  # each device asks for its part of the same tensor
    def read_whole(name):
        if name in zeros:
            return np.zeros(zeros[name], np.float32)
        tensor = model.read(name)
        if name.endswith("norm.weight") and config.norm_offset:
            return tensor - np.float32(config.norm_offset)  # which llama.cpp has added
        return _unpermute(config, name, tensor) if gguf.pairs else tensor

    def read(name, index, dtype):
        return read_whole(name)[index].astype(dtype, copy=False)

    source = Source(path, shapes | zeros, read)
    return Pretrained(config, tensor_names.lazy_params(config, source, tensors, "gguf"), raw)


def _locate(path: str) -> Path:
    file = locate(path, ())
    if not file.is_file() or file.suffix != ".gguf":
        raise UserError(f"model.path={path}: neither a Hugging Face folder nor a .gguf file")
    return file


def _model(path: str) -> GgufModel:
    opened = open_file(_locate(path))
    shapes = {name: tensor.shape for name, tensor in opened.tensors.items()}
    return GgufModel(
        path, opened.metadata, shapes, lambda name: _dequantize(name, opened.tensors[name], path)
    )


def _dequantize(name: str, tensor: Tensor, path: str) -> np.ndarray:
    from gguf import GGML_QUANT_SIZES, dequantize

    _, block_bytes = GGML_QUANT_SIZES[tensor.kind]
    blocks = tensor.data.reshape(-1, block_bytes)
    # The package takes 16 rows at a time, which are a few kilobytes: wide rows are far faster.
    even = len(blocks) // WIDE * WIDE
    parts = blocks[:even].reshape(-1, WIDE * block_bytes), blocks[even:]
    try:
        found = [dequantize(part, tensor.kind).ravel() for part in parts if len(part)]
        return (found[0] if len(found) == 1 else np.concatenate(found)).reshape(tensor.shape)
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

"""GGUF, the format of llama.cpp: metadata, and parameters dequantized to float32."""

from __future__ import annotations

import functools
import typing
from pathlib import Path

import numpy as np

from jft.checkpoints import tensor_names
from jft.checkpoints.files import locate
from jft.checkpoints.tensor_names import Pretrained, Source
from jft.errors import UserError
from jft.model.decoder import DecoderConfig

if typing.TYPE_CHECKING:
    from gguf import GGUFReader

# Tensors that are no parameters: rotary tables, which the config holds as `rope_factors`.
TABLES = ("rope_freqs.weight", "attn_rot_embd.weight")


# Reading the metadata takes seconds, and the weights and the tokenizer both need it.
@functools.lru_cache(maxsize=1)
def open_reader(path: Path) -> GGUFReader:
    """Open a GGUF file's metadata and tensors, memory-mapped.

    Raises:
      UserError: it is not a whole GGUF file of a version that the `gguf` package reads.
    """
    from gguf import GGUFReader

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"{path}: not a GGUF file: it does not begin with the bytes GGUF")
    try:
        reader = GGUFReader(path)
    # The reader checks no bounds: a file cut short shows as whatever numpy makes of missing bytes.
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: truncated or damaged ({error}); copy or download it again"
        ) from None
    if metadata(reader, "split.count", 1) > 1:
        raise UserError(f"{path}: one part of several; join them with llama-gguf-split --merge")
    return reader


def metadata(reader: GGUFReader, key: str, default=None):
    """Return a metadata value of a GGUF file; `default` where the key is absent."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


def open_weights(path: str) -> Pretrained:
    """Open the decoder in a GGUF file of architecture `llama`, with parameters as `LazyTensor`s.

    Raises:
      UserError: there is no such file, it is damaged or of another architecture, the `gguf` package
        cannot undo its quantization, or its tensors do not fit the metadata.
    """
    file = locate(path, ())
    if not file.is_file() or file.suffix != ".gguf":
        raise UserError(f"model.path={path}: neither a Hugging Face folder nor a .gguf file")
    reader = open_reader(file)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(reader, stored, path)
    shapes = {
        name: tuple(reversed(tensor.shape.tolist()))
        for name, tensor in stored.items()
        if not name.endswith(TABLES)
    }
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
        return _unpermute(config, name, _dequantize(stored[name], path))

    def read(name, index, dtype):
        return read_whole(name)[index].astype(dtype, copy=False)

    source = Source(path, shapes | zeros, read)
    return Pretrained(config, tensor_names.lazy_params(config, source, "gguf"))


def _config(reader: GGUFReader, stored: dict, path: str) -> DecoderConfig:
    kind = metadata(reader, "general.architecture")
    if kind != "llama":
        raise UserError(f"{path}: general.architecture={kind!r}: jft supports llama only")
    if experts := metadata(reader, "llama.expert_count", 0):
        raise UserError(f"{path}: llama.expert_count={experts}: jft supports dense models only")
    if "token_embd.weight" not in stored:
        raise UserError(f"{path}: the tensor token_embd.weight is missing; the file is incomplete")
    embed_dim, heads = (
        _size(reader, "embedding_length", path),
        _size(reader, "attention.head_count", path),
    )
    rotated = metadata(reader, "llama.rope.dimension_count", embed_dim // heads)
    head_dim = metadata(reader, "llama.attention.key_length", rotated)
    if (rotated, metadata(reader, "llama.attention.value_length", head_dim)) != (
        head_dim,
        head_dim,
    ):
        raise UserError(
            f"{path}: llama.rope.dimension_count, attention.key_length and attention.value_length "
            "differ: jft supports heads of one size, rotated whole"
        )
    return DecoderConfig(
        vocab_size=metadata(reader, "llama.vocab_size", int(stored["token_embd.weight"].shape[-1])),
        embed_dim=embed_dim,
        num_layers=_size(reader, "block_count", path),
        num_heads=heads,
        num_kv_heads=_size(reader, "attention.head_count_kv", path, heads),
        head_dim=head_dim,
        mlp_dim=_size(reader, "feed_forward_length", path),
        norm_eps=_required(reader, "attention.layer_norm_rms_epsilon", path),
        rope_theta=metadata(reader, "llama.rope.freq_base", 10000.0),
        rope_factors=_rope_factors(reader, stored, head_dim, path),
        tied_head="output.weight" not in stored,
        attention_bias=any(name.endswith(".bias") and ".attn_" in name for name in stored),
        mlp_bias=any(name.endswith(".bias") and ".ffn_" in name for name in stored),
        max_positions=_size(reader, "context_length", path),
    )


def _rope_factors(reader: GGUFReader, stored: dict, head_dim: int, path: str) -> tuple[float, ...]:
    """Multiply linear scaling, from the metadata, with Llama 3's factors, stored as a tensor."""
    kind = metadata(reader, "llama.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UserError(f"{path}: llama.rope.scaling.type={kind!r}: jft supports none and linear")
    # Files from before scaling.type existed give the factor as scale_linear.
    linear = float(metadata(reader, "llama.rope.scale_linear", 1.0))
    if kind == "linear":
        linear = float(_required(reader, "rope.scaling.factor", path))
    if "rope_freqs.weight" not in stored:
        return () if linear == 1.0 else (linear,) * (head_dim // 2)
    factors = _dequantize(stored["rope_freqs.weight"], path).astype(np.float64)
    if factors.shape != (head_dim // 2,):
        raise UserError(
            f"{path}: the tensor rope_freqs.weight has the shape {factors.shape}, but the metadata "
            f"asks for {(head_dim // 2,)}"
        )
    return tuple((factors * linear).tolist())


def _dequantize(tensor, path: str) -> np.ndarray:
    from gguf import dequantize

    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        raise UserError(
            f"{path}: the tensor {tensor.name} is of type {tensor.tensor_type.name}, which the "
            "gguf package cannot turn into floats; use another quantization, such as Q8_0"
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


def _required(reader: GGUFReader, key: str, path: str, default=None):
    value = metadata(reader, f"llama.{key}", default)
    if value is None:
        raise UserError(f"{path}: the metadata key llama.{key} is missing; convert the model again")
    return value


def _size(reader: GGUFReader, key: str, path: str, default: int | None = None) -> int:
    value = _required(reader, key, path, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{path}: llama.{key}={value!r}: jft supports one whole number above 0")
    return value

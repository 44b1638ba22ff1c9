"""The names and layouts under which other formats store the decoder's parameters.

One table, `TABLE`, serves reading and writing, Hugging Face and GGUF. It has one entry for each
parameter of the decoder. A family whose layers hold another tensor takes one more entry, under the
path that the parameter has in `decoder.py`. Qwen3, which normalizes the heads of queries and keys,
would take two; that of queries:

    "layers/attention/query_norm/scale": Stored(
        "model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight", "H"
    )

A model uses the entries of the parameters that its `DecoderConfig` gives it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from jft.errors import UserError
from jft.model import decoder, lora
from jft.model.decoder import DecoderConfig, Params

Index = tuple[slice, ...]
FLOAT32 = np.dtype("float32")


class Pretrained(NamedTuple):
    """A decoder in files: its shape, and its parameters as `LazyTensor`s or NumPy arrays."""

    config: DecoderConfig
    params: Params


class Stored(NamedTuple):
    """The names and the layout of one parameter in other formats.

    A group of letters in `layout` is one stored dimension. The kernel of the queries, [N, H, D] in
    the decoder, has the layout `NH D`: a matrix of N * H rows, head by head, and D columns. PyTorch
    and GGUF lay out a linear map from D to N * H like this, with its outputs first.

    Attributes:
      hf: name in a Hugging Face folder or, of an adapter, in PEFT's; `{}` stands for the layer.
      gguf: name in a GGUF file, likewise; empty where the format is not read.
      layout: the stored dimensions of one layer, in the letters of `jft.batch`.
    """

    hf: str
    gguf: str
    layout: str


class Source(NamedTuple):
    """A file or folder of named tensors.

    Attributes:
      label: its path, for messages.
      shapes: the shape of each tensor, by name.
      read: returns the part of a tensor that an index names, in a type.
    """

    label: str
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str, Index, np.dtype], np.ndarray]


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A parameter that is still in its file; indexing reads the part that is asked for.

    Attributes:
      config: the decoder's shape.
      dims: the letters of the parameter's dimensions.
      layout: the stored dimensions of one layer; see `Stored`.
      names: its stored tensors: one for each layer where it is stacked, else a single one.
      source: the files.
      dtype: the type of the parts that are read.
    """

    config: DecoderConfig
    dims: str
    layout: str
    names: tuple[str, ...]
    source: Source
    dtype: np.dtype = FLOAT32

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter, as `decoder.init` gives it."""
        return tuple(map(self.config.size, self.dims))

    def __getitem__(self, index: Index) -> np.ndarray:
        """Read a part, tensor by tensor."""
        bounds = [range(*part.indices(size)) for part, size in zip(index, self.shape, strict=True)]
        if not self.dims.startswith("L"):
            return self._read_tensor(self.names[0], self.dims, bounds)
        layers = (
            self._read_tensor(self.names[layer], self.dims[1:], bounds[1:]) for layer in bounds[0]
        )
        # A single layer is returned as a view, since stacking makes a copy.
        return next(layers)[None] if len(bounds[0]) == 1 else np.stack(list(layers))

    def astype(self, dtype: np.dtype, copy: bool = False) -> LazyTensor:
        """Return the same parameter in another type, still unread."""
        return dataclasses.replace(self, dtype=np.dtype(dtype))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Read the whole parameter."""
        return self.astype(dtype or self.dtype)[(slice(None),) * len(self.shape)]

    def _read_tensor(self, name: str, dims: str, bounds: list[range]) -> np.ndarray:
        """Read a part of one layer, and give it the decoder's dimensions.

        Only the first dimension of a group may be cut, since its parts are contiguous: heads 2 and
        3 of `NH` are the rows from 2 H to 4 H.
        """
        wanted = dict(zip(dims, bounds, strict=True))
        index = []
        for group in self.layout.split():
            first, inner = wanted[group[0]], math.prod(map(self.config.size, group[1:]))
            assert all(len(wanted[dim]) == self.config.size(dim) for dim in group[1:])
            index.append(slice(first.start * inner, first.stop * inner))
        stored = self.layout.replace(" ", "")
        tensor = self.source.read(name, tuple(index), self.dtype)
        # One axis for each letter of the layout, then the decoder's order of them.
        split = tensor.reshape([len(wanted[x]) for x in stored])
        return split.transpose([stored.index(dim) for dim in dims])


def _linear(path: str, hf: str, gguf: str, outputs: str, inputs: str) -> dict[str, Stored]:
    hf, gguf = f"model.layers.{{}}.{hf}", f"blk.{{}}.{gguf}"
    peft, adapter = f"base_model.model.{hf}.lora", f"layers/{path}/adapter"
    return {
        f"layers/{path}/kernel": Stored(f"{hf}.weight", f"{gguf}.weight", f"{outputs} {inputs}"),
        f"layers/{path}/bias": Stored(f"{hf}.bias", f"{gguf}.bias", outputs),
        # Adapters as PEFT stores them; jft does not read llama.cpp's.
        f"{adapter}/down": Stored(f"{peft}_A.weight", "", f"J {inputs}"),
        f"{adapter}/up": Stored(f"{peft}_B.weight", "", f"{outputs} J"),
        f"{adapter}/magnitude": Stored(f"{peft}_magnitude_vector", "", outputs),
    }


def _norm(path: str, hf: str, gguf: str) -> dict[str, Stored]:
    stored = Stored(f"model.layers.{{}}.{hf}.weight", f"blk.{{}}.{gguf}.weight", "D")
    return {f"layers/{path}/scale": stored}


TABLE = {
    "embed": Stored("model.embed_tokens.weight", "token_embd.weight", "V D"),
    "final_norm/scale": Stored("model.norm.weight", "output_norm.weight", "D"),
    "head/kernel": Stored("lm_head.weight", "output.weight", "V D"),
    **_norm("attention_norm", "input_layernorm", "attn_norm"),
    **_linear("attention/query", "self_attn.q_proj", "attn_q", "NH", "D"),
    **_linear("attention/key", "self_attn.k_proj", "attn_k", "KH", "D"),
    **_linear("attention/value", "self_attn.v_proj", "attn_v", "KH", "D"),
    **_linear("attention/out", "self_attn.o_proj", "attn_output", "D", "NH"),
    **_norm("mlp_norm", "post_attention_layernorm", "ffn_norm"),
    **_linear("mlp/gate", "mlp.gate_proj", "ffn_gate", "F", "D"),
    **_linear("mlp/up", "mlp.up_proj", "ffn_up", "F", "D"),
    **_linear("mlp/down", "mlp.down_proj", "ffn_down", "D", "F"),
}


def lazy_params(
    config: DecoderConfig, source: Source, dialect: str, adapters: bool = False
) -> Params:
    """Return the decoder's parameters as `LazyTensor`s.

    Args:
      config: the decoder's shape, against which every tensor is checked before any is read.
      source: the tensors.
      dialect: the format of their names, `hf` or `gguf`.
      adapters: return the adapters alone.

    Raises:
      UserError: a tensor is missing, is unknown, or has another shape than the config asks for.
    """
    if config.num_layers > len(source.shapes):
        raise UserError(
            f"{source.label}: is to have {config.num_layers} layers, but holds "
            f"{len(source.shapes)} tensors; copy or download it again"
        )
    _check(source, expected_shapes(config, dialect, adapters))

    def lazy(path, dims):
        stored = TABLE[_key(path)]
        layers = range(config.num_layers if dims[0] == "L" else 1)
        names = tuple(getattr(stored, dialect).format(layer) for layer in layers)
        return LazyTensor(config, dims, stored.layout, names, source)

    return jax.tree_util.tree_map_with_path(lazy, _dims(config, adapters))


def read_all(params: Params) -> Params:
    """Read all of the parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, params)


def dump_tensors(
    config: DecoderConfig, params: Params, dtype: np.dtype, dialect: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield stored names, and contiguous arrays of `dtype` in the stored layout."""
    dims_by_path = dict(_leaves(decoder.dims(config)))
    for key, array in _leaves(params):
        stored, dims = TABLE[key], dims_by_path[key]
        name = getattr(stored, dialect)
        layers = enumerate(array) if dims[0] == "L" else [("", array)]
        for layer, tensor in layers:
            tensor = np.asarray(tensor).astype(dtype, copy=False)
            packed = _pack(tensor, stored.layout, dims.removeprefix("L"))
            yield name.format(layer), np.ascontiguousarray(packed)


def expected_shapes(
    config: DecoderConfig, dialect: str, adapters: bool = False
) -> dict[str, tuple[int, ...]]:
    """Return the stored shape of every tensor that the decoder has, by stored name."""
    shapes = {}
    for key, dims in _leaves(_dims(config, adapters)):
        stored = TABLE[key]
        shape = tuple(_product(config, group) for group in stored.layout.split())
        for layer in range(config.num_layers if dims[0] == "L" else 1):
            shapes[getattr(stored, dialect).format(layer)] = shape
    return shapes


def _dims(config: DecoderConfig, adapters: bool) -> Params:
    dims = decoder.dims(config)
    return lora.split(dims)[0] if adapters else dims


def _check(source: Source, expected: dict[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in source.shapes]
    if missing:
        raise UserError(
            f"{source.label}: the tensor {_some(missing)} is missing; the file is incomplete, or "
            "its weights are not those that its config describes"
        )
    for name, shape in expected.items():
        if (found := tuple(source.shapes[name])) != shape:
            raise UserError(
                f"{source.label}: the tensor {name} has the shape {found}, but the config asks for "
                f"{shape}; weights and config must be of the same model"
            )
    unknown = [name for name in source.shapes if name not in expected]
    if unknown:
        raise UserError(
            f"{source.label}: the tensor {_some(unknown)} has no place in a Llama decoder of this "
            "config; jft does not leave weights out, so this model cannot be used"
        )


def _pack(tensor: np.ndarray, layout: str, dims: str) -> np.ndarray:
    """Reshape one layer of a parameter to its stored layout."""
    size = dict(zip(dims, tensor.shape, strict=True))
    ordered = tensor.transpose([dims.index(dim) for dim in layout.replace(" ", "")])
    return ordered.reshape([int(np.prod([size[x] for x in group])) for group in layout.split()])


def _product(config: DecoderConfig, dims: str) -> int:
    return int(np.prod([config.size(dim) for dim in dims]))


def _leaves(tree: Params) -> list:
    return [(_key(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _key(path) -> str:
    return "/".join(part.key for part in path)


def _some(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return names[0] + more

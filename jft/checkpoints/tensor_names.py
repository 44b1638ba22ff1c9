"""Parameters in other formats: read lazily from named tensors, and written as such.

`families/` says where each parameter is stored. A tensor may hold several of them, one after the
other, where a family fuses projections.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jft.checkpoints.families.family import Stored
from jft.errors import UserError
from jft.model import decoder, lora
from jft.model.decoder import DecoderConfig, Params

Index = tuple[slice, ...]
FLOAT32 = np.dtype("float32")


class Pretrained(NamedTuple):
    """A decoder in files.

    Attributes:
      config: its shape.
      params: its parameters, as `LazyTensor`s or NumPy arrays.
      description: the content of its config.json, or what that would be.
    """

    config: DecoderConfig
    params: Params
    description: dict[str, Any]


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
      stored: the layout of one layer.
      names: its stored tensors: one for each layer where it is stacked, else a single one.
      source: the files.
      dtype: the type of the parts that are read.
    """

    config: DecoderConfig
    dims: str
    stored: Stored
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
        index: list[slice] = []
        for group in self.stored.layout.split():
            first, inner = wanted[group[0]], math.prod(map(self.config.size, group[1:]))
            assert all(len(wanted[dim]) == self.config.size(dim) for dim in group[1:])
            before = 0 if index else _rows_before(self.config, self.stored)
            index.append(slice(before + first.start * inner, before + first.stop * inner))
        letters = self.stored.layout.replace(" ", "")
        tensor = self.source.read(name, tuple(index), self.dtype)
        # One axis for each letter of the layout, then the decoder's order of them.
        split = tensor.reshape([len(wanted[x]) for x in letters])
        return split.transpose([letters.index(dim) for dim in dims])


def lazy_params(
    config: DecoderConfig,
    source: Source,
    tensors: dict[str, Stored],
    dialect: str,
    adapters: bool = False,
) -> Params:
    """Return the decoder's parameters as `LazyTensor`s.

    Args:
      config: the decoder's shape, against which every tensor is checked before any is read.
      source: the tensors.
      tensors: where the family stores each parameter, by its path.
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
    _check(source, expected_shapes(config, tensors, dialect, adapters))

    def lazy(path, dims):
        stored = tensors[_key(path)]
        layers = range(config.num_layers if dims[0] == "L" else 1)
        names = tuple(getattr(stored, dialect).format(layer) for layer in layers)
        return LazyTensor(config, dims, stored, names, source)

    return jax.tree_util.tree_map_with_path(lazy, _dims(config, adapters))


def read_all(params: Params) -> Params:
    """Read all of the parameters as NumPy arrays."""
    return jax.tree.map(np.asarray, params)


def dump_tensors(
    config: DecoderConfig,
    params: Params,
    dtype: np.dtype,
    tensors: dict[str, Stored],
    dialect: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield stored names, and contiguous arrays of `dtype` in the stored layout."""
    dims_by_path, arrays = dict(_leaves(decoder.dims(config))), dict(_leaves(params))
    for name, keys in _by_name(arrays, tensors, dialect).items():
        stacked = dims_by_path[keys[0]][0] == "L"
        for layer in range(config.num_layers if stacked else 1):
            parts = []
            for key in keys:
                tensor = np.asarray(arrays[key][layer] if stacked else arrays[key])
                dims = dims_by_path[key].removeprefix("L")
                parts.append(_pack(tensor.astype(dtype, copy=False), tensors[key].layout, dims))
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield name.format(layer), np.ascontiguousarray(whole)


def expected_shapes(
    config: DecoderConfig, tensors: dict[str, Stored], dialect: str, adapters: bool = False
) -> dict[str, tuple[int, ...]]:
    """Return the stored shape of every tensor that the decoder has, by stored name."""
    shapes = {}
    dims_by_path = dict(_leaves(_dims(config, adapters)))
    for name, keys in _by_name(dims_by_path, tensors, dialect).items():
        last = tensors[keys[-1]]
        first, *others = (_product(config, group) for group in last.layout.split())
        shape = (_rows_before(config, last) + first, *others)
        for layer in range(config.num_layers if dims_by_path[keys[0]][0] == "L" else 1):
            shapes[name.format(layer)] = shape
    return shapes


def _by_name(
    paths: Iterable[str], tensors: dict[str, Stored], dialect: str
) -> dict[str, list[str]]:
    """Group the paths of parameters by the tensor that holds them, in their order in it."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(getattr(tensors[path], dialect), []).append(path)
    found = {}
    for name, keys in groups.items():
        # Of parameters that are in the same place, which are equal, the first stands for all.
        places = {tensors[key].before: key for key in reversed(keys)}
        found[name] = [places[before] for before in sorted(places, key=len)]
    return found


def _rows_before(config: DecoderConfig, stored: Stored) -> int:
    return sum(_product(config, group) for group in stored.before)


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
            f"{source.label}: the tensor {_some(unknown)} has no place in a decoder of this "
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

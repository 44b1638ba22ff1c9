"""Attention along prefix trees by Pallas kernels for GPUs and TPUs, which skip unseen blocks.

Memory is in proportion to the tokens: forward and backward, scores exist for one pair of blocks at
a time. The kernels differ in how they find the pairs of a block; what they compute of a pair is in
`blocks.py`. JAX does not differentiate kernels, so the gradients are kernels, too.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jft.batch import Batch
from jft.model import sharding
from jft.model.kernels.blocks import BlockPairs, Marks, block_pairs
from jft.model.linear import save_for_backward
from jft.model.scores import Scores
from jft.runtime import progress

# Imported when there is something to compute on such a device: a CPU's programs start sooner.
MODULES = {"gpu": "jft.model.kernels.gpu", "tpu": "jft.model.kernels.tpu"}


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The kernels for one kind of device.

    Attributes:
      module: `gpu` or `tpu`, with `forward`, `backward_query`, `backward_key`, `block_size`,
        `padded_head` and `LARGEST_HEAD`.
      interpret: run them on any device, slowly, for tests.
    """

    module: ModuleType
    interpret: bool = False


class MaskArrays(NamedTuple):
    """The mask of a batch, whose rows are filled up to whole blocks, as kernels read it.

    Attributes:
      marks_B1T: of every token; filled-up tokens see themselves, so that no softmax is over
        nothing.
      by_query, by_key: the pairs of blocks that hold a query and a key which it sees.
    """

    marks_B1T: Marks
    by_query: BlockPairs
    by_key: BlockPairs


@dataclasses.dataclass(frozen=True)
class KernelMask:
    """The masks of a batch, and the kernels that take them.

    Attributes:
      kernels: for the devices of the mesh.
      arrays: the mask of all layers or, if `by_window`, those of all of `DecoderConfig.windows` on
        an axis before the others.
    """

    kernels: Kernels
    arrays: MaskArrays
    by_window: bool


class _Static(NamedTuple):
    """The facts that a kernel is compiled for, besides shapes."""

    kernels: Kernels
    scores: Scores


def kernels_for_mesh(head_size: int) -> Kernels | None:
    """Find the kernels for the devices of the ambient mesh and a head size; None: there are none.

    The mesh decides, not what this machine has: a program may be compiled for other devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform not in MODULES:
        return None
    try:
        module = importlib.import_module(MODULES[device.platform])
    except ImportError as error:  # JAX has deprecated Pallas's Triton backend
        _say_once(f"attention goes without kernels: {error}")
        return None
    if head_size > module.LARGEST_HEAD:
        _say_once(f"attention goes without kernels: they take heads of up to {module.LARGEST_HEAD}")
        return None
    return Kernels(module)


# Attention gets much slower without kernels, so the user should know, and only here is it known.
# JAX traces the model for every program and shape: the line is printed the first time alone.
_say_once = functools.cache(progress.say)


def kernel_mask(batch: Batch, kernels: Kernels, windows: tuple[int, ...] = (0,)) -> KernelMask:
    """Make the masks of a batch, once for all layers.

    Args:
      batch: of which visibility, positions and the lengths of the lists of key blocks are read.
      kernels: those that take the masks.
      windows: `DecoderConfig.windows`.
    """
    length = batch.visible_until_BT.shape[1]
    size = kernels.module.block_size(length)
    fill = jnp.arange(length, length + -length % size, dtype=jnp.int32)

    def filled(x_BT, fill_T):
        fill_BT = jnp.broadcast_to(fill_T, (len(x_BT), len(fill)))
        return jnp.concatenate([jnp.asarray(x_BT), fill_BT.astype(x_BT.dtype)], axis=1)

    until_BT = filled(batch.visible_until_BT, fill + 1)
    lists = [batch.key_blocks_BQW, batch.prefix_blocks_BU]
    most = None if lists[0] is None else sum(x.shape[-1] for x in lists if x is not None)
    # If one window hides anything, all masks have the same marks, of which one is chosen by layer.
    needed = any(window and batch.has_window(window) for window in windows)
    position_BT = filled(batch.positions_BT, 0 * fill) if needed else None

    def arrays(window: int) -> MaskArrays:
        marks_BT = Marks(until_BT)
        if position_BT is not None:
            reach = window or jnp.iinfo(jnp.int32).max
            marks_BT = Marks(until_BT, position_BT, position_BT - reach + 1)
        pairs = block_pairs(marks_BT, size, most)
        return MaskArrays(jax.tree.map(lambda x_BT: x_BT[:, None], marks_BT), *pairs)

    if not needed:
        return KernelMask(kernels, arrays(0), by_window=False)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *map(arrays, windows))
    return KernelMask(kernels, stacked, by_window=True)


def attend_with_kernels(
    query_BTNH, key_BTKH, value_BTKH, mask: KernelMask, scores: Scores, window=0
) -> jax.Array:
    """Compute grouped-query attention, [B, T, N, H]; see `jft.model.attention.attend`."""
    arrays = jax.tree.map(lambda x: x[window], mask.arrays) if mask.by_window else mask.arrays
    return _attend(_Static(mask.kernels, scores), query_BTNH, key_BTKH, value_BTKH, arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(static: _Static, query_BTNH, key_BTKH, value_BTKH, mask: MaskArrays) -> jax.Array:
    return _forward(static, query_BTNH, key_BTKH, value_BTKH, mask)[0]


def _forward(static: _Static, query_BTNH, key_BTKH, value_BTKH, mask: MaskArrays):
    kernels, scores = static

    def on_device(query_BTNH, key_BTKH, value_BTKH, mask):
        inputs = _by_head(kernels, mask, query_BTNH, key_BTKH, value_BTKH)
        out_BNTH, lse_BN1T = kernels.module.forward(
            mask.marks_B1T, inputs, mask.by_query, scores, kernels.interpret
        )
        return _by_token(out_BNTH, query_BTNH), lse_BN1T

    inputs, tokens, vectors = _specs(query_BTNH, key_BTKH)
    outputs = _shard_map(on_device, inputs, (tokens, vectors))(
        query_BTNH, key_BTKH, value_BTKH, mask
    )
    out_BTNH, lse_BN1T = map(save_for_backward, outputs)
    return out_BTNH, (query_BTNH, key_BTKH, value_BTKH, mask, out_BTNH, lse_BN1T)


def _backward(static: _Static, residuals, d_out_BTNH):
    kernels, scores = static

    def on_device(query_BTNH, key_BTKH, value_BTKH, mask, out_BTNH, lse_BN1T, d_out_BTNH):
        *inputs, d_out_BNTH, out_BNTH = _by_head(
            kernels, mask, query_BTNH, key_BTKH, value_BTKH, d_out_BTNH, out_BTNH
        )
        # FlashAttention-2's D: see `jft.model.attention._backward`.
        delta_BN1T = jnp.einsum(
            "BNTH,BNTH->BNT", d_out_BNTH, out_BNTH, preferred_element_type=jnp.float32
        )[:, :, None]
        arrays = mask.marks_B1T, (*inputs, d_out_BNTH, lse_BN1T, delta_BN1T)
        options = scores, kernels.interpret
        d_query_BNTH = kernels.module.backward_query(*arrays, mask.by_query, *options)
        d_key_BKTH, d_value_BKTH = kernels.module.backward_key(*arrays, mask.by_key, *options)
        grads = d_query_BNTH, d_key_BKTH, d_value_BKTH
        return tuple(map(_by_token, grads, (query_BTNH, key_BTKH, value_BTKH)))

    inputs, tokens, vectors = _specs(*residuals[:2])
    on_mesh = _shard_map(on_device, (*inputs, tokens, vectors, tokens), (tokens,) * 3)
    return *on_mesh(*residuals, d_out_BTNH), None


_attend.defvjp(_forward, _backward)


def _by_head(kernels: Kernels, mask: MaskArrays, *arrays_BTNH) -> list[jax.Array]:
    """Lay arrays out as the kernels take them, [B, N, T, H], filled up to their sizes."""
    length = mask.marks_B1T.until.shape[2]

    def by_head(x_BTNH):
        _, tokens, _, head = x_BTNH.shape
        fill = kernels.module.padded_head(head) - head
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, length - tokens), (0, 0), (0, fill)))
        return x_BTNH.swapaxes(1, 2)

    return list(map(by_head, arrays_BTNH))


def _by_token(x_BNTH, like_BTNH) -> jax.Array:
    """Undo `_by_head`: lay an array out as `like_BTNH` is."""
    return x_BNTH.swapaxes(1, 2)[:, : like_BTNH.shape[1], :, : like_BTNH.shape[3]]


def _specs(query_BTNH, key_BTKH):
    """Choose partitions: of (query, key, value, mask), of any [B, T, N, H], of any [B, N, 1, T].

    The query heads of a group stay with their key-value head: heads are split where both numbers
    allow it.
    """
    mesh_shape = jax.sharding.get_abstract_mesh().shape
    if not mesh_shape:
        return (PartitionSpec(),) * 4, PartitionSpec(), PartitionSpec()
    rows, heads, (kv_heads,) = (
        *sharding.spec("BN", query_BTNH.shape[::2], mesh_shape, sharding.ACTIVATIONS),
        sharding.spec("K", key_BTKH.shape[2:3], mesh_shape, sharding.ACTIVATIONS),
    )
    heads = heads and kv_heads
    tokens, mask = PartitionSpec(rows, None, heads), PartitionSpec(rows)
    return (tokens, tokens, tokens, mask), tokens, PartitionSpec(rows, heads)


def _shard_map(function, inputs, outputs):
    """Apply a function to each device's own rows and heads, since XLA does not split kernels."""
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)

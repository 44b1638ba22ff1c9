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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jft.batch import Batch
from jft.model import sharding
from jft.model.kernels.blocks import BlockPairs, Inputs, Marks, Static, block_pairs
from jft.model.linear import save_for_backward
from jft.model.scores import Scores

# Imported when there is something to compute on such a device: a CPU's programs start sooner.
MODULES = {"gpu": "jft.model.kernels.gpu", "tpu": "jft.model.kernels.tpu"}


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The kernels for one kind of device.

    Attributes:
      module: `gpu` or `tpu`, with `forward`, `backward_query`, `backward_key`, `tuning`,
        `padded_head` and `LARGEST_HEAD`.
      tuning: sizes to compile them for; None: those that the module chooses.
      interpret: run them on any device, slowly, for tests.
    """

    module: ModuleType
    tuning: Any = None
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
      kernels: for the devices of the mesh, with their tuning.
      arrays: the mask of all layers or, if `by_window`, those of all of `DecoderConfig.windows` on
        an axis before the others.
    """

    kernels: Kernels
    arrays: MaskArrays
    by_window: bool


def refusal(platform: str, inputs: Inputs) -> str:
    """Say why there are no kernels for these devices and inputs; empty: there are."""
    if platform not in MODULES:
        return f"there are none for {platform}"
    try:
        module = importlib.import_module(MODULES[platform])
    except ImportError as error:  # JAX has deprecated Pallas's Triton backend
        return str(error)
    if inputs.head_size > module.LARGEST_HEAD:
        return f"they take heads of up to {module.LARGEST_HEAD}, not {inputs.head_size}"
    return ""


def kernels_for_mesh() -> Kernels:
    """Return the kernels for the devices of the ambient mesh, where `refusal` says nothing."""
    platform = jax.sharding.get_abstract_mesh().abstract_device.platform
    return Kernels(importlib.import_module(MODULES[platform]))


def kernel_mask(
    batch: Batch, kernels: Kernels, inputs: Inputs, windows: tuple[int, ...] = (0,)
) -> KernelMask:
    """Make the masks of a batch, once for all layers.

    Args:
      batch: of which visibility, positions and the lengths of the lists of key blocks are read.
      kernels: those that take the masks.
      inputs: of attention.
      windows: `DecoderConfig.windows`.
    """
    length = batch.visible_until_BT.shape[1]
    tuning = kernels.tuning or kernels.module.tuning(length, inputs.head_size, inputs.dtype)
    kernels, size = dataclasses.replace(kernels, tuning=tuning), tuning.block
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
    static = Static(scores, mask.kernels.tuning, mask.kernels.interpret)
    return _attend(mask.kernels.module, static, query_BTNH, key_BTKH, value_BTKH, arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    module, static: Static, query_BTNH, key_BTKH, value_BTKH, mask: MaskArrays
) -> jax.Array:
    return _forward(module, static, query_BTNH, key_BTKH, value_BTKH, mask)[0]


def _forward(module, static: Static, query_BTNH, key_BTKH, value_BTKH, mask: MaskArrays):
    def on_device(query_BTNH, key_BTKH, value_BTKH, mask):
        inputs = _by_head(module, mask, query_BTNH, key_BTKH, value_BTKH)
        out_BNTH, lse_BN1T = module.forward(mask.marks_B1T, inputs, mask.by_query, static)
        return _by_token(out_BNTH, query_BTNH), lse_BN1T

    inputs, tokens, vectors = sharding.attention_specs(query_BTNH, key_BTKH)
    outputs = sharding.shard_map(on_device, inputs, (tokens, vectors))(
        query_BTNH, key_BTKH, value_BTKH, mask
    )
    out_BTNH, lse_BN1T = map(save_for_backward, outputs)
    return out_BTNH, (query_BTNH, key_BTKH, value_BTKH, mask, out_BTNH, lse_BN1T)


def _backward(module, static: Static, residuals, d_out_BTNH):
    def on_device(query_BTNH, key_BTKH, value_BTKH, mask, out_BTNH, lse_BN1T, d_out_BTNH):
        *inputs, d_out_BNTH, out_BNTH = _by_head(
            module, mask, query_BTNH, key_BTKH, value_BTKH, d_out_BTNH, out_BTNH
        )
        # FlashAttention-2's D: see `jft.model.attention._backward`.
        delta_BN1T = jnp.einsum(
            "BNTH,BNTH->BNT", d_out_BNTH, out_BNTH, preferred_element_type=jnp.float32
        )[:, :, None]
        arrays = mask.marks_B1T, (*inputs, d_out_BNTH, lse_BN1T, delta_BN1T)
        d_query_BNTH = module.backward_query(*arrays, mask.by_query, static)
        d_key_BKTH, d_value_BKTH = module.backward_key(*arrays, mask.by_key, static)
        grads = d_query_BNTH, d_key_BKTH, d_value_BKTH
        return tuple(map(_by_token, grads, (query_BTNH, key_BTKH, value_BTKH)))

    inputs, tokens, vectors = sharding.attention_specs(*residuals[:2])
    on_mesh = sharding.shard_map(on_device, (*inputs, tokens, vectors, tokens), (tokens,) * 3)
    return *on_mesh(*residuals, d_out_BTNH), None


_attend.defvjp(_forward, _backward)


def _by_head(module, mask: MaskArrays, *arrays_BTNH) -> list[jax.Array]:
    """Lay arrays out as the kernels take them, [B, N, T, H], filled up to their sizes."""
    length = mask.marks_B1T.until.shape[2]

    def by_head(x_BTNH):
        _, tokens, _, head = x_BTNH.shape
        fill = module.padded_head(head) - head
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, length - tokens), (0, 0), (0, fill)))
        return x_BTNH.swapaxes(1, 2)

    return list(map(by_head, arrays_BTNH))


def _by_token(x_BNTH, like_BTNH) -> jax.Array:
    """Undo `_by_head`: lay an array out as `like_BTNH` is."""
    return x_BNTH.swapaxes(1, 2)[:, : like_BTNH.shape[1], :, : like_BTNH.shape[3]]

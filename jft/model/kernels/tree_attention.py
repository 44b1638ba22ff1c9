"""Attention under the mask rule by kernels for GPUs and TPUs, which load only blocks that meet.

Memory is in proportion to the tokens: scores exist for one pair of blocks at a time, forward and
backward. The kernels differ in how they find a block's pairs; what they compute of one is in
`blocks.py`. The slopes are written out, since JAX has none for kernels.
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
from jft.model.kernels.pairs import Pairs, pairs
from jft.model.linear import save_for_backward
from jft.runtime import progress

# Imported when there is something to compute on such a device: a CPU's programs start sooner.
MODULES = {"gpu": "jft.model.kernels.gpu", "tpu": "jft.model.kernels.tpu"}


@dataclasses.dataclass(frozen=True)
class Driver:
    """The kernels for one kind of device; `interpret` runs them on any, slowly, to test them."""

    kernels: ModuleType
    interpret: bool = False


class Lists(NamedTuple):
    """What the kernels know of a batch, whose rows are filled up to whole blocks.

    Attributes:
      until_B1T: `Batch.visible_until_BT`; what fills up sees itself, so that no softmax is empty.
      by_query, by_key: the pairs of blocks that meet.
    """

    until_B1T: jax.Array
    by_query: Pairs
    by_key: Pairs


@dataclasses.dataclass(frozen=True)
class Sight:
    """What the queries of a batch see, for the kernels of a driver; the same for all layers."""

    driver: Driver
    lists: Lists


def driver(head: int) -> Driver | None:
    """The kernels for the devices of the ambient mesh, by head size; None: there are none.

    The mesh decides, not what this machine has: a program may be compiled for other devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None or device.platform not in MODULES:
        return None
    try:
        kernels = importlib.import_module(MODULES[device.platform])
    except ImportError as error:  # JAX means to give Pallas's Triton backend up
        _say_once(f"attention goes without kernels: {error}")
        return None
    if head > kernels.LARGEST_HEAD:
        _say_once(
            f"attention goes without kernels: they take heads of up to {kernels.LARGEST_HEAD}"
        )
        return None
    return Driver(kernels)


_say_once = functools.cache(progress.say)


def sight(batch: Batch, driver: Driver) -> Sight:
    """The lists of the blocks that meet."""
    until_BT = jnp.asarray(batch.visible_until_BT)
    length = until_BT.shape[1]
    size = driver.kernels.block_size(length)
    fill = jnp.arange(length, length + -length % size, dtype=until_BT.dtype) + 1
    fill_BT = jnp.broadcast_to(fill, (len(until_BT), len(fill)))
    until_BT = jnp.concatenate([until_BT, fill_BT], axis=1)
    meets = [batch.key_blocks_BQW, batch.prefix_blocks_BU]
    most = None if meets[0] is None else sum(x.shape[-1] for x in meets if x is not None)
    return Sight(driver, Lists(until_BT[:, None], *pairs(until_BT, size, most)))


def attend(query_BTNH, key_BTKH, value_BTKH, sight: Sight) -> jax.Array:
    """Grouped-query attention, softmax in float32, scaled by the root of H: [B, T, N, H]."""
    return _attend(sight.driver, query_BTNH, key_BTKH, value_BTKH, sight.lists)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(driver: Driver, query_BTNH, key_BTKH, value_BTKH, lists: Lists) -> jax.Array:
    return _forward(driver, query_BTNH, key_BTKH, value_BTKH, lists)[0]


def _forward(driver: Driver, query_BTNH, key_BTKH, value_BTKH, lists: Lists):
    def of_device(query_BTNH, key_BTKH, value_BTKH, lists):
        inputs = _by_head(driver, lists, query_BTNH, key_BTKH, value_BTKH)
        scale = query_BTNH.shape[-1] ** -0.5
        mixed_BNTH, log_total_BN1T = driver.kernels.forward(
            (lists.until_B1T, *inputs), lists.by_query, scale, driver.interpret
        )
        return _by_token(mixed_BNTH, query_BTNH), log_total_BN1T

    inputs, tokens, numbers = _places(query_BTNH, key_BTKH)
    of_devices = _on_mesh(of_device, inputs, (tokens, numbers))
    outputs = of_devices(query_BTNH, key_BTKH, value_BTKH, lists)
    mixed_BTNH, log_total_BN1T = map(save_for_backward, outputs)
    residuals = query_BTNH, key_BTKH, value_BTKH, lists, mixed_BTNH, log_total_BN1T
    return mixed_BTNH, residuals


def _backward(driver: Driver, residuals, slope_BTNH):
    def of_device(query_BTNH, key_BTKH, value_BTKH, lists, mixed_BTNH, log_total_BN1T, slope_BTNH):
        *inputs, slope_BNTH, mixed_BNTH = _by_head(
            driver, lists, query_BTNH, key_BTKH, value_BTKH, slope_BTNH, mixed_BTNH
        )
        shared_BN1T = jnp.einsum(
            "BNTH,BNTH->BNT", slope_BNTH, mixed_BNTH, preferred_element_type=jnp.float32
        )[:, :, None]
        arrays = (lists.until_B1T, *inputs, slope_BNTH, log_total_BN1T, shared_BN1T)
        options = query_BTNH.shape[-1] ** -0.5, driver.interpret
        of_query_BNTH = driver.kernels.backward_query(arrays, lists.by_query, *options)
        of_key_BKTH, of_value_BKTH = driver.kernels.backward_key(arrays, lists.by_key, *options)
        slopes = of_query_BNTH, of_key_BKTH, of_value_BKTH
        return tuple(map(_by_token, slopes, (query_BTNH, key_BTKH, value_BTKH)))

    inputs, tokens, numbers = _places(*residuals[:2])
    of_devices = _on_mesh(of_device, (*inputs, tokens, numbers, tokens), (tokens,) * 3)
    return *of_devices(*residuals, slope_BTNH), None


_attend.defvjp(_forward, _backward)


def _by_head(driver: Driver, lists: Lists, *arrays_BTNH) -> list[jax.Array]:
    """Arrays as the kernels want them, [B, N, T, H], filled up to their sizes."""
    length = lists.until_B1T.shape[2]

    def by_head(x_BTNH):
        _, tokens, _, head = x_BTNH.shape
        fill = driver.kernels.padded_head(head) - head
        x_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, length - tokens), (0, 0), (0, fill)))
        return x_BTNH.swapaxes(1, 2)

    return list(map(by_head, arrays_BTNH))


def _by_token(x_BNTH, like_BTNH) -> jax.Array:
    """What `_by_head` was."""
    return x_BNTH.swapaxes(1, 2)[:, : like_BTNH.shape[1], :, : like_BTNH.shape[3]]


def _places(query_BTNH, key_BTKH):
    """Partitions of (query, key, value, lists), of an array [B, T, N, H], and of one [B, N, 1, T].

    A group of heads stays with its key-value head: heads are split where both numbers allow it.
    """
    mesh_shape = jax.sharding.get_abstract_mesh().shape
    if not mesh_shape:
        return (PartitionSpec(),) * 4, PartitionSpec(), PartitionSpec()
    rows, heads, (kv_heads,) = (
        *sharding.spec("BN", query_BTNH.shape[::2], mesh_shape, sharding.ACTIVATIONS),
        sharding.spec("K", key_BTKH.shape[2:3], mesh_shape, sharding.ACTIVATIONS),
    )
    heads = heads and kv_heads
    tokens, lists = PartitionSpec(rows, None, heads), PartitionSpec(rows)
    return (tokens, tokens, tokens, lists), tokens, PartitionSpec(rows, heads)


def _on_mesh(function, inputs, outputs):
    """The function of each device's own rows and heads, since XLA does not split kernels."""
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function
    return jax.shard_map(function, in_specs=inputs, out_specs=outputs, check_vma=False)

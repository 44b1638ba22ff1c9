"""Attention by blocks equals attention with the whole mask, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.batch import BLOCK
from jft.data import prefix_tree
from jft.model import attention


def forest(rng, row_length):
    """A row of random prefix trees, with a prefix that many share."""
    stem = rng.integers(0, 4, row_length // 3)
    sequences = []
    while True:
        cut = rng.choice([0, len(stem) // 2, len(stem)])
        tokens = np.r_[stem[:cut], rng.integers(0, 4, rng.integers(2, 40))].astype(np.int32)
        candidate = [*sequences, prefix_tree.TokenSequence(tokens, len(tokens) - 1)]
        candidate = [candidate[i] for i in prefix_tree.order(candidate)]
        if prefix_tree.row_tokens(candidate) > row_length:
            return sequences
        sequences = candidate


def dense(query, key, value, batch):
    rows, length = query.shape[:2]
    every = jnp.broadcast_to(jnp.arange(length), (rows, length))
    visible = attention.visible_from(batch.visible_until_BT, every)
    return jax.nn.dot_product_attention(query, key, value, mask=visible[:, None])


@pytest.mark.parametrize("trunk", [0, 1, 2, 99], ids=["no trunk", "short", "right", "whole row"])
@pytest.mark.parametrize("more", [0, 3], ids=["listed", "listed and padded"])
@pytest.mark.parametrize("scores", [1, 1 << 15, 1 << 25], ids=["a block", "some", "all at once"])
@pytest.mark.parametrize("row_length", [BLOCK * 9, BLOCK * 7 + 5, 7])
def test_blocks_equal_the_whole_mask(monkeypatch, row_length, scores, more, trunk):
    monkeypatch.setattr(attention, "SCORES", scores)
    rng = np.random.default_rng(row_length)
    rows = [forest(rng, row_length) for _ in range(2)]
    entries = max(map(prefix_tree.num_entries, rows))
    widths = [prefix_tree.key_block_widths(prefix_tree.visible_until(row)) for row in rows]
    trunk = min(trunk, *(len(width) - 1 for width in widths))
    needed = max(1, *(int(width[trunk]) for width in widths))
    sizes = needed + more, trunk
    batch = prefix_tree.build(rows, 3, row_length, entries, *sizes)  # one row is padding
    assert row_length < 100 or needed < row_length / BLOCK
    shapes = [(3, row_length, heads, 8) for heads in (4, 2, 2, 4)]
    *qkv, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    used = [prefix_tree.row_tokens(row) for row in (*rows, [])]
    is_token = jnp.arange(row_length)[None] < jnp.array(used)[:, None]
    weight = weight * is_token[..., None, None]

    def by_blocks(*qkv):
        return attention.attend(*qkv, attention.blocks_in_sight(batch, 4))

    results = []
    for function in (by_blocks, lambda *qkv: dense(*qkv, batch)):
        out, back = jax.vjp(function, *qkv)
        results.append((out * is_token[..., None, None], *back(weight)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_batch_without_blocks_meets_them_all():
    rng = np.random.default_rng(0)
    batch = prefix_tree.build([forest(rng, 100)], 1, 100, 100)
    seen = [
        sum(part.visible_ABCYS.sum() for part in attention.blocks_in_sight(each, 1))
        for each in (batch, batch._replace(key_blocks_BQW=None))
    ]
    assert seen[0] == seen[1] == (batch.visible_until_BT - np.arange(100)).sum()

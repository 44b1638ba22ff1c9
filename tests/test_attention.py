"""Attention by blocks equals attention with the whole mask, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.batch import BLOCK, sees
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


def whole_mask(visible_until_BT):
    """Apply the mask rule to every query and every key of a row, [B, T, T]."""
    index = np.arange(visible_until_BT.shape[1])
    return sees(index[None, :, None], index[None, None], visible_until_BT[:, None])


def dense(query, key, value, batch):
    mask = jnp.asarray(whole_mask(batch.visible_until_BT))
    return jax.nn.dot_product_attention(query, key, value, mask=mask[:, None])


@pytest.mark.parametrize("prefix", [0, 1, 2, 99], ids=["no prefix", "short", "right", "whole row"])
@pytest.mark.parametrize("more", [0, 3], ids=["listed", "listed and padded"])
@pytest.mark.parametrize("scores", [1, 1 << 15, 1 << 25], ids=["a block", "some", "all at once"])
@pytest.mark.parametrize("row_length", [BLOCK * 9, BLOCK * 7 + 5, 7])
def test_blocks_equal_the_whole_mask(monkeypatch, row_length, scores, more, prefix):
    monkeypatch.setattr(attention, "CHUNK_SCORES", scores)
    rng = np.random.default_rng(row_length)
    rows = [forest(rng, row_length) for _ in range(2)]
    entries = max(map(prefix_tree.num_entries, rows))
    widths = [prefix_tree.key_block_widths(prefix_tree.visible_until(row)) for row in rows]
    prefix = min(prefix, *(len(width) - 1 for width in widths))
    needed = max(1, *(int(width[prefix]) for width in widths))
    sizes = needed + more, prefix
    batch = prefix_tree.build(rows, 3, row_length, entries, *sizes)  # one row is padding
    assert row_length < 100 or needed < row_length / BLOCK
    shapes = [(3, row_length, heads, 8) for heads in (4, 2, 2, 4)]
    *qkv, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    used = [prefix_tree.row_tokens(row) for row in (*rows, [])]
    is_token = jnp.arange(row_length)[None] < jnp.array(used)[:, None]
    weight = weight * is_token[..., None, None]

    def by_blocks(*qkv):
        return attention.attend(*qkv, attention.xla_block_mask(batch, 4))

    results = []
    for function in (by_blocks, lambda *qkv: dense(*qkv, batch)):
        out, back = jax.vjp(function, *qkv)
        results.append((out * is_token[..., None, None], *back(weight)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_batch_without_lists_gathers_all_blocks():
    rng = np.random.default_rng(0)
    batch = prefix_tree.build([forest(rng, 100)], 1, 100, 100)
    seen = [
        sum(blocks.visible_ABCXS.sum() for blocks in attention.xla_block_mask(each, 1))
        for each in (batch, batch._replace(key_blocks_BQW=None))
    ]
    assert seen[0] == seen[1] == (batch.visible_until_BT - np.arange(100)).sum()

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
        candidate = [*sequences, prefix_tree.Sequence(tokens, len(tokens) - 1)]
        candidate = [candidate[i] for i in prefix_tree.order(candidate)]
        if prefix_tree.row_tokens(candidate) > row_length:
            return sequences
        sequences = candidate


def dense(query, key, value, batch):
    rows, length = query.shape[:2]
    every = jnp.broadcast_to(jnp.arange(length), (rows, length))
    visible = attention.visible_from(batch.visible_until_BT, every)
    return jax.nn.dot_product_attention(query, key, value, mask=visible[:, None])


@pytest.mark.parametrize("width", [0, 3], ids=["listed", "listed and padded"])
@pytest.mark.parametrize("scores", [1, 1 << 25], ids=["a block at a time", "at once"])
@pytest.mark.parametrize("row_length", [BLOCK * 9, BLOCK * 7 + 5, 7])
def test_blocks_equal_the_whole_mask(monkeypatch, row_length, scores, width):
    monkeypatch.setattr(attention, "SCORES", scores)
    rng = np.random.default_rng(row_length)
    rows = [forest(rng, row_length) for _ in range(2)]
    entries = max(map(prefix_tree.entries, rows))
    needed = max(map(prefix_tree.num_key_blocks, rows))
    batch = prefix_tree.build(rows, 3, row_length, entries, needed + width)  # one row is padding
    assert row_length < 100 or needed < row_length / BLOCK
    shapes = [(3, row_length, heads, 8) for heads in (4, 2, 2, 4)]
    *qkv, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)

    def by_blocks(*qkv):
        return attention.attend(*qkv, attention.blocks_in_sight(batch, 4))

    results = []
    for function in (by_blocks, lambda *qkv: dense(*qkv, batch)):
        out, back = jax.vjp(function, *qkv)
        results.append((out, *back(weight)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_a_batch_without_blocks_meets_them_all():
    rng = np.random.default_rng(0)
    batch = prefix_tree.build([forest(rng, 100)], 1, 100, 100)
    every = attention.blocks_in_sight(batch._replace(key_blocks_BQW=None), 1)
    assert every.visible_ABCYS.sum() == attention.blocks_in_sight(batch, 1).visible_ABCYS.sum()
    assert every.blocks_ABCW.shape[-1] == 4 > batch.key_blocks_BQW.shape[-1]

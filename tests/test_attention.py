"""Attention by blocks equals attention with the whole mask, forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.batch import BLOCK, sees
from jft.data import key_blocks, prefix_tree
from jft.model import attention, attention_mask
from jft.model.architecture import DecoderConfig, LayerKind
from jft.model.scores import Scores

SCORES = Scores(8**-0.5)


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


def windows(*sizes, **changes):
    """A decoder of four heads whose layers have these windows."""
    kinds = tuple(LayerKind(size) for size in sizes)
    return DecoderConfig(9, 32, len(sizes), 4, 2, 8, 32, layers=kinds, **changes)


def dense(query, key, value, batch, config=None, window=0):
    """Attention with the whole mask, in the plainest way."""
    mask = whole_mask(batch.visible_until_BT)
    if window:
        position_BT = np.asarray(batch.positions_BT)
        mask &= position_BT[:, :, None] - position_BT[:, None] < window
    config = config or windows(0)
    groups = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
    scores = jnp.einsum("btnh,bsnh->bnts", query, key) * (
        config.score_scale or query.shape[-1] ** -0.5
    )
    if config.score_cap:
        scores = config.score_cap * jnp.tanh(scores / config.score_cap)
    weights = jax.nn.softmax(jnp.where(mask[:, None], scores, -1e30), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", weights, value)


@pytest.mark.parametrize("prefix", [0, 1, 2, 99], ids=["no prefix", "short", "right", "whole row"])
@pytest.mark.parametrize("more", [0, 3], ids=["listed", "listed and padded"])
@pytest.mark.parametrize("scores", [1, 1 << 15, 1 << 25], ids=["a block", "some", "all at once"])
@pytest.mark.parametrize("row_length", [BLOCK * 9, BLOCK * 7 + 5, 7])
def test_blocks_equal_the_whole_mask(monkeypatch, row_length, scores, more, prefix):
    monkeypatch.setattr(attention_mask, "CHUNK_SCORES", scores)
    rng = np.random.default_rng(row_length)
    rows = [forest(rng, row_length) for _ in range(2)]
    entries = max(map(prefix_tree.num_entries, rows))
    widths = [key_blocks.widths_of(prefix_tree.visible_until(row)) for row in rows]
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
        return attention.attend(*qkv, attention_mask.make_mask(batch, windows(0)), SCORES)

    results = []
    for function in (by_blocks, lambda *qkv: dense(*qkv, batch)):
        out, back = jax.vjp(function, *qkv)
        results.append((out * is_token[..., None, None], *back(weight)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def mask_of(batch):
    """The only mask of a batch."""
    (mask,) = attention_mask.make_mask(batch, windows(0)).masks
    return mask


def test_a_batch_without_lists_gathers_all_blocks():
    rng = np.random.default_rng(0)
    batch = prefix_tree.build([forest(rng, 100)], 1, 100, 100)
    seen = [
        sum(blocks.visible_ABCXS.sum() for blocks in mask_of(each))
        for each in (batch, batch._replace(key_blocks_BQW=None))
    ]
    assert seen[0] == seen[1] == (batch.visible_until_BT - np.arange(100)).sum()


@pytest.mark.parametrize("chunk", [1, 1 << 25], ids=["a block", "all at once"])
@pytest.mark.parametrize("lists", [True, False], ids=["lists", "no lists"])
@pytest.mark.parametrize("cap", [0.0, 2.0], ids=["", "capped"])
def test_layers_with_windows_equal_the_whole_mask(monkeypatch, chunk, lists, cap):
    """The window of a layer is known only when it runs; all sequences are longer than the least."""
    monkeypatch.setattr(attention_mask, "CHUNK_SCORES", chunk)
    rng, row_length = np.random.default_rng(0), BLOCK * 8 + 3
    config = windows(0, 5, 40, 10**6, score_cap=cap, score_scale=0.7)
    rows = [forest(rng, row_length) for _ in range(2)]
    entries = max(map(prefix_tree.num_entries, rows))
    wanted = [(5, None), (40, None)]
    batch = prefix_tree.build(rows, 3, row_length, entries, window_blocks=wanted)
    assert batch.positions_BT.max() > 40
    assert set(batch.window_blocks) == {5, 40}
    assert batch.window_blocks[5].shape[2] < batch.window_blocks[40].shape[2]
    if not lists:
        batch = batch._replace(key_blocks_BQW=None, prefix_blocks_BU=None, window_blocks=None)
    shapes = [(3, row_length, heads, 8) for heads in (4, 2, 2, 4)]
    *qkv, weight = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    used = [prefix_tree.row_tokens(row) for row in (*rows, [])]
    is_token = jnp.arange(row_length)[None] < jnp.array(used)[:, None]
    weight = weight * is_token[..., None, None]

    @jax.jit
    def by_blocks(window, *qkv):
        mask = attention_mask.make_mask(batch, config)

        def attend(*qkv):
            return attention.attend(*qkv, mask, Scores.of(config), window)

        out, back = jax.vjp(attend, *qkv)
        return (out * is_token[..., None, None], *back(weight))

    for number, window in enumerate(config.windows):
        whole = functools.partial(dense, batch=batch, config=config, window=window)
        out, back = jax.vjp(whole, *qkv)
        wanted = (out * is_token[..., None, None], *back(weight))
        for got, want in zip(by_blocks(number, *qkv), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)

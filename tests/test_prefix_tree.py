"""Trees hold what their sequences hold, whatever is shared, and nothing leaks between branches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jft.data import prefix_tree
from jft.data.prefix_tree import TokenSequence
from jft.model import decoder

VOCAB = 61

# Few distinct tokens, so that random sequences share prefixes, repeat, and contain one another.
tokens = st.lists(st.integers(0, 2), min_size=2, max_size=9)
forests = st.lists(
    tokens.flatmap(lambda t: st.tuples(st.just(t), st.integers(1, len(t)))), min_size=1, max_size=8
)
few = settings(deadline=None, max_examples=20)


def sequences_of(forest):
    return [TokenSequence(np.array(t, np.int32), start) for t, start in forest]


def packed(sequences, row_length):
    return [[sequences[i] for i in row] for row in prefix_tree.pack(sequences, row_length)]


def batch_of(rows, row_length, num_rows=None, num_entries=None):
    entries = max(1, *(prefix_tree.num_entries(row) for row in rows), 1)
    return prefix_tree.build(rows, num_rows or len(rows), row_length, num_entries or entries)


def path_to(batch, b, index):
    """The tokens that a query sees, by the mask rule, in order."""
    seen = [k for k in range(index + 1) if index < batch.visible_until_BT[b, k]]
    return [int(batch.tokens_BT[b, k]) for k in seen], [int(batch.positions_BT[b, k]) for k in seen]


@settings(deadline=None, max_examples=300)
@given(forests, st.integers(9, 40))
def test_every_entry_sees_exactly_its_own_sequence(forest, row_length):
    sequences = sequences_of(forest)
    rows = packed(sequences, row_length)
    batch = batch_of(rows, row_length)
    assert sorted(id(s) for row in rows for s in row) == sorted(map(id, sequences))
    for b, row in enumerate(rows):
        entry = 0
        for number, (ids, start) in enumerate(row):
            # Where nothing follows, the one entry is at the end and has no target.
            for position in range(start, max(len(ids), start + 1)):
                seen, positions = path_to(batch, b, int(batch.loss_index_BM[b, entry]))
                assert seen == ids[:position].tolist()
                assert positions == list(range(position))
                assert batch.loss_target_BM[b, entry] == [*ids, 0][position]
                assert batch.loss_sequence_BM[b, entry] == number
                entry += 1
        assert batch.loss_weight_BM[b].sum() == entry


@settings(deadline=None, max_examples=200)
@given(forests, st.integers(9, 40))
def test_a_row_holds_each_distinct_prefix_once(forest, row_length):
    for row in packed(sequences_of(forest), row_length):
        prefixes = {tuple(ids[:n].tolist()) for ids, _ in row for n in range(1, len(ids) + 1)}
        assert prefix_tree.row_tokens(row) == len(prefixes) <= row_length
        batch = batch_of([row], row_length)
        assert (batch.visible_until_BT > np.arange(row_length)).all()


def test_the_example_of_the_design():
    demos, q1, q2, a, b = [1, 2], [3], [4], [5], [6]
    forest = [(demos + q1 + a, 3), (demos + q1 + b, 3), (demos + q2 + a, 3)]
    batch = batch_of(packed(sequences_of(forest), 7), 7)
    assert batch.tokens_BT.tolist() == [[1, 2, 3, 5, 6, 4, 5]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 3, 2, 3]]
    assert batch.visible_until_BT.tolist() == [[7, 7, 5, 4, 5, 7, 7]]
    assert batch.loss_index_BM.tolist() == [[2, 2, 5]]
    assert batch.loss_target_BM.tolist() == [[5, 6, 5]]
    assert batch.loss_sequence_BM.tolist() == [[0, 1, 2]]


def test_many_groups_are_packed_near_their_distinct_tokens():
    rng = np.random.default_rng(0)
    groups = [rng.integers(0, 50, 40).tolist() for _ in range(30)]
    forest = [(g + rng.integers(0, 50, 5).tolist(), 40) for g in groups for _ in range(6)]
    rows = packed(sequences_of(forest), 256)
    assert 256 * len(rows) <= 1.25 * 30 * (40 + 6 * 5)  # apart they would take 8100 tokens


def test_more_open_rows_than_the_packer_keeps():
    forest = [([i, i, i, i, i, i], 1) for i in range(3 * prefix_tree.MAX_OPEN_ROWS)]
    rows = packed(sequences_of(forest), 7)
    assert sorted(len(row) for row in rows) == [1] * len(forest)


def test_a_sequence_longer_than_the_row_is_refused():
    with pytest.raises(ValueError, match="5 tokens in rows of 4"):
        prefix_tree.pack(sequences_of([([1, 2, 3, 4, 5], 1)]), 4)


@functools.cache
def model(vocab=VOCAB):
    config = decoder.DecoderConfig(vocab, 16, 2, 4, 2, 8, 32)
    return config, decoder.init(config, jax.random.key(1, impl="rbg"))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grad(config, params, batch):
    def loss(params):
        return -jnp.sum(decoder.token_logprobs(config, params, batch) * batch.loss_weight_BM)

    return jax.value_and_grad(loss)(params)


@functools.partial(jax.jit, static_argnums=0)
def logprobs(config, params, batch):
    return decoder.token_logprobs(config, params, batch)


def by_sequence(batch, rows, values):
    """Summed log-probability of each sequence, by identity."""
    sums = {}
    for b, row in enumerate(rows):
        for number, sequence in enumerate(row):
            mine = (batch.loss_sequence_BM[b] == number) & (batch.loss_weight_BM[b] > 0)
            sums[id(sequence)] = float(np.asarray(values[b], np.float64)[mine].sum())
    return sums


@few
@given(forests)
def test_loss_and_gradients_equal_separate_rows(forest):
    sequences = sequences_of(forest)
    config, params = model()
    tree = batch_of(packed(sequences, 72), 72, num_rows=8, num_entries=72)
    apart = batch_of([[s] for s in sequences], 72, num_rows=8, num_entries=72)
    loss, grads = loss_and_grad(config, params, tree)
    expected, expected_grads = loss_and_grad(config, params, apart)
    assert loss == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        scale = float(jnp.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale + 1e-7)


@few
@given(forests, st.sampled_from([9, 16, 40]))
def test_any_row_length_gives_the_same_sums(forest, row_length):
    sequences = sequences_of(forest)
    config, params = model()
    sums = []
    for length in (row_length, 72):
        rows = packed(sequences, length)
        batch = batch_of(rows, length, num_rows=8, num_entries=72)
        sums.append(by_sequence(batch, rows, logprobs(config, params, batch)))
    assert sums[0].keys() == sums[1].keys()
    for key, value in sums[0].items():
        assert value == pytest.approx(sums[1][key], rel=1e-5, abs=1e-5)


@few
@given(forests, st.data())
def test_changing_one_sequence_leaves_the_others_bit_equal(forest, data):
    """At equal shapes: tokens of one branch change where no other sequence runs through."""
    sequences = sequences_of(forest)
    config, params = model()
    row = packed(sequences, 72)[0]
    batch = batch_of([row], 72, num_entries=72)
    number = data.draw(st.integers(0, len(row) - 1))
    others = [s for i, s in enumerate(row) if i != number]
    changed = row[number].tokens
    shared = max((prefix_tree.shared_length(changed, s.tokens) for s in others), default=0)
    own = [
        k
        for k in range(72)
        if k < prefix_tree.row_tokens(row)
        and batch.positions_BT[0, k] >= shared
        and path_to(batch, 0, k)[0] == changed[: batch.positions_BT[0, k] + 1].tolist()
    ]
    tokens_BT = batch.tokens_BT.copy()
    tokens_BT[0, own] += 7
    before = np.asarray(logprobs(config, params, batch))[0]
    after = np.asarray(logprobs(config, params, batch._replace(tokens_BT=tokens_BT)))[0]
    kept = (batch.loss_sequence_BM[0] != number) & (batch.loss_weight_BM[0] > 0)
    np.testing.assert_array_equal(before[kept], after[kept])
    if (
        row[number].start < len(changed) and shared < len(changed) - 1
    ):  # it must see the change itself
        assert (before[~kept] != after[~kept]).any()


def test_no_gradient_flows_between_branches():
    """Perturbing the embedding of one branch's token moves no other branch's entries."""
    config, params = model()
    rows = [sequences_of([([1, 2, 10, 11], 2), ([1, 2, 20, 21], 2)])]
    batch = batch_of(rows, 8, num_entries=4)

    def entry(params, at):
        return decoder.token_logprobs(config, params, jax.tree.map(jnp.asarray, batch))[0, at]

    # Entry 3 predicts 21 after 20, in the second branch: token 10 is not among what it sees.
    untied = decoder.DecoderConfig(VOCAB, 16, 2, 4, 2, 8, 32, tied_head=False)
    params = params | {"head": {"kernel": params["embed"]}}
    config = untied
    grad = jax.grad(entry)(params, 3)["embed"]
    assert (grad[10] == 0).all()
    assert (grad[20] != 0).any()
    assert (grad[2] != 0).any()

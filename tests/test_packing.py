"""Steps in rows of a few shapes: every sequence once, nothing too long, little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jft.batch import BLOCK, PackingRules
from jft.data import key_blocks, packing, prefix_tree
from jft.data.packing import Budget
from jft.data.prefix_tree import TokenSequence

# Where a compilation takes as long as a billion tokens.
SLOW = Budget(2, 128, packing_rules=PackingRules((0,), shape_tokens=10**9))
LENGTHS = st.lists(st.integers(2, 90), min_size=1, max_size=9)


def steps_of(lengths, shared=0, seed=0):
    rng = np.random.default_rng(seed)
    stem = rng.integers(0, 1000, shared)
    return [
        [
            TokenSequence(np.r_[stem, rng.integers(0, 1000, n)].astype(np.int32), shared + 1)
            for n in step
        ]
        for step in lengths
    ]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(LENGTHS, min_size=1, max_size=6),
    st.integers(0, 40),
    st.sampled_from([Budget(1, 4096), Budget(1, 100), Budget(4, 64), Budget(2, 256, 150), SLOW]),
)
def test_every_sequence_has_its_place_in_a_shape_that_holds_it(lengths, shared, budget):
    steps = steps_of(lengths, shared)
    plan = packing.pack_steps(steps, budget)
    assert len(set(plan.shapes)) <= packing.MAX_SHAPES
    for sequences, rows, shape in zip(steps, plan.rows, plan.shapes, strict=True):
        assert sorted(i for row in rows for i in row) == list(range(len(sequences)))
        assert shape.row_length % BLOCK == shape.rows % budget.shards == 0
        assert len(rows) <= shape.micro_batches * shape.rows
        for row in rows:
            tree = [sequences[i] for i in row]
            assert prefix_tree.row_tokens(tree) <= shape.row_length
            assert prefix_tree.num_entries(tree) <= shape.num_entries
            widths = key_blocks.widths_of(prefix_tree.visible_until(tree))
            assert widths[shape.num_prefix_blocks :].max(initial=0) <= shape.num_key_blocks


def computed_tokens(plan):
    return sum(
        -(-len(rows) // shape.rows) * shape.rows * shape.row_length
        for rows, shape in zip(plan.rows, plan.shapes, strict=True)
    )


@pytest.mark.parametrize("shared", [0, 300])
def test_long_runs_have_little_padding(shared):
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 120, (250, 16)).tolist()
    steps = steps_of(lengths, shared)
    plan = packing.pack_steps(steps, Budget(1, 4096))
    used = sum(shared + sum(step) for step in lengths)
    assert computed_tokens(plan) < 1.05 * used
    assert all(len(rows) == 1 for rows in plan.rows)


def test_a_shape_must_be_worth_its_compilation():
    few = packing.pack_steps(steps_of([[500], [600], [700]]), Budget(1, 4096))
    many = packing.pack_steps(steps_of([[500], [600], [700]] * 100), Budget(1, 4096))
    assert (len(set(few.shapes)), len(set(many.shapes))) == (1, 3)


@pytest.mark.parametrize(("shape_tokens", "at_most"), [(10**6, 1), (1, 2.5)])
def test_runs_that_differ_in_their_seeds_share_shapes_where_compiling_is_slow(
    shape_tokens, at_most
):
    """Other examples: 60 steps of 16 behind the same demonstrations, ten times."""
    budget = Budget(1, 4096, packing_rules=PackingRules((0,), shape_tokens=shape_tokens))
    shapes, padding = [], []
    for seed in range(10):
        lengths = np.random.default_rng(seed).integers(40, 120, (60, 16)).tolist()
        steps = steps_of(lengths, shared=300, seed=seed)
        plan = packing.pack_steps(steps, budget)
        shapes.append(set(plan.shapes))
        counts = prefix_tree.count([[steps[i][j] for j in row] for i, row in _rows(plan)])
        padding.append(computed_tokens(plan) / counts.row_tokens)
    if at_most == 1:
        assert len(set.union(*shapes)) <= 4
        assert max(padding) < 1.4
    else:
        assert len(set.union(*shapes)) >= 10 * at_most
        assert max(padding) < 1.03


def _rows(plan):
    return [(i, row) for i, rows in enumerate(plan.rows) for row in rows]


def test_the_longest_first_fill_rows_that_share_nothing():
    plan = packing.pack_steps(steps_of([[60, 60, 60, 36, 36, 36]]), Budget(3, 96))
    assert (len(plan.rows[0]), plan.shapes[0].row_length) == (3, 96)

"""Intervals and tests: coverage, brute force, and samples that say little."""

import functools
import itertools

import numpy as np
import pytest
from scipy import special

from jft.evaluation import samples, stats
from jft.evaluation.samples import Means, Pairs
from jft.evaluation.stats import Items


def draw(rng, n, discordance, difference):
    """Draw how many of n pairs only the tuned, and only the base model has right."""
    gained, lost = (discordance + difference) / 2, (discordance - difference) / 2
    return rng.multinomial(n, (gained, lost, 1 - discordance))[:2]


SETTINGS = [
    (n, discordance, difference)
    for n in (50, 120, 250)
    for discordance in (0.05, 0.2, 0.4)
    for difference in (0.0, 0.1, 0.3)
    if difference <= discordance
]


def test_the_interval_of_one_cell_covers_the_truth_as_often_as_it_says():
    rng, interval = np.random.default_rng(0), functools.cache(samples.tango_interval)
    rates = []
    for n, discordance, difference in SETTINGS:
        hits = 0
        for _ in range(500):
            low, high = interval(*map(int, draw(rng, n, discordance, difference)), n)
            hits += low <= difference <= high
        rates.append(hits / 500)
    assert 0.94 < np.mean(rates) < 0.97
    assert min(rates) > 0.91


SIZES = (24, 48, 120, 250)
RUNS = 800  # samples; a share of 95 % of them has a standard error of 0.8 %


def accuracy(rng, n, datasets, cells, base=0.6, gain=0.0):
    """Draw right and wrong answers, [datasets, items, cells] of two models.

    Items differ in how hard they are, for both models and for each; cells of an item in their
    wording.
    """
    shape = (datasets, n)
    spread = np.sqrt(1 + 0.25 + 0.5)
    hard, wording = rng.normal(size=(*shape, 1)), rng.normal(size=(*shape, cells))
    found = []
    for share in (base + gain, base):
        own = rng.normal(0, 0.5, (*shape, 1))
        noise = np.sqrt(0.5) * (
            np.sqrt(0.5) * wording + np.sqrt(0.5) * rng.normal(size=wording.shape)
        )
        found.append(spread * special.ndtri(share) + hard + own + noise > 0)
    return found


def rouge(rng, n, zeros, cells=1):
    """Draw F-measures of word overlaps: discrete, skewed, and zero for some items."""
    overlap = np.broadcast_to(rng.beta(2, 6, (1, n, 1)), (1, n, cells))
    found = []
    for _ in range(2):
        reference, output = (rng.integers(4, most, overlap.shape) for most in (25, 30))
        common = rng.binomial(np.minimum(reference, output), overlap)
        found.append(
            np.where(rng.random(overlap.shape) < zeros, 0, 2 * common / (reference + output))
        )
    return found


def emptied(rng, n, share):
    """Draw outputs of which the tuned model leaves a share empty, and the others as they are."""
    _, base = rouge(rng, n, 0.05)
    return np.where(rng.random(base.shape) < share, 0, base), base


def probability(rng, n, shift):
    """Draw probabilities of a gold label, of which those of one item are alike."""
    hard = rng.normal(size=(1, n, 1))
    return [special.expit(hard + rng.normal(mean, 1, hard.shape)) for mean in (shift, 0.0)]


def cells_of(values):
    """Say where the values of an array [datasets, items, cells] belong."""
    datasets, items, cells = np.indices(values.shape).reshape(3, -1)
    return Items(values.ravel(), items, datasets, cells)


def coverage(draw, *args, n, runs=RUNS):
    """Compute the share of samples whose interval holds the truth."""
    rng = np.random.default_rng(n)
    many = [draw(rng, 20_000, *args) for _ in range(5)]
    truth = float(np.mean([tuned.mean() - base.mean(dtype=float) for tuned, base in many]))
    hits = 0
    for _ in range(runs):
        tuned, base = draw(rng, n, *args)
        found = stats.paired_difference(tuned.ravel(), cells_of(base))
        assert found.significant == (not found.low <= 0 <= found.high)
        hits += found.low <= truth <= found.high
    return hits / runs


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("draw", "args"),
    [
        (accuracy, (1, 1)),
        (accuracy, (1, 2)),
        (accuracy, (2, 2)),
        (accuracy, (3, 8)),
        (accuracy, (1, 2, 0.6, 0.1)),
        (accuracy, (3, 8, 0.6, 0.1)),
        (rouge, (0.2,)),
        (rouge, (0.2, 4)),
        (rouge, (0.7, 4)),
        (probability, (0.0,)),
        (probability, (1.0,)),
    ],
)
def test_the_interval_of_checkpoints_covers_the_truth(draw, args, n):
    assert 0.93 <= coverage(draw, *args, n=n) <= 0.975


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("draw", "args"),
    [
        (accuracy, (3, 8, 0.98)),
        (accuracy, (1, 2, 0.98)),
        (rouge, (0.9,)),
        (emptied, (0.1,)),
        (emptied, (0.3,)),
    ],
)
def test_where_few_items_differ_the_interval_is_no_narrower(draw, args, n):
    assert coverage(draw, *args, n=n, runs=400) >= 0.93


def test_the_sample_that_misses_what_is_rare_is_the_limit_of_any_interval():
    rng, rates = np.random.default_rng(0), []
    for n in (24, 120):
        hits = 0
        for _ in range(400):
            changes = np.where(rng.random(n) < 0.05, 0.85, -0.85 * 0.05 / 0.95)
            low, high = Means.of([changes]).interval(0.95)
            hits += low <= 0 <= high
        rates.append(hits / 400)
    assert rates[0] == pytest.approx(1 - 0.95**24, abs=0.06)
    assert rates[1] > 0.95
    many_small_losses = np.r_[[0.85] * 3, [-0.02] * 45]
    difference = stats.paired_difference(
        many_small_losses.clip(0), Items((-many_small_losses).clip(0))
    )
    assert difference.value > 0
    assert difference.is_skewed


def test_outputs_that_were_emptied_are_found_without_a_cliff():
    base = np.random.default_rng(1).uniform(0.1, 0.2, 48)
    found = []
    for number in range(16):
        tuned = base.copy()
        tuned[:number] = 0
        found.append(stats.paired_difference(tuned, Items(base)))
    decided = [each.significant for each in found]
    assert decided == sorted(decided)  # no cliff: once found, always found
    assert decided.index(True) <= 7
    for ends in ([each.low for each in found], [each.high for each in found]):
        assert np.abs(np.diff(ends[1:])).max() < 0.015  # an item more is 0.003 of it


def test_one_cell_and_a_mean_of_cells_that_agree_are_judged_alike():
    for gained, lost in ((5, 0), (9, 2), (14, 6), (3, 3), (30, 18)):
        changes = np.r_[np.ones(gained), -np.ones(lost), np.zeros(100 - gained - lost)]
        pairs, means = Pairs(gained, lost, 100), Means.of([changes])
        assert means.p_value() == pytest.approx(pairs.p_value(), abs=0.06)
        assert means.interval(0.95) == pytest.approx(pairs.interval(0.95), abs=0.025)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (9, 1), (0, 6), (40, 20), (5, 0)])
def test_mcnemar_is_the_mid_p_test(gained, lost):
    from scipy.stats import binom

    fewer, differ = min(gained, lost), gained + lost
    tail = binom.cdf(fewer, differ, 0.5) - binom.pmf(fewer, differ, 0.5) / 2
    expected = min(1.0, 2 * tail)
    assert samples.mcnemar_mid_p(gained, lost) == pytest.approx(expected)


def test_a_change_is_one_just_where_the_interval_leaves_out_zero():
    for gained, lost in itertools.product(range(25), repeat=2):
        pairs = Pairs(gained, lost, 60)
        low, high = pairs.interval(0.95)
        assert (pairs.p_value() < 0.05) == (not low <= 0 <= high)
    assert stats.paired_difference([1] * 5 + [0] * 115, Items([0] * 120)).significant
    assert not stats.paired_difference([1] * 4 + [0] * 116, Items([0] * 120)).significant


@pytest.mark.parametrize("discordance", [0.0, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("n", [24, 48, 120, 250, 1000])
def test_the_detectable_gain_is_found_in_four_of_five_samples(discordance, n):
    rng, found, runs = np.random.default_rng(8), 0, 1500
    for _ in range(runs):
        gained, lost = map(int, draw(rng, n, discordance, 0.0))
        gain = Pairs(gained, lost, n).detectable()
        gained, lost = map(int, draw(rng, n, max(discordance, gain), gain))
        found += Pairs(gained, lost, n).p_value() < 0.05
    assert found / runs == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize("n", SIZES)
def test_the_detectable_mean_is_found_in_four_of_five_samples(n):
    rng, found, runs = np.random.default_rng(9), 0, 1500
    for _ in range(runs):
        mean = Means.of([rng.normal(0, 0.2, n)]).detectable()
        found += Means.of([rng.normal(mean, 0.2, n)]).p_value() < 0.05
    assert found / runs == pytest.approx(0.8, abs=0.03)


def recipe(rng, n, datasets, cells, trainings, spread, texts):
    """Draw differences [datasets, items, cells, trainings] with a true mean of zero."""
    shift = rng.normal(0, spread, trainings)
    shape, noise = (datasets, n, cells, trainings), 0.12
    if texts:
        ease = rng.beta(2, 6, (datasets, n, 1, 1))
        base = ease + rng.normal(0, noise, (datasets, n, cells, 1))
        return ease + rng.normal(0, noise, shape) + shift - base
    own = rng.normal(0, 0.3, (datasets, n, 1, 1)) + rng.normal(0, 0.3, (datasets, n, cells, 1))
    return np.clip(
        np.round(own + rng.normal(0, 0.3, shape) + shift + rng.uniform(-0.5, 0.5, shape)), -1, 1
    )


@pytest.mark.parametrize("trainings", [3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.03])
@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize(("n", "datasets", "cells"), [(48, 1, 2), (120, 2, 2), (120, 3, 4)])
def test_the_interval_of_a_recipe_covers_the_truth(trainings, spread, texts, n, datasets, cells):
    rng, hits, runs = np.random.default_rng(trainings), 0, 300
    for _ in range(runs):
        values = recipe(rng, n, datasets, cells, trainings, spread, texts)
        dataset, item, cell, training = np.indices(values.shape).reshape(4, -1)
        base = Items(np.zeros(values.size), item, dataset, cell)
        found = stats.recipe_difference(values.ravel(), base, training)
        assert found.significant == (not found.low <= 0 <= found.high)
        assert found.trainings == trainings
        hits += found.low <= 0 <= found.high
    assert hits / runs >= 0.925


def test_one_training_says_nothing_of_its_recipe():
    values, items = np.arange(4) / 10, Items(np.zeros(4))
    assert stats.recipe_difference(values, items, [0, 0, 0, 0]) is None
    assert stats.recipe_difference(values, items._replace(items=[0, 0, 1, 1]), [0, 1, 0, 1]) is None
    thrice = Items(np.zeros(6), [0, 0, 0, 1, 1, 1])
    assert stats.recipe_difference(np.arange(6) / 10, thrice, [0, 1, 2, 0, 1, 2]).trainings == 3
    # One of two recipes has a single training.
    few = stats.recipe_difference(values, items, [0, 1, 0, 0], recipes=[0, 0, 1, 1])
    assert few is None


def test_more_cells_of_one_condition_shift_no_weight_to_it():
    """Draws, prompts and seeds that are added where they change nothing leave the mean alone."""
    gain = {0: 0.125, 2: 0.575}
    rows = [(item, shots, gain[shots]) for item in range(40) for shots in gain]
    more = rows + 2 * [row for row in rows if row[1] == 2]
    for each in (rows, more):
        items, shots, values = map(np.array, zip(*each, strict=True))
        base = Items(np.zeros(len(values)), items, conditions=shots)
        assert stats.paired_difference(values, base).value == pytest.approx(0.35)
        assert stats.grouped_mean(base._replace(values=values)) == pytest.approx(0.35)


def test_the_spread_over_prompts_is_that_of_the_anova():
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rng = np.random.default_rng(10)
    table = rng.random((30, 4)) + 0.5 * rng.random(4) + rng.random((30, 1))
    item, level = np.indices(table.shape).reshape(2, -1)
    data = pandas.DataFrame({"x": table.ravel(), "item": item, "level": level})
    squares = anova_lm(ols("x ~ C(item) + C(level)", data).fit())["mean_sq"]
    expected = np.sqrt((squares["C(level)"] - squares["Residual"]) / 30)
    found = stats.spread(Items(table.ravel(), item), level)
    assert found == stats.Spread(pytest.approx(expected), 4)


def test_the_spread_leaves_out_the_noise_of_the_items():
    rng, n, found = np.random.default_rng(11), 50, []
    item, level, stratum = np.indices((n, 3, 2)).reshape(3, -1)
    for _ in range(400):
        prompts = 0.05 * rng.standard_normal(3)
        values = prompts[level] + rng.standard_normal(level.size)
        found.append(stats.spread(Items(values, item, stratum), level).value ** 2)
    assert np.mean(found) == pytest.approx(0.05**2, abs=0.006)
    alike = rng.random(n)
    items = Items(np.tile(alike, 3), np.tile(range(n), 3))
    assert stats.spread(items, np.repeat(range(3), n)).value == 0


def test_one_prompt_has_no_spread():
    assert stats.spread(Items([0.1, 0.2], [0, 1]), [0, 0]) is None
    assert stats.spread(Items([0.1, 0.2], [0, 0]), [0, 1]) is None


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(12).random(40) ** 3
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_models_that_never_disagree_get_an_interval_of_the_width_that_n_allows():
    for n, limit in ((1, 0.8), (50, 0.0714), (250, 0.0152)):
        found = stats.paired_difference(np.ones(n), Items(np.ones(n)))
        assert (found.value, found.p_value) == (0, 1)
        assert found.high == -found.low == pytest.approx(limit, abs=0.01)
    twice = Items(np.ones(100), np.tile(np.arange(50), 2))
    averaged = stats.paired_difference(np.ones(100), twice)
    assert averaged.low < -0.01 < 0.01 < averaged.high
    other_metric = stats.paired_difference(np.full(50, 0.3), Items(np.full(50, 0.3)))
    assert other_metric.low < -0.01 < 0.01 < other_metric.high


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_every_small_table_has_an_interval_that_holds_its_estimate(n):
    for gained, lost in itertools.product(range(n + 1), repeat=2):
        if gained + lost <= n:
            low, high = samples.tango_interval(gained, lost, n)
            assert -1 <= low <= (gained - lost) / n <= high <= 1
            assert high - low > 0.2
            assert samples.tango_interval(lost, gained, n) == pytest.approx((-high, -low))


@pytest.mark.parametrize("n", [24, 120])
@pytest.mark.parametrize("size", [1e-3, 0.02, 0.5])
def test_one_small_difference_says_little_more_than_none(n, size):
    def width(*differences):
        tuned = np.zeros(n)
        tuned[: len(differences)] = differences
        found = stats.paired_difference(tuned, Items(np.zeros(n)))
        return found.high - found.low

    assert width(size) > width() / 3
    assert width(size, size) > width() / 5


def test_a_few_items_prove_nothing_whatever_the_metric():
    for tuned, base in (([1], [0]), ([0.3], [0.2]), ([0.3, 0.5], [0.2, 0.1])):
        found = stats.paired_difference(tuned, Items(base))
        assert not found.significant
        assert found.low < found.value
        assert found.p_value > 0.05


def test_the_score_interval_solves_the_score_equation():
    from scipy import optimize, special

    gained, lost, n = 14, 5, 100
    for limit in samples.tango_interval(gained, lost, n):

        def loss(p_lost, delta=limit):
            p_gained = p_lost + delta
            same = 1 - p_lost - p_gained
            return -(gained * np.log(p_gained) + lost * np.log(p_lost) + (n - 19) * np.log(same))

        bounds = (max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9)
        p_lost = optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x
        spread = np.sqrt((2 * p_lost + limit - limit**2) / n)
        z = ((gained - lost) / n - limit) / spread
        assert abs(z) == pytest.approx(special.ndtri(0.975), rel=1e-3)


def test_several_prompts_of_an_item_do_not_count_as_several_items():
    rng = np.random.default_rng(5)
    tuned, base = rng.random(100) < 0.7, rng.random(100) < 0.5
    items = np.tile(np.arange(100), 4)
    repeated = stats.paired_difference(np.tile(tuned, 4), Items(np.tile(base, 4), items))
    once = stats.paired_difference(tuned, Items(base))
    assert repeated.n == 100
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    unclustered = stats.paired_difference(np.tile(tuned, 4), Items(np.tile(base, 4)))
    assert unclustered.high - unclustered.low < 0.6 * (repeated.high - repeated.low)


def test_items_of_different_datasets_are_different_though_they_share_a_number():
    base = Items([0, 1, 0, 1], [0, 1, 0, 1], list("aabb"))
    found = stats.paired_difference([1, 1, 0, 0], base)
    assert found.n == 4


def test_datasets_count_alike_whatever_their_size():
    values = [1.0] * 90 + [0.0] * 10
    assert stats.grouped_mean(Items(values, datasets=["a"] * 90 + ["b"] * 10)) == 0.5


def test_a_higher_confidence_widens_either_interval():
    rng = np.random.default_rng(7)
    for tuned, base in ((rng.random(40), rng.random(40)), (rng.random((2, 40)) < 0.5)):
        usual = stats.paired_difference(tuned, Items(base))
        wider = stats.paired_difference(tuned, Items(base), confidence=0.99)
        assert wider.low < usual.low < usual.high < wider.high


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert stats.holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert stats.holm([]) == []


def test_the_standard_error():
    assert stats.standard_error([0, 1, 1, 0]) == pytest.approx(np.sqrt(1 / 3) / 2)
    assert np.isnan(stats.standard_error([1.0]))


@pytest.mark.parametrize(("tuned", "base"), [([], []), ([1, 0], [1])])
def test_nothing_to_pair_is_an_error(tuned, base):
    with pytest.raises(ValueError, match="non-empty"):
        stats.paired_difference(tuned, Items(base))


def test_an_answer_in_which_nothing_changed_says_so():
    """Of all rows of an answer, adjusted together, one is called a change in 5 % of studies."""
    rng, studies, wrong = np.random.default_rng(3), 400, 0
    for _ in range(studies):
        p_values = []
        for _ in range(2):  # FT and FTICL, each on three relations
            for draw, args in ((accuracy, (1, 2)), (accuracy, (2, 2)), (probability, (0.0,))):
                tuned, base = draw(rng, 48, *args)
                p_values.append(stats.paired_difference(tuned.ravel(), cells_of(base)).p_value)
        wrong += min(stats.holm(p_values)) < 0.05
    assert wrong / studies <= 0.05 + 0.02  # two standard errors


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
@pytest.mark.parametrize("trainings", [3, 5])
def test_seeds_alone_do_not_make_an_effect_vary_from_set_to_set(spread, trainings):
    """FTICL equals FT on average: nine sets of three tasks, each task trained anew."""
    rng, studies, unstable = np.random.default_rng(2), 200, 0
    for _ in range(studies):
        found = []
        for _ in range(3):
            values = recipe(rng, 60, 3, 2, trainings, spread, texts=False)
            _, item, cell, training = np.indices(values.shape).reshape(4, -1)[:, : values[0].size]
            for of_set in values:
                base = Items(np.zeros(of_set.size), item, conditions=cell)
                found.append(stats.recipe_difference(of_set.ravel(), base, training))
        unstable += stats.variation(found, 3 * (trainings - 1), 0.02).none < 0.025
    assert unstable / studies <= 0.05 + 0.015


def test_an_effect_that_varies_is_told_from_one_that_does_not():
    rng, found = np.random.default_rng(4), {}
    for spread in (0.0, 0.15):
        means = rng.normal(0, spread, 8)
        differences = []
        for mean in means:
            values = rng.normal(mean, 0.2, (400, 3))
            item, training = np.indices(values.shape).reshape(2, -1)
            base = Items(np.zeros(values.size), item)
            differences.append(stats.recipe_difference(values.ravel(), base, training))
        found[spread] = stats.variation(differences, 2, 0.1)
    assert found[0.15].none < 0.01
    assert found[0.15].value == pytest.approx(0.15, rel=0.5)
    assert found[0.15].some > 0.05
    assert found[0.0].none > 0.05
    assert found[0.0].some < 0.01


@pytest.mark.parametrize("trainings", [1, 5])
@pytest.mark.parametrize(("sizes", "conditions"), [((250,), 2), ((120, 120), 4)])
def test_a_forecast_is_what_studies_of_its_kind_find(sizes, conditions, trainings):
    """A change as large as forecast is found in about 80 % of studies that are as assumed."""
    rng, found, studies = np.random.default_rng(0), 0, 400
    can = stats.forecast(sizes, conditions, trainings)
    effect = can.checkpoint if trainings == 1 else can.recipe

    def ternary(*shape):
        return rng.choice([-1.0, 0.0, 1.0], shape, p=[0.05, 0.9, 0.05])  # variance 0.1

    for _ in range(studies):
        seeds = effect + (0.02 * rng.normal(size=trainings) if trainings > 1 else np.zeros(1))
        values, items, datasets, training, condition = [], [], [], [], []
        for d, size in enumerate(sizes):
            own = ternary(size, 1, 1) + ternary(size, conditions, 1)
            table = own + seeds
            i, c, s = np.indices(table.shape)
            for column, of in zip(
                (values, items, datasets, condition, training),
                (table, i, np.full_like(i, d), c, s),
                strict=True,
            ):
                column += of.ravel().tolist()
        where = stats.Items(np.zeros(len(values)), items, datasets, condition)
        if trainings == 1:
            result = stats.paired_difference(values, where)
        else:
            result = stats.recipe_difference(values, where, training)
        found += result.significant
    assert 0.7 < found / studies < 0.9
    assert stats.forecast(sizes, conditions, 2).recipe is None

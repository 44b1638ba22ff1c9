"""Intervals and tests: coverage, brute force, and samples that say little."""

import functools
import itertools

import numpy as np
import pytest

from jft.evaluation import stats


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
    rng, interval = np.random.default_rng(0), functools.cache(stats.tango_interval)
    rates = []
    for n, discordance, difference in SETTINGS:
        hits = 0
        for _ in range(500):
            low, high = interval(*map(int, draw(rng, n, discordance, difference)), n)
            hits += low <= difference <= high
        rates.append(hits / 500)
    assert 0.94 < np.mean(rates) < 0.97
    assert min(rates) > 0.91


def test_the_interval_of_a_mean_over_datasets_and_prompts_covers_the_truth(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng, n, hits, runs = np.random.default_rng(1), 60, 0, 400
    groups, strata = np.tile(np.arange(n), 6), np.repeat([0, 0, 1, 1, 2, 2], n)
    for _ in range(runs):
        cells = []
        for _ in range(3):
            first, other = rng.choice([1, -1, 0], p=(0.2, 0.1, 0.7), size=(2, n))
            cells += [first, np.where(rng.random(n) < 0.6, first, other)]
        rows = np.concatenate(cells)
        found = stats.paired_difference(rows > 0, rows < 0, groups, strata)
        hits += found.low <= 0.1 <= found.high
    assert 0.93 < hits / runs < 0.985


def test_the_interval_of_texts_covers_the_truth(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng, runs, rates = np.random.default_rng(9), 400, []

    def rouge(skill, ease, hopeless):
        """Many zeros, a long tail, and prompts that agree on what is easy."""
        noise = 0.15 * rng.standard_normal(len(ease))
        return np.where(hopeless, 0, np.clip(0.6 * ease + skill + noise, 0, 1))

    def sample(n):
        return rng.beta(1.5, 3, n), rng.random(n) < 0.15

    many = sample(400_000)
    truth = np.mean(rouge(0.1, *many) - rouge(0.0, *many))
    for n in (24, 100, 250):
        groups, hits = np.tile(np.arange(n), 2), 0
        for _ in range(runs):
            items = sample(n)
            tuned, base = (
                np.concatenate([rouge(skill, *items) for _ in range(2)]) for skill in (0.1, 0.0)
            )
            found = stats.paired_difference(tuned, base, groups)
            hits += found.low <= truth <= found.high
        rates.append(hits / runs)
    assert 0.93 < np.mean(rates) < 0.97


def test_texts_of_which_few_have_changed_do_not_seem_to_have_changed_for_the_better(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    rng, runs, hits = np.random.default_rng(4), 400, 0
    for _ in range(runs):
        base, other = rng.beta(1.5, 3, (2, 120))
        tuned = np.where(rng.random(120) < 0.06, other, base)
        found = stats.paired_difference(tuned, base)
        hits += found.low <= 0 <= found.high
    assert hits / runs > 0.95


def test_a_change_is_one_where_interval_and_test_agree():
    gained = stats.paired_difference([1] * 4 + [0] * 116, [0] * 120)
    assert gained.low > 0
    assert gained.p_value == pytest.approx(0.125)
    assert not gained.significant
    assert stats.paired_difference([1] * 9 + [0] * 111, [0] * 120).significant


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
    found = stats.spread(table.ravel(), level, item)
    assert found == stats.Spread(pytest.approx(expected), 4)


def test_the_spread_leaves_out_the_noise_of_the_items():
    rng, n, found = np.random.default_rng(11), 50, []
    item, level, stratum = np.indices((n, 3, 2)).reshape(3, -1)
    for _ in range(400):
        prompts = 0.05 * rng.standard_normal(3)
        values = prompts[level] + rng.standard_normal(level.size)
        found.append(stats.spread(values, level, item, stratum).value ** 2)
    assert np.mean(found) == pytest.approx(0.05**2, abs=0.006)
    alike = rng.random(n)
    assert stats.spread(np.tile(alike, 3), np.repeat(range(3), n), np.tile(range(n), 3)).value == 0


def test_one_prompt_has_no_spread():
    assert stats.spread([0.1, 0.2], [0, 0], [0, 1]) is None
    assert stats.spread([0.1, 0.2], [0, 1], [0, 0]) is None


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(12).random(40) ** 3
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_models_that_never_disagree_get_an_interval_of_the_width_that_n_allows():
    for n, limit in ((1, 0.8), (50, 0.0714), (250, 0.0152)):
        found = stats.paired_difference(np.ones(n), np.ones(n))
        assert (found.value, found.p_value) == (0, 1)
        assert found.high == -found.low == pytest.approx(limit, abs=0.01)
    averaged = stats.paired_difference(np.ones(100), np.ones(100), np.tile(np.arange(50), 2))
    assert averaged.low < -0.01 < 0.01 < averaged.high
    other_metric = stats.paired_difference(np.full(50, 0.3), np.full(50, 0.3))
    assert other_metric.low < -0.01 < 0.01 < other_metric.high


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_every_small_table_has_an_interval_that_holds_its_estimate(n):
    for gained, lost in itertools.product(range(n + 1), repeat=2):
        if gained + lost <= n:
            low, high = stats.tango_interval(gained, lost, n)
            assert -1 <= low <= (gained - lost) / n <= high <= 1
            assert high - low > 0.2
            assert stats.tango_interval(lost, gained, n) == pytest.approx((-high, -low))


def test_a_few_items_prove_nothing_whatever_the_metric():
    for tuned, base in (([1], [0]), ([0.3], [0.2]), ([0.3, 0.5], [0.2, 0.1])):
        found = stats.paired_difference(tuned, base)
        assert not found.significant
        assert found.low < found.value
        assert found.p_value > 0.05


def test_the_score_interval_solves_the_score_equation():
    from scipy import optimize, special

    gained, lost, n = 14, 5, 100
    for limit in stats.tango_interval(gained, lost, n):

        def loss(p_lost, delta=limit):
            p_gained = p_lost + delta
            same = 1 - p_lost - p_gained
            return -(gained * np.log(p_gained) + lost * np.log(p_lost) + (n - 19) * np.log(same))

        bounds = (max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9)
        p_lost = optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x
        spread = np.sqrt((2 * p_lost + limit - limit**2) / n)
        z = ((gained - lost) / n - limit) / spread
        assert abs(z) == pytest.approx(special.ndtri(0.975), rel=1e-3)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (9, 1), (0, 6), (40, 20)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    from scipy.stats import binomtest

    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert stats.mcnemar(gained, lost) == pytest.approx(expected)


def test_the_sign_flip_test_agrees_with_all_flips():
    rng = np.random.default_rng(2)
    tuned, base = rng.random(12), rng.random(12) * 0.7
    differences = tuned - base
    flips = np.array(list(itertools.product((1, -1), repeat=12)))
    means = np.abs((flips * differences).mean(axis=1))
    exact = np.mean(means >= abs(differences.mean()) - 1e-12)
    assert stats.paired_difference(tuned, base).p_value == pytest.approx(exact, abs=0.02)


def test_the_sign_flip_test_of_agreeing_prompts_is_mcnemars():
    tuned, base = np.zeros(100), np.zeros(100)
    tuned[:14], base[14:20] = 1, 1
    found = stats.paired_difference(np.tile(tuned, 2), np.tile(base, 2), np.tile(range(100), 2))
    assert found.p_value == pytest.approx(stats.mcnemar(14, 6), abs=0.02)


def test_a_p_value_that_the_draws_cannot_resolve_is_still_small():
    tuned = np.random.default_rng(3).random(200)
    assert 0 < stats.paired_difference(tuned, tuned * 0.3).p_value < 1e-6


def test_the_bootstrap_has_the_width_of_the_stratified_standard_error():
    rng = np.random.default_rng(4)
    strata = np.repeat([0, 1], (80, 240))
    tuned, base = rng.random(320), rng.random(320)
    differences = [(tuned - base)[strata == s] for s in (0, 1)]
    found = stats.paired_difference(tuned, base, strata=strata)
    spread = np.sqrt(sum(d.var(ddof=1) / len(d) for d in differences)) / 2
    assert found.value == pytest.approx(np.mean([d.mean() for d in differences]))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.05)


def test_several_prompts_of_an_item_do_not_count_as_several_items():
    rng = np.random.default_rng(5)
    tuned, base = rng.random(100) < 0.7, rng.random(100) < 0.5
    items = np.tile(np.arange(100), 4)
    repeated = stats.paired_difference(np.tile(tuned, 4), np.tile(base, 4), items)
    once = stats.paired_difference(tuned, base)
    assert repeated.n == 100
    assert repeated.high - repeated.low == pytest.approx(once.high - once.low, rel=0.1)
    unclustered = stats.paired_difference(np.tile(tuned, 4), np.tile(base, 4))
    assert unclustered.high - unclustered.low < 0.6 * (repeated.high - repeated.low)


def test_items_of_different_datasets_are_different_though_they_share_a_number():
    found = stats.paired_difference([1, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1], list("aabb"))
    assert found.n == 4


def test_datasets_count_alike_whatever_their_size():
    values = [1.0] * 90 + [0.0] * 10
    assert stats.grouped_mean(values, strata=["a"] * 90 + ["b"] * 10) == 0.5


def test_the_same_arguments_give_the_same_result_and_another_seed_another():
    rng = np.random.default_rng(6)
    tuned, base = rng.random(40), rng.random(40)
    assert stats.paired_difference(tuned, base) == stats.paired_difference(tuned, base)
    assert stats.paired_difference(tuned, base) != stats.paired_difference(tuned, base, seed=1)


def test_a_higher_confidence_widens_either_interval():
    rng = np.random.default_rng(7)
    for tuned, base in ((rng.random(40), rng.random(40)), (rng.random((2, 40)) < 0.5)):
        usual = stats.paired_difference(tuned, base)
        wider = stats.paired_difference(tuned, base, confidence=0.99)
        assert wider.low < usual.low < usual.high < wider.high


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert stats.holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert stats.holm([]) == []


def test_the_detectable_change_is_found_in_four_of_five_samples():
    rng = np.random.default_rng(8)
    pairs = [draw(rng, 200, 0.2, 0.0) for _ in range(200)]
    widths = [np.diff(stats.tango_interval(int(g), int(lost), 200))[0] for g, lost in pairs]
    middle = float(np.mean(widths)) / 2
    change = stats.Difference(0, -middle, middle, 200, 1).detectable
    found = [stats.tango_interval(*map(int, draw(rng, 200, 0.2, change)), 200) for _ in range(500)]
    assert np.mean([low > 0 for low, _ in found]) == pytest.approx(0.8, abs=0.06)


def test_the_standard_error():
    assert stats.standard_error([0, 1, 1, 0]) == pytest.approx(np.sqrt(1 / 3) / 2)
    assert np.isnan(stats.standard_error([1.0]))


@pytest.mark.parametrize(("tuned", "base"), [([], []), ([1, 0], [1])])
def test_nothing_to_pair_is_an_error(tuned, base):
    with pytest.raises(ValueError, match="non-empty"):
        stats.paired_difference(tuned, base)

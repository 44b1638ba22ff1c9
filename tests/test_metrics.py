"""Metrics of items and cells, against libraries and against brute force."""

import dataclasses
import json
import re

import numpy as np
import pytest
import sacrebleu
from report_data import write_study
from scipy import stats

from jft.errors import UserError
from jft.evaluation import loop, measures, metrics, results, texts
from jft.evaluation.metrics import METRICS, Metric
from jft.reporting import render
from jft.reporting.content import gather
from jft.runtime import records
from jft.tasks import TASKS

LABELS = ("entailment", "neutral", "contradiction")
TEXTS = [
    ("The old mill is open again.", "The old mill has opened again."),
    ("", "A new bridge."),
    ("no no no no no no", "Nothing will change."),
    ("The bridge, a new one!", "a new bridge the one"),
    ("Завод открыл цех.", "Завод открыл новый цех."),
]


def label_rows(n=60, labels=LABELS, seed=0):
    """Rows whose gold labels are likelier than the others, and of which the first is too likely."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(n):
        gold = rng.integers(len(labels))
        scores = rng.normal(-6, 1, len(labels)) + (np.arange(len(labels)) == gold)
        scores[0] += 2
        named = dict(zip(labels, scores.tolist(), strict=True))
        best = max(named, key=named.get)
        rows.append({"scores": named, "output": labels[gold], "correct": best == labels[gold]})
    return rows


def text_rows(pairs=TEXTS):
    return [{"generation": a, "output": b, "rougeL": texts.rouge_l(a, b)} for a, b in pairs]


def test_probabilities_of_labels():
    rows = label_rows()
    found = metrics.measure(rows, "labels")
    gold = [np.exp(row["scores"][row["output"]]) for row in rows]
    every = [sum(np.exp(score) for score in row["scores"].values()) for row in rows]
    assert found["p_gold"] == pytest.approx(gold)
    assert found["p_label"] == pytest.approx(every)
    assert found["accuracy"] == [row["correct"] for row in rows]


def test_calibration_takes_out_what_a_model_prefers_whatever_the_item():
    rows = label_rows(n=300)
    found = metrics.measure(rows, "labels")
    assert np.mean(found["calibrated"]) > np.mean(found["accuracy"]) + 0.1
    # By hand: each label over its mean share on all other items.
    scores = np.array([list(row["scores"].values()) for row in rows])
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for i in (0, 17, 299):
        others = np.delete(shares, i, axis=0).mean(axis=0)
        best = LABELS[int((shares[i] / others).argmax())]
        assert found["calibrated"][i] == (best == rows[i]["output"])


def test_the_area_is_that_of_mann_and_whitney():
    rows = label_rows(labels=("no", "yes"))
    rows += rows[:5]  # ties
    values = metrics.measure(rows, "labels")["auc"]
    odds = np.array([row["scores"]["yes"] - row["scores"]["no"] for row in rows])
    gold = np.array([row["output"] == "yes" for row in rows])
    u = stats.mannwhitneyu(odds[gold], odds[~gold]).statistic
    assert np.mean(values) == pytest.approx(u / gold.sum() / (~gold).sum())


def test_the_area_of_several_labels_is_the_mean_of_one_against_the_rest():
    rows = label_rows()
    areas = []
    for label in LABELS:
        shares = np.array([row["scores"][label] for row in rows]) - np.array(
            [np.log(sum(np.exp(s) for s in row["scores"].values())) for row in rows]
        )
        gold = np.array([row["output"] == label for row in rows])
        u = stats.mannwhitneyu(shares[gold], shares[~gold]).statistic
        areas.append(u / gold.sum() / (~gold).sum())
    assert np.mean(metrics.measure(rows, "labels")["auc"]) == pytest.approx(np.mean(areas))
    alike = [row | {"output": LABELS[0]} for row in rows]
    assert "auc" not in metrics.measure(alike, "labels")


@pytest.mark.parametrize("name", ["auc", "bleu"])
def test_the_values_of_a_whole_have_the_spread_of_resampled_items(name):
    """What is no mean of items has values whose standard error is that of a bootstrap."""
    rng = np.random.default_rng(0)
    if name == "auc":
        rows = label_rows(n=120, labels=("no", "yes"))
    else:
        words = ["the", "old", "mill", "is", "open", "again", "and", "so", "the", "new", "bridge"]
        texts = [" ".join(rng.choice(words, 12)) for _ in range(120)]
        rows = text_rows([(" ".join(t.split()[: rng.integers(5, 13)]), t) for t in texts])
    of = METRICS[name].of
    values = np.array(of(rows))
    whole = [np.mean(of([rows[i] for i in rng.integers(0, 120, 120)])) for _ in range(150)]
    assert values.std(ddof=1) / np.sqrt(120) == pytest.approx(np.std(whole), rel=0.2)


def test_texts_are_measured_as_by_the_libraries():
    rows = text_rows()
    found = metrics.measure(rows, "generation")
    outputs, references = zip(*TEXTS, strict=True)
    assert np.mean(found["bleu"]) == pytest.approx(
        sacrebleu.corpus_bleu(outputs, [references]).score / 100
    )
    chrf = [sacrebleu.sentence_chrf(a, [b]).score / 100 for a, b in TEXTS]
    assert found["chrf"] == pytest.approx(chrf)
    assert found["empty"] == [0, 1, 0, 0, 0]
    assert found["repeated"] == [0, 0, 1, 0, 0]
    assert found["exact"] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("output", "reference", "exact", "f1"),
    [
        ("The  cat.", "a cat", 1, 1),
        ("cat dog", "dog cat", 0, 1),
        ("cat dog", "dog", 0, 2 / 3),
        ("", "dog", 0, 0),
        ("", "the", 1, 1),
        ("工厂", "工厂。", 1, 1),
        ("工厂", "厂", 0, 2 / 3),
        ("1,000", "1 000", 1, 1),
    ],
)
def test_words_in_common(output, reference, exact, f1):
    assert texts.exact_match(output, reference) == exact
    assert texts.token_f1(output, reference) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "repeated"),
    [("", 0), ("aaaa", 1), ("so so so", 0), ("so so so so ", 1), ("a\n\n\n\n", 0), ("abcabd", 0)],
)
def test_a_text_that_ends_in_a_phrase_again_and_again(text, repeated):
    [row] = text_rows([(text, "x")])
    assert metrics.measure([row], "generation")["repeated"] == [repeated]


def test_a_gold_output_that_is_no_label_leaves_accuracy_alone():
    rows = [row | {"output": "maybe"} for row in label_rows(5)]
    assert metrics.measure(rows, "labels").keys() == {"accuracy"}


def test_a_metric_is_one_entry_and_appears_everywhere(tmp_path, monkeypatch):
    title = "nats of the gold label"
    new = Metric(
        *("nats", title, ("labels",), -1),
        "how surprised the model is",
        lambda rows: [-row["scores"][row["output"]] for row in rows],
        unit="nats",
    )
    monkeypatch.setitem(metrics.METRICS, "nats", new)
    content = gather(write_study(tmp_path))
    recipe = content.report.recipes[0]
    found = [c for c in recipe.measures if c.metric == "nats"]
    assert {c.relation for c in found} == {"in-domain", "out-of-domain", "out-of-task"}
    [inside] = [c for c in found if c.relation == "in-domain" and c.shots is None]
    assert inside.direction == (-1 if inside.difference.value > 0 else 1)
    for text in (render.page_of(content), render.markdown_of(content)):
        assert title in text
    assert "nats" in render.tables_of(content)["comparisons.csv"]
    assert "nats" in results._measures(label_rows(6), "labels")["metrics"]


def test_values_may_be_written_as_json():
    for rows, kind in ((label_rows(), "labels"), (text_rows(), "generation")):
        json.dumps(metrics.measure(rows, kind))
    assert dataclasses.asdict(METRICS["auc"])["title"] == "AUC"


@pytest.mark.parametrize(
    ("output", "reference", "same"),
    [
        ("The answer is 42.", "#### 42", 1),
        ("12 + 30 = 42 apples", "42", 1),
        ("$1,234.50", "1234.5", 1),
        ("-3", "3", 0),
        ("3 or 4", "3", 0),
        ("no idea", "3", 0),
        ("0.1", "0.10", 1),
        ("10,20", "20", 1),
        ("about .5 of it", "0.5", 1),
        ("2010-2015", "2015", 1),
        ("f(-3)", "-3", 1),
    ],
)
def test_the_last_numbers_of_two_texts(output, reference, same):
    assert texts.same_number(output, reference) == same
    [row] = text_rows([(output, reference)])
    assert metrics.measure([row], "generation")["number"] == [same]


def test_numbers_mean_nothing_where_a_reference_has_none():
    assert "number" not in metrics.measure(text_rows([("1", "1"), ("2", "two")]), "generation")


@pytest.mark.parametrize(
    ("pattern", "output", "found"),
    [
        (r"####\s*(\S+)", "so #### Paris", 1),
        (r"####\s*(\S+)", "#### Rome, no: #### Paris", 1),
        (r"####\s*(\S+)", "Paris", 0),
        (r"[A-Z]\w+", "It is Paris", 1),
        (r"(?:answer: )(London|Paris)", "answer: Paris", 1),
    ],
)
def test_a_pattern_finds_the_answer(pattern, output, found):
    assert texts.matches(output, ["London", "paris"], re.compile(pattern)) == found


def test_a_pattern_finds_the_answer_in_references_too():
    solution = "2 and 2 make 4\n#### 4"
    for output, found in (("thus\n#### 4", 1), ("thus\n#### 5", 0)):
        assert texts.matches(output, [solution], re.compile(r"####\s*(\S+)")) == found


def test_of_several_references_the_best_counts():
    [one] = text_rows([("the old red house over there", "a blue car in the street")])
    both = one | {"golds": ["old red house over there", "a tree"]}
    plain, several = (metrics.measure([row], "generation") for row in (one, both))
    for name in ("exact", "f1"):
        assert (plain[name], several[name]) == ([0], [1])
    assert several["chrf"] > plain["chrf"]
    pairs = [(row["generation"], measures.golds(row)) for row in (both, both)]
    assert texts.corpus_bleu(pairs)[0] > texts.corpus_bleu([(p, g[:1]) for p, g in pairs])[0]


def test_a_main_metric_is_of_the_tasks_kind():
    assert metrics.main_metrics("eval.metric", ("question=exact",), TASKS) == {"question": "exact"}
    for value, message in (
        ("exact", "is written task=metric, such as choice=acc; tasks are summary"),
        ("question=accuracy", "metrics of question are rougeL, chrf, bleu, exact, f1, number"),
        ("sentiment=f1", "metrics of sentiment are accuracy, p_gold"),
    ):
        with pytest.raises(UserError, match=f"eval.metric={value}: {message}"):
            metrics.main_metrics("eval.metric", (value,), TASKS)
    with pytest.raises(UserError, match=r"eval.metric: question stands twice; give one metric"):
        metrics.main_metrics("eval.metric", ("question=exact", "question=f1"), TASKS)


def test_several_references_a_row_are_scored_by_the_metric_asked_for(notes_config, tmp_path):
    config, file = notes_config, tmp_path / "capitals_test.jsonl"
    rows = [
        {"input": "x", "output": {"text": ["first", "second", "first"]}},
        {"input": "y", "output": ["third"]},
        {"input": "z", "output": "fourth"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.eval.datasets, config.eval.shots = (f"summary:{file}",), (0,)
    config.eval.metric, config.eval.answer_pattern = ("summary=pattern",), "[a-z]+"
    config.eval.prompts = (0,)
    loop.evaluate(config, str(tmp_path / "eval"))
    (cell,) = records.read_lines(tmp_path / "eval", records.CELLS)
    found = records.read_lines(tmp_path / "eval", records.ROWS)
    assert [row.get("golds") for row in found] == [["second"], None, None]
    assert [row["output"] for row in found] == ["first", "third", "fourth"]
    assert cell["metric"] == "pattern"
    assert cell["value"] == pytest.approx(sum(row["pattern"] for row in found) / 3)
    gather([str(tmp_path / "eval")])  # a report reads it


def test_a_metric_that_goes_by_a_pattern_needs_one(config, tmp_path):
    config.eval.metric, config.model.path = ("summary=pattern",), "nowhere"
    with pytest.raises(UserError, match=r"pattern goes by eval.answer_pattern, which is empty"):
        loop.evaluate(config, str(tmp_path / "eval"))


def test_a_pattern_that_is_none_is_refused_before_the_model_is_looked_for(config, tmp_path):
    config.eval.answer_pattern, config.model.path = "(", "nowhere"
    with pytest.raises(UserError, match=r"eval\.answer_pattern=\(: no regular expression"):
        loop.evaluate(config, str(tmp_path / "eval"))

"""The retention panel: its rows, how they are scored, and what a report makes of them."""

import json
import math

import jax
import numpy as np
import plain_row
import pytest
from report_data import BASE, FT, read_jsonl, write_evaluation, write_jsonl

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import eval_batches, eval_grid, retention, rules
from jft.errors import UserError
from jft.evaluation import loop, measures, metrics
from jft.reporting import answer
from jft.reporting.compare import compare
from jft.reporting.content import gather
from jft.reporting.read import read_models
from jft.runtime import records
from jft.tasks import RETENTION, RETENTION_TASKS

TEXTS = [{"text": f"The {word} mill stands on the hill."} for word in ("old", "new", "tall")]
CHOICES = [
    {"input": "A dog can", "choices": ["bark.", "fly a plane."], "answer": 0},
    {"input": "A cat can", "choices": ["sing an opera.", "meow."], "answer": "B"},
    {"input": "Fish can", "choices": ["swim well.", "read.", "drive."], "answer": "swim well."},
]
INSTRUCTIONS = [
    {"input": "Say hello.", "checks": ["contains hello", "max_words 3"], "output": "Hello!"},
    {"input": "Count to three.", "checks": ["number 1", "number 3"]},
]


@pytest.fixture
def panel(config, tmp_path):
    """A config that scores one set with a panel of the user's own."""
    for name, rows in (("text", TEXTS), ("choice", CHOICES), ("instruction", INSTRUCTIONS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    parts = [f"{name}:{tmp_path / name}.json" for name in ("text", "choice", "instruction")]
    config.eval.retention = (*parts, "prompts")
    config.eval.datasets, config.eval.max_new_tokens, config.eval.limit = ("shops",), 4, 8
    return config


def direct(params, config, tokens, start):
    """The log-probability of tokens from `start` on, in one plain row."""
    padded = np.zeros((1, 256), np.int32)
    padded[0, : len(tokens)] = tokens
    logprobs = np.asarray(jax.nn.log_softmax(plain_row.logits(config, params, padded)), np.float64)
    at = np.arange(start, len(tokens))
    return logprobs[at - 1, tokens[at]].sum(), logprobs


def test_the_panels_own_rows_are_of_its_forms():
    sets = retention.retention_sets(("text", "choice", "instruction"), ())
    by_task = {}
    for each in sets:
        by_task.setdefault(each.dataset.task.name, []).append(each.dataset)
    texts = [e["output"] for d in by_task["general text"] for e in d.examples]
    assert len(by_task["general text"]) == 10
    assert len(texts) == len(set(texts)) == 240
    (choices,), (instructions,) = by_task["multiple choice"], by_task["instructions"]
    places = [e["choices"].split("\n").index(e["output"]) for e in choices.examples]
    assert sorted(places.count(i) for i in range(4)) == [30] * 4
    for example in instructions.examples:
        assert rules.follows(example["output"], example["checks"]), example
        assert not rules.follows("", example["checks"])
        assert not rules.follows("I do not know what to say about this one.", example["checks"])


def test_scores_equal_those_of_plain_rows(panel, tmp_path):
    loop.evaluate(panel, str(tmp_path / "eval"))
    rows = read_jsonl(tmp_path / "eval" / "rows.jsonl")
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params, _ = safetensors_io.load("random:llama-tiny")
    prefix = len(tokenizer.encode([""])[0])
    kinds = {name: [r for r in rows if r["task"] == name] for name in RETENTION_TASKS}
    assert [len(found) for found in kinds.values()] == [3, 8, 3, 2]
    for row in kinds["general text"]:
        (tokens,) = tokenizer.encode([row["output"]])
        logprob, logprobs = direct(params, config, tokens, max(1, prefix))
        assert row["logprob"] == pytest.approx(logprob, abs=1e-3)
        share = (len(tokens) - max(1, prefix)) / (len(tokens) - prefix)
        assert row["bytes"] == pytest.approx(len(row["output"].encode()) * share)
        # Each recorded distribution is one of the text's, and they are in order.
        found = [np.array(each["logprobs"]) for each in row["likeliest"]]
        top = np.sort(logprobs[max(1, prefix) - 1 : len(tokens) - 1])[:, ::-1][:, : len(found[0])]
        assert len(found) == 4
        for each in found:
            assert np.abs(top - each).max(axis=1).min() < 1e-3
    for row, raw in zip(kinds["multiple choice"], CHOICES, strict=True):
        for choice, score in row["scores"].items():
            (tokens,) = tokenizer.encode([f"{raw['input']} {choice}"])
            (prompt,) = tokenizer.encode([raw["input"]])
            assert score == pytest.approx(direct(params, config, tokens, len(prompt))[0], abs=1e-3)
        best = max(row["scores"], key=lambda c, row=row: row["scores"][c] / len(c))
        assert row["prediction"] == best
        assert row["correct"] == (best == row["output"])
    for row in kinds["instructions"]:
        assert isinstance(row["followed"], bool)


def test_every_evaluation_scores_the_panel_unless_told_otherwise(panel):
    panel.eval.retention = ()
    assert {c.dataset.task.name for c in eval_grid.all_cells(panel)} == {"sentiment"}
    panel.eval.retention = type(panel.eval)().retention
    names = [c.dataset.task.name for c in eval_grid.all_cells(panel)]
    assert set(names) == {"sentiment", *RETENTION_TASKS}
    assert names.count("general text") == 10


def test_the_panels_sets_are_retention_and_prompts_relate_as_their_sets(panel):
    panel.eval.datasets = ("shops", "films", "pairs")
    sets = [cell.dataset for cell in eval_grid.all_cells(panel)]
    found = eval_grid.relations(panel, sets, [("sentiment", "shops")])
    assert found["general text", "text"] == RETENTION
    assert found["multiple choice", "choice"] == RETENTION
    assert found["prompts of tasks", "sentiment/shops"] == "in-domain"
    assert found["prompts of tasks", "sentiment/films"] == "out-of-domain"
    assert found["prompts of tasks", "detection/pairs"] == "out-of-task"
    panel.eval.in_domain = ("films",)
    found = eval_grid.relations(panel, sets, [("sentiment", "shops")])
    assert found["general text", "text"] == RETENTION
    assert found["prompts of tasks", "sentiment/films"] == "in-domain"
    (told,) = eval_grid.tell_relations(type(panel)(), found, [("sentiment", "shops")])
    assert "text" not in told.text
    assert "instruction" not in told.text


def test_limits_for_the_users_rows_do_not_break_the_panel(panel):
    panel.data.max_length, panel.data.row_length = 64, 64
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    for cell in eval_grid.all_cells(panel)[1:]:
        packed = eval_batches.pack_cell(cell, tokenizer, panel)
        assert len(packed.encoded) == min(8, len(cell.dataset.examples))


@pytest.mark.parametrize(
    ("part", "row", "says"),
    [
        ("tekst", None, "is one of text, prompts, choice, instruction"),
        ("prompts:x.json", None, "is one of text, prompts, choice, instruction"),
        ("text:mine", None, "rows come as"),
        ("text", {"texts": "a"}, "text=None: must be text"),
        ("text", {"text": " "}, "text=' ': must be text"),
        ("choice", {"input": "a", "choices": ["b"], "answer": 0}, "2 to 26 different texts"),
        ("choice", {"input": "a", "choices": ["b", " b"], "answer": 0}, "2 to 26 different texts"),
        ("choice", {"input": "a", "choices": ["b", ""], "answer": 0}, "2 to 26 different texts"),
        (
            "choice",
            {"input": "a", "choices": [*"abcdefghijklmnopqrstuvwxyz0"], "answer": 0},
            "2 to",
        ),
        ("choice", {"input": "a", "choices": "b or c", "answer": 0}, "must be a list of texts"),
        ("choice", {"input": "a", "choices": ["b", "c"], "answer": "AB"}, "the index of one of 2"),
        ("choice", {"input": "a", "choices": ["b", "c"], "answer": 0.5}, "the index of one of 2"),
        ("choice", {"input": "a\ud800", "choices": ["b", "c"], "answer": 0}, "half of a character"),
        ("text", {"text": "a\ud800"}, "half of a character"),
        ("instruction", {"input": "a", "checks": ["max_words 9"], "output": "\ud800"}, "half of a"),
        ("instruction", {"input": "a", "checks": ["excludes b\nfoo c\ud800"]}, "half of a"),
        ("instruction", {"input": "a", "checks": ["max_words 9999999999"]}, "is none of"),
        ("instruction", {"input": "a", "checks": ["contains !!"]}, "is none of"),
        ("instruction", {"input": "a", "checks": ["one_of yes|!"]}, "is none of"),
        ("instruction", {"input": "a", "checks": ['ends "']}, "is none of"),
        ("choice", {"input": "a", "choices": ["b", "c"], "answer": 2}, "the index of one of 2"),
        ("choice", {"input": "a", "choices": ["b", "c"], "answer": "D"}, "the index of one of 2"),
        ("choice", {"input": "a", "choices": ["b", "c"], "answer": True}, "the index of one of 2"),
        ("instruction", {"input": "a", "checks": []}, "must be a list of rules"),
        ("instruction", {"input": "a"}, "must be a list of texts"),
        ("instruction", {"input": "a", "checks": ["shorter"]}, "the rule 'shorter' is none of"),
        ("instruction", {"input": "a", "checks": ["max_words x"]}, "is none of max_words N"),
        ("instruction", {"input": "a", "checks": ["upper x"]}, "is none of"),
        ("instruction", {"input": "a", "checks": ["language xx"]}, "languages are en"),
    ],
)
def test_rows_that_are_not_of_a_form_are_refused(panel, tmp_path, part, row, says):
    if row is not None:
        (tmp_path / "own.jsonl").write_text(json.dumps(row))
        part = f"{part}:{tmp_path / 'own.jsonl'}"
    panel.eval.retention = (part,)
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        eval_grid.all_cells(panel)


def test_a_part_twice_is_refused(panel):
    panel.eval.retention = ("choice", "choice")
    with pytest.raises(UserError, match="stands there twice"):
        eval_grid.all_cells(panel)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("max_words 3", "one, two-three four", "one two three four"),
        ("min_words 2", "two words", "one"),
        ("contains blue sky", "A Blue  sky!", "blue and sky"),
        ("contains cat", "The cat.", "concatenate"),
        ("excludes no", "nothing", "No."),
        ("starts the", "The end", "At the end"),
        ("ends .", "Done.", "Done"),
        ("one_of yes|of course", '"Of course!"', "of course not"),
        ("number 5", "It is five.", "15"),
        ("number 007", "7", "70"),
        ("starts hello there", "Hello  there, you", "hello"),
        ("number 1200", "1,200 in all", "1, 200"),
        ("upper", "ALL 3 OF IT", "All"),
        ("lower", "all of it", "All of it"),
        ("lower", "é", "12"),
        ("items 3", "a, b and c", "a and b"),
        ("items 2", "- a\n- b", "a"),
        ("language fr", "La maison est très grande.", "The house is large."),
        ("language de", "Das Wetter ist heute schön.", "El tiempo es muy bueno."),
        ("language es", "Mi amigo vive en una casa.", "Das Wetter ist heute schön."),
        ("language en", "The house is large.", "La maison est très grande."),
    ],
)
def test_rules(rule, good, bad):
    rules.check_rule(rule, "row 0")
    assert rules.follows(good, rule)
    assert not rules.follows(bad, rule)
    assert not rules.follows("", rule)


def test_divergence_over_the_likeliest_is_no_more_than_over_all():
    rng = np.random.default_rng(0)
    for change in (0.01, 0.3, 3.0):
        logits = rng.normal(0, 3, 5000)
        p, q = (x - np.log(np.exp(x).sum()) for x in (logits, logits + rng.normal(0, change, 5000)))
        whole = float(np.sum(np.exp(p) * (p - q)))
        top = [dict(zip(o.tolist(), x[o].tolist(), strict=True)) for x in (p, q)
               for o in [np.argsort(-x)[:128]]]  # fmt: skip
        found = measures.kl_divergence(*top)
        assert 0.6 * whole < found <= whole + 1e-6
        assert measures.kl_divergence(top[0], top[0]) == 0
    assert measures.kl_divergence({0: -0.1}, {1: -0.1}) == 0  # nothing in common says nothing


def write_panel(folder, relation, bits, right):
    """Add cells of the panel to a made-up evaluation."""
    rng, cells, rows = np.random.default_rng(7), [], []
    model = records.read_scored_model(folder)
    for task, metric in (("general text", "bits"), ("multiple choice", "acc_norm")):
        where = {"model": model["model"], "task": task, "dataset": task.split()[0]}
        where |= {"shots": 0, "prompt": 0, "draw": 0}
        values = []
        for i in range(60):
            row = where | {"index": i, "request_sha256": f"{i}", "output": "a", "prediction": "a"}
            if metric == "bits":
                values.append(bits + 0.2 * rng.random())
                row |= {
                    "prediction": "",
                    "logprob": -100 * values[-1] * math.log(2),
                    "bytes": 100.0,
                }
                row |= {"likeliest": [{"ids": [1, 2], "logprobs": [-0.5, -1.5 - bits]}]}
            else:
                values.append(float(rng.random() < right))
                row |= {"correct": bool(values[-1]), "scores": {"a": -1.0, "b": -3.0}}
                row |= {"prediction": "a" if values[-1] else "b"}
            rows.append(row)
        cells.append(
            where | {"relation": relation, "metric": metric, "value": float(np.mean(values))}
            | {"stderr": 0.01, "n": 60, "skipped": 0, "shortened": 0, "demos_among_items": 0}
            | {"items_trained_on": None, "rows_sha256": "", "prompt_sha256": ""}
            | {"sequence_tokens": 9, "row_tokens": 9}
        )  # fmt: skip
    records.append(folder, records.ROWS, rows)
    records.append(folder, records.CELLS, cells)


def test_the_report_judges_what_was_retained(tmp_path):
    base = write_evaluation(tmp_path / "base", "tiny", BASE)
    tuned = write_evaluation(
        tmp_path / "ft", "FT gadgets_train_400", FT, model_path="/runs/ft",
        train="gadgets_train_400", train_shots=0,
    )  # fmt: skip
    write_panel(base, "base", 1.0, 0.8)
    write_panel(tuned, RETENTION, 2.5, 0.3)
    report = compare(read_models([str(tmp_path)]))
    [group] = report.groups
    kept = {c.metric: c for c in group.answer if c.relation == RETENTION}
    assert kept["bits"].change == pytest.approx(1.5)
    assert kept["bits"].direction == kept["acc_norm"].direction == -1
    assert kept["bits"].difference.high > 1.5  # a change of bits has no limit of 1
    said = answer.verdict(group.answer, 0.02)
    assert "in retention (choices and bits per byte)" in said
    text = answer.sentence(kept["bits"], 0.02)
    assert "+1.500 bits" in text
    assert "points" not in text
    [recipe] = report.recipes
    (kl,) = [c for c in recipe.measures if c.metric == metrics.KL]
    assert kl.reference_value == 0
    assert kl.value > 0
    content = gather([str(tmp_path)])
    assert content.matrices[-1].title == "Retention"
    assert content.matrices[-1].rows[-1].cells[0].direction == "down"


def test_a_model_is_compared_with_its_base_at_the_shots_that_suit_that_best(tmp_path):
    """The number of shots is chosen on items that are not compared."""
    base = write_evaluation(tmp_path / "base", "tiny", BASE, prompts=(0,))
    write_evaluation(
        tmp_path / "ft", "FT gadgets_train_400", FT, model_path="/runs/ft", prompts=(0,),
        train="gadgets_train_400", train_shots=0,
    )  # fmt: skip
    rows = read_jsonl(base / "rows.jsonl")
    right = {(r["dataset"], r["shots"], r["index"]): float(r["correct"]) for r in rows}
    [recipe] = compare(read_models([str(tmp_path)])).recipes
    found = {c.relation: c.stands_for or c for c in recipe.prompting}

    def best(dataset):
        """Choose by hand, for each tenth of the items by the others."""
        chosen = [
            max((0, 2), key=lambda s, t=tenth: sum(
                right[dataset, s, i] for i in range(40) if i % 10 != t
            ))
            for tenth in range(10)
        ]  # fmt: skip
        return np.mean([right[dataset, chosen[i % 10], i] for i in range(40)])

    assert found["in-domain"].reference_value == pytest.approx(best("gadgets"))
    outside = [best(name) for name in ("films", "trips")]
    assert found["out-of-domain"].reference_value == pytest.approx(np.mean(outside))
    assert found["in-domain"].shots == 0
    assert len(found) == 3


def test_a_task_of_the_users_own_may_not_be_called_as_one_of_the_panel(panel):
    panel.data.task, panel.data.template = "multiple choice", "Text: {input}"
    with pytest.raises(UserError, match=r"data.task=multiple choice: is jft's own"):
        eval_grid.all_cells(panel)


def test_lists_in_csv_are_json_and_parquets_numbers_are_indices(panel, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text('input,choices,answer\nA dog can,"[""bark."", ""fly.""]",B\n')
    panel.eval.retention = (f"choice:{file}",)
    (cell,) = eval_grid.all_cells(panel)[1:]
    assert cell.dataset.examples == [
        {"input": "A dog can", "choices": "bark.\nfly.", "output": "fly."}
    ]
    (tmp_path / "own.json").write_text(json.dumps([CHOICES[0] | {"answer": 1.0}]))
    panel.eval.retention = (f"choice:{tmp_path / 'own.json'}",)
    assert eval_grid.all_cells(panel)[1].dataset.examples[0]["output"] == "fly a plane."


class Words:
    """A tokenizer of words, in lower case, with or without a token before all texts."""

    eos_id = 0

    def __init__(self, prefix=()):
        self.prefix = list(prefix)

    def encode(self, texts):
        return [
            np.array(self.prefix + [sum(map(ord, w)) for w in text.lower().split()], np.int32)
            for text in texts
        ]


def test_choices_that_are_the_same_tokens_are_refused(panel, tmp_path):
    rows = [{"input": "A dog", "choices": ["can Bark", "can bark"], "answer": 0}]
    (tmp_path / "choice.json").write_text(json.dumps(rows))
    cell = eval_grid.all_cells(panel)[2]
    with pytest.raises(UserError, match="makes the same tokens of 'can Bark' and 'can bark'"):
        eval_batches.pack_cell(cell, Words(), panel)


@pytest.mark.parametrize("prefix", [(), (7,)])
def test_bytes_are_those_of_the_tokens_that_are_read(panel, tmp_path, prefix):
    """However unequal the tokens are: short words first, then one of many bytes."""
    panel.data.max_length = 64  # then texts are read up to 512 tokens
    short, long = "a b c d", " \u6c34" * 600
    (tmp_path / "text.json").write_text(json.dumps([{"text": short}, {"text": short + long}]))
    cell = eval_grid.all_cells(panel)[1]
    whole, cut = eval_batches.pack_cell(cell, Words(prefix), panel).encoded
    first = 0 if prefix else len("a ")
    assert whole.num_bytes == len(short) - first
    kept = len(cut.sequences[0].tokens) - len(prefix)
    assert cut.num_bytes == len((short + long[: 2 * (kept - 4)] + " ").encode()) - first
    (tmp_path / "text.json").write_text(json.dumps([{"text": "a"}]))
    cell = eval_grid.all_cells(panel)[1]
    if prefix:
        assert eval_batches.pack_cell(cell, Words(prefix), panel).encoded[0].num_bytes == 1
    else:
        with pytest.raises(UserError, match=r"row 0.*has no token to predict"):
            eval_batches.pack_cell(cell, Words(prefix), panel)


@pytest.mark.parametrize(
    ("task", "change", "says"),
    [
        ("general text", {"likeliest": None}, "likeliest: must be lists"),
        ("general text", {"likeliest": []}, "likeliest: must be lists"),
        ("general text", {"logprob": 10**400}, "logarithm of a probability"),
        ("general text", {"logprob": -1e308}, "logarithm of a probability"),
        ("general text", {"logprob": 3.0}, "logarithm of a probability"),
        ("general text", {"bytes": 1e-320}, "a number of bytes"),
        ("general text", {"likeliest": [{"ids": [1], "logprobs": [-1]}] * 3}, "differ in their"),
        ("multiple choice", {"scores": {}}, "must be a number for each"),
        ("multiple choice", {"scores": {"x": -1}}, "must be one of its choices"),
        ("multiple choice", {"correct": 0.5}, "must be true or false"),
        ("multiple choice", {"correct": False, "prediction": "b"}, "but its rows in rows.jsonl"),
    ],
)
def test_damaged_rows_are_named(tmp_path, task, change, says):
    base = write_evaluation(tmp_path / "base", "tiny", BASE)
    write_panel(base, "base", 1.0, 1.0)
    rows = read_jsonl(base / "rows.jsonl")
    next(row for row in rows if row["task"] == task).update(change)
    write_jsonl(base / "rows.jsonl", rows)
    with pytest.raises(UserError, match=says):
        read_models([str(tmp_path)])

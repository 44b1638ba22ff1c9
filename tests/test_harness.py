"""Results of lm-evaluation-harness: read, paired by document, and judged like jft's own."""

import json
import math

import pytest
from report_data import BASE, write_evaluation

from jft.errors import UserError
from jft.reporting.compare import compare
from jft.reporting.content import gather
from jft.reporting.read import read_models


def write_results(folder, name, tasks, stamp="2026-01-01T00-00-00"):
    """Write a folder as the harness does (0.4.9): results, and samples of each task."""
    inside = folder / name.replace("/", "__")
    inside.mkdir(parents=True, exist_ok=True)
    results = {"n-shot": dict.fromkeys(tasks, 5), "model_name": name, "model_source": "hf"}
    (inside / f"results_{stamp}.json").write_text(json.dumps(results))
    for task, samples in tasks.items():
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        (inside / f"samples_{task}_{stamp}.jsonl").write_text(lines)
    return folder


def sample(doc, target="0", prompt="p", **fields):
    return {"doc_id": doc, "target": target, "filter": "none", "doc_hash": f"{doc}"} | {
        "prompt_hash": prompt, "filtered_resps": [["-1.5", "False"], ["-2.5", "False"]]
    } | fields  # fmt: skip


def choices(right, **fields):
    return [sample(i, acc=float(x), acc_norm=float(x), **fields) for i, x in enumerate(right)]


@pytest.fixture
def folders(tmp_path):
    rolled = [
        [sample(i, bits_per_byte=[-logprob, 100], word_perplexity=[-logprob, 20]) for i in range(8)]
        for logprob in (70.0, 140.0)
    ]
    texts = [
        [
            sample(i, filter=name, exact_match=float(right), filtered_resps=["4"])
            for name, right in (("strict", False), ("flexible", found))
            for i in range(8)
        ]
        for found in (True, False)
    ]
    base = write_results(
        tmp_path / "base", "org/base",
        {"arc_easy": choices([1] * 30 + [0] * 10), "wiki": rolled[0], "gsm8k": texts[0]},
    )  # fmt: skip
    tuned = write_results(
        tmp_path / "tuned", "exports/ft",
        {"arc_easy": choices([1] * 5 + [0] * 35), "wiki": rolled[1], "gsm8k": texts[1]},
    )  # fmt: skip
    return [str(base), str(tuned)]


def test_models_are_paired_by_document(folders):
    report = compare(read_models(folders))
    [base], [recipe] = report.bases, report.recipes
    assert (base.name, recipe.name, recipe.base) == ("org/base", "exports/ft", "org/base")
    cells = {(c.dataset, c.metric): c for c in recipe.cells}
    assert cells["arc_easy", "acc_norm"].change == pytest.approx(-25 / 40)
    assert cells["arc_easy", "acc_norm"].shots == 5
    assert cells["wiki", "bits"].change == pytest.approx(0.7 / math.log(2))
    assert cells["gsm8k", "exact"].change == 0  # by the first of its filters
    assert cells["gsm8k", "exact"].n == 8
    assert {c.relation for c in recipe.relations} == {"retention"}
    assert any(c.metric == "acc" for c in recipe.measures)
    assert all(
        c.direction == -1 for c in report.groups[0].answer if c.metric in ("bits", "acc_norm")
    )
    content = gather(folders)
    assert content.report.groups[0].name == "exports/ft"


def test_the_base_is_the_first_or_the_one_that_is_named(folders, tmp_path):
    named = read_models(folders, base=folders[1])
    assert [model.name for model in named if model.is_base] == ["exports/ft"]
    assert [m.name for m in read_models([str(tmp_path)]) if m.is_base] == ["org/base"]
    with pytest.raises(UserError, match=r"--base=.*none of the folders"):
        read_models(folders, base=str(tmp_path / "other"))


def test_of_several_runs_the_latest_counts(folders, tmp_path):
    write_results(
        tmp_path / "base", "org/base", {"arc_easy": choices([0] * 40)}, "2026-02-01T00-00-00"
    )
    [recipe] = compare(read_models(folders)).recipes
    assert {c.dataset: c.change for c in recipe.cells}["arc_easy"] == pytest.approx(5 / 40)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ([{"target": "a"}], "is no sample of lm-evaluation-harness"),
        ([sample(0, bleu=[1, 2])], "none of its tasks has a metric that jft knows"),
        ([sample(0, acc=55.0)], "none of its tasks has a metric that jft knows"),
        ([], "holds no samples"),
        ([sample(0, acc="yes")], "acc='yes'; must be a number"),
        ([sample(0, acc=10**400)], "must be a number"),
        ([sample(0, acc=1.0, filtered_resps=5)], "must be a list of answers"),
        ([sample(0, acc=1.0, filtered_resps=[["a", "b"], [None, "d"]])], "hold log-probabilities"),
        ([sample(0, acc=1.0), sample(0, acc=0.0)], "has a document twice"),
        ([sample(0, bits_per_byte=[-1, 0])], "must be .log-probability, bytes"),
        ([sample(0, bits_per_byte=[-5, -5])], "must be .log-probability, bytes"),
        ([sample(0, bits_per_byte=["a", 5])], "must be .log-probability, bytes"),
    ],
)
def test_damaged_samples_are_named(tmp_path, samples, says):
    write_results(tmp_path, "m", {"task": samples})
    with pytest.raises(UserError, match=says):
        read_models([str(tmp_path)])


def test_other_documents_or_prompts_are_refused(folders, tmp_path):
    write_results(tmp_path / "tuned", "exports/ft", {"arc_easy": choices([1] * 40, prompt="q")})
    with pytest.raises(UserError, match="other words"):
        compare(read_models(folders))


def test_a_folder_without_results_is_an_error(folders, tmp_path):
    next((tmp_path / "base").rglob("results*.json")).unlink()
    with pytest.raises(UserError, match=r"no results\*.json"):
        read_models(folders)


def test_the_answer_that_is_shown_is_the_one_that_is_judged(tmp_path):
    """By length the second choice is likelier, by sum the first."""
    arguments = {f"gen_args_{i}": {"arg_0": "q", "arg_1": f" {text}"}
                 for i, text in enumerate(("ab", "a longer one"))}  # fmt: skip
    both = {"acc": 0.0, "arguments": arguments}
    write_results(
        tmp_path, "m", {"norm": [sample(0, **both, acc_norm=1.0)], "sum": [sample(0, **both)]}
    )
    [model] = read_models([str(tmp_path)])
    shown = {key.dataset: cell.items[0].prediction for key, cell in model.cells.items()}
    assert shown == {"norm": "1", "sum": "0"}


def test_a_base_is_asked_for_where_there_is_no_harness(tmp_path):
    write_evaluation(tmp_path / "base", "tiny", BASE)
    with pytest.raises(UserError, match="of which there is none here"):
        read_models([str(tmp_path)], base=str(tmp_path))


def test_runs_of_one_folder_have_their_own_numbers_of_shots(tmp_path):
    """And a task that jft cannot read is left out, with a note."""
    write_results(tmp_path, "m", {"old": choices([1, 0]), "bleu": [sample(0, bleu=3.0)]})
    later = write_results(tmp_path, "m", {"new": choices([1, 0])}, "2026-02-01T00-00-00")
    file = later / "m" / "results_2026-02-01T00-00-00.json"
    file.write_text(json.dumps({"n-shot": {"new": 0}, "model_name": "m"}))
    [model] = read_models([str(tmp_path)])
    assert {key.dataset: key.shots for key in model.cells} == {"old": 5, "new": 0}


def test_models_are_compared_by_a_metric_that_both_have(folders, tmp_path):
    only = [{k: v for k, v in each.items() if k != "acc_norm"} for each in choices([1] * 40)]
    write_results(tmp_path / "tuned", "exports/ft", {"arc_easy": only})
    report = compare(read_models(folders))
    found = {c.dataset: c for c in report.recipes[0].cells}["arc_easy"]
    assert (found.metric, found.change) == ("acc", pytest.approx(10 / 40))


def test_what_one_of_two_lacks_is_noted(folders, tmp_path):
    next((tmp_path / "tuned").rglob("samples_wiki*")).unlink()
    report = compare(read_models(folders))
    assert any("was not scored on 1 tasks of lm-eval" in note for note in report.gaps)
    report = compare(read_models(folders, base=folders[1]))
    assert any("run lm_eval on its base exports/ft, too, for wiki" in n for n in report.gaps)

"""The `mini` suite: its files are what the generator writes, and no surface cue solves a task."""

import collections
import json
import re
import string

import pytest

from tools.mini import cues, make

LABELLED = {
    "sentiment": ["negative", "positive"],
    "inference": ["contradiction", "entailment", "neutral"],
    "detection": ["no", "yes"],
}
SETS = [(task, name) for task, module in make.TASKS.items() for name in module.DATASETS]
TRAINED = {task: module.DATASETS[0] for task, module in make.TASKS.items()}


def load(task, name):
    return json.loads((make.ROOT / task / f"{name}.json").read_text(encoding="utf-8"))


def files_of(task, dataset):
    """The rows of each file of one dataset, by file name."""
    names = [f"{dataset}_test_120", f"few_shot/{dataset}_few_shot"]
    if TRAINED[task] == dataset:
        names.append(f"{dataset}_train_480")
    return {name: load(task, name) for name in names}


def test_files_are_what_the_generator_writes():
    written = {
        str(path.relative_to(make.ROOT)): path.read_bytes() for path in make.ROOT.rglob("*.json")
    }
    built = {path: text.encode() for path, text in make.build().items()}
    assert written.keys() == built.keys()
    assert [path for path in built if built[path] != written[path]] == []


def test_every_task_has_one_training_set_and_three_test_sets():
    assert len(SETS) == 15
    assert len({name for _, name in SETS}) == 15
    for task, dataset in SETS:
        sizes = {name: len(rows) for name, rows in files_of(task, dataset).items()}
        assert sizes.pop(f"{dataset}_test_120") == 120
        assert sizes.pop(f"few_shot/{dataset}_few_shot") == 8
        assert list(sizes.values()) == ([480] if TRAINED[task] == dataset else [])


@pytest.mark.parametrize("task", make.TASKS)
def test_no_set_breaks_a_bound(task):
    datasets = list(make.TASKS[task].DATASETS)
    measured = list(cues.measure(make.ROOT, task, datasets))
    assert len(measured) == 4
    assert {name: bad for name, *rest in measured if (bad := cues.broken(task, name, *rest))} == {}


def test_check_fails_when_a_cue_gives_the_answer_away(tmp_path):
    for path, text in make.build().items():
        if path.startswith("detection"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text, encoding="utf-8")
    sets = {"detection": list(make.TASKS["detection"].DATASETS)}
    assert cues.report(tmp_path, sets) == 0
    target = tmp_path / "detection" / "queries_test_120.json"
    rows = json.loads(target.read_text(encoding="utf-8"))
    for row in rows:
        if row["output"] == "yes":
            row["input_2"] = row["input_1"] + " Please?"
    target.write_text(make.lines(rows), encoding="utf-8")
    assert cues.report(tmp_path, sets) == 1


@pytest.mark.parametrize(("task", "dataset"), SETS)
def test_no_row_occurs_twice_or_in_two_sets(task, dataset):
    keys = [make.inputs(r) for rows in files_of(task, dataset).values() for r in rows]
    assert [key for key, n in collections.Counter(keys).items() if n > 1] == []


@pytest.mark.parametrize("task", make.TASKS)
def test_no_test_text_occurs_in_training(task):
    trained = {make.content(row) for row in load(task, f"{TRAINED[task]}_train_480")}
    for dataset in make.TASKS[task].DATASETS:
        tested = {make.content(row) for row in load(task, f"{dataset}_test_120")}
        assert not tested & trained


@pytest.mark.parametrize("task", LABELLED)
def test_labels_are_balanced_from_the_first_demonstrations_on(task):
    for dataset in make.TASKS[task].DATASETS:
        for name, rows in files_of(task, dataset).items():
            counts = collections.Counter(row["output"] for row in rows)
            assert sorted(counts) == LABELLED[task], name
            assert max(counts.values()) - min(counts.values()) <= 1, name
        demos = load(task, f"few_shot/{dataset}_few_shot")
        first = [row["output"] for row in demos[: len(LABELLED[task])]]
        assert sorted(first) == LABELLED[task]


@pytest.mark.parametrize(("task", "dataset"), SETS)
def test_rows_have_the_fields_of_the_prompts_and_an_idx(task, dataset):
    prompts = load("", "prompt_map")
    fields = [{f for _, f, *_ in string.Formatter().parse(p[task]) if f} for p in prompts]
    rows = [row for rows in files_of(task, dataset).values() for row in rows]
    assert len(prompts) == 2
    assert all(set(row) == {"idx", "output"} | names for row in rows for names in fields)
    assert len({row["idx"] for row in rows}) == len(rows)
    assert all(row["output"] for row in rows)


@pytest.mark.parametrize(("task", "dataset"), SETS)
def test_texts_are_filled_and_tidy(task, dataset):
    for rows in files_of(task, dataset).values():
        for text in (value for row in rows for key, value in row.items() if key != "idx"):
            assert not re.search(
                r"[{}|\[\]=/]|  | [.,;:?!]|\.\.|\b([Aa] [aeio]|[Aa]n [bcdfgjk])", text
            )
            assert text == text.strip() != ""


@pytest.mark.parametrize("dataset", make.TASKS["summary"].DATASETS)
def test_names_and_numbers_of_a_summary_stand_in_its_article(dataset):
    for rows in files_of("summary", dataset).values():
        for row in rows:
            # The first word has a capital in any case.
            named = re.findall(r"\b[A-Z][a-z]+|\d+", row["output"].split(" ", 1)[1])
            assert [word for word in named if word not in row["input"]] == []


def test_inference_premises_of_a_hypothesis_carry_all_labels():
    for dataset in make.TASKS["inference"].DATASETS:
        labels = collections.defaultdict(collections.Counter)
        for row in load("inference", f"{dataset}_test_120"):
            labels[row["input_2"]][row["output"]] += 1
        assert all(len(set(count.values())) == 1 for count in labels.values())
        assert all(len(count) == 3 for count in labels.values())

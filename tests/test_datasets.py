"""Datasets: files, `datasets`, `tensorflow_datasets`, names of sets, and tasks made by a config."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from jft import config as config_lib
from jft.data import checks
from jft.data.rows import datasets, mappings
from jft.data.rows.dataset_ref import DatasetRef
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.tasks import TASKS
from jft.training import loop

EXAMPLES = [
    {"input": "so, so\ngood", "output": "positive"},
    {"input": 'a "bad" one', "output": "negative"},
]


@pytest.mark.parametrize(
    ("text", "task", "is_own", "name", "title"),
    [
        ("paws", "", False, "paws", "paws"),
        ("paws_test_500", "", False, "paws", "paws_test_500"),
        ("detection/paws_test_500", "", False, "paws", "paws_test_500"),
        ("a/mails_train.jsonl", "", True, "mails", "mails_train"),
        ("detection:a/mails_test_9.csv", "detection", True, "mails", "mails_test_9"),
        ("hf:glue/sst2/train", "", True, "glue-sst2", "glue-sst2"),
        ("sentiment:hf:nobody/sst2/train", "sentiment", True, "nobody-sst2", "nobody-sst2"),
        ("sentiment:tfds:glue/sst2:test", "sentiment", True, "glue-sst2", "glue-sst2"),
    ],
)
def test_every_way_to_name_a_dataset(text, task, is_own, name, title):
    ref = DatasetRef.parse(text, "eval.datasets", TASKS)
    assert (ref.task, ref.is_own, ref.name, ref.title) == (task, is_own, name, title)


def write_file(path: Path) -> None:
    """The examples in the format that the file's name tells."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(EXAMPLES[0]))
            writer.writeheader()
            writer.writerows(EXAMPLES)
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(EXAMPLES), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in EXAMPLES))
    else:
        path.write_text(json.dumps(EXAMPLES))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_files(suffix, config, tmp_path):
    path = tmp_path / f"mine_test_2{suffix}"
    write_file(path)
    dataset = datasets.suite(config.data).test_set(f"sentiment:{path}")
    assert (dataset.name, dataset.examples) == ("mine", EXAMPLES)


def test_csv_of_a_spreadsheet_with_an_article_in_a_field(config, tmp_path):
    article = "word " * 40_000
    file = tmp_path / "sheet.csv"
    file.write_text(f"input,output\n{article},positive\n", encoding="utf-8-sig")
    assert datasets.suite(config.data).test_set(f"sentiment:{file}").examples[0]["input"] == article


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.csv", "input,output\na\n", "2 columns of the first line"),
        ("long.csv", "input,output\na,b,c\n", "2 columns of the first line"),
        ("quote.csv", 'input,output\n"a,b\n', "not valid CSV"),
        ("empty.csv", "input,output\n", "holds no rows"),
        ("not.parquet", "input", "not readable as Parquet"),
        (
            "list.json",
            '[{"input": "a", "output": [1]}]',
            "'output' must be text, not list",
        ),
        ("row.json", '["a"]', "must be an object with input, output"),
        ("other.json", '[{"text": "a", "output": "positive"}]', "data.fields, as input=COLUMN"),
        ("tweet_qa.json", '[{"Question": "a"}]', "data.fields, as (input|output)=COLUMN"),
    ],
)
def test_damaged_files(name, content, message, config, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        datasets.suite(config.data).test_set(f"sentiment:{tmp_path / name}")


def test_a_public_name_does_not_hide_the_fields_of_a_file(config, tmp_path):
    (tmp_path / "sst2.json").write_text(json.dumps(EXAMPLES))
    dataset = datasets.suite(config.data).test_set(f"sentiment:{tmp_path / 'sst2.json'}")
    assert dataset.examples == EXAMPLES


@pytest.fixture
def hub_folder(tmp_path):
    """SST-2's columns, as `datasets` saves a dataset with its splits."""
    import datasets

    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["negative", "positive"]),
        }
    )
    columns = {"sentence": ["so good", "a bad one"], "label": [1, 0]}
    dataset = datasets.Dataset.from_dict(columns, features=features)
    folder = tmp_path / "hub" / "sst2"
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(folder))
    plain = tmp_path / "hub" / "plain"
    plain.mkdir()
    dataset.to_parquet(str(plain / "train-00000-of-00001.parquet"))
    return tmp_path / "hub"


def test_a_folder_of_datasets_with_the_columns_of_a_public_dataset(config, hub_folder):
    suite = datasets.suite(config.data)
    dataset = suite.test_set(f"sentiment:hf:{hub_folder}/sst2/test")
    assert dataset.name == "sst2"
    assert dataset.examples == [
        {"input": "so good", "output": "positive"},
        {"input": "a bad one", "output": "negative"},
    ]
    assert DatasetRef.parse(f"hf:{hub_folder}/sst2/train").name == dataset.name
    with pytest.raises(UserError, match="sst2/nope"):
        suite.test_set(f"sentiment:hf:{hub_folder}/sst2/nope")


def test_a_mapping_of_ones_own(config, hub_folder):
    config.data.train = f"hf:{hub_folder}/plain/train"
    config.data.fields = ("input=sentence", "output=label")
    config.data.labels = ("1=positive", "0=negative")
    assert datasets.suite(config.data).training_sets()[0].examples[0] == {
        "input": "so good",
        "output": "positive",
    }
    config.data.fields = ("input=text", "output=label")
    with pytest.raises(UserError, match="no column 'text' for the field 'input'"):
        datasets.suite(config.data).training_sets()[0]
    config.data.fields = ("input",)
    with pytest.raises(UserError, match=r"data\.fields=input: is written field=column"):
        datasets.suite(config.data).training_sets()[0]


TFDS = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class Sst2(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"sentence": tfds.features.Text(), "idx": np.int32}
        features["label"] = tfds.features.ClassLabel(names=["negative", "positive"])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(3)}

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {"sentence": f"row {i} \\u00fc", "label": i % 2, "idx": i}

Sst2(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


def test_tensorflow_datasets(config, tmp_path, monkeypatch):
    written = subprocess.run(
        [sys.executable, "-c", TFDS, str(tmp_path)], capture_output=True, text=True
    )
    assert written.returncode == 0, written.stderr
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset = datasets.suite(config.data).test_set("sentiment:tfds:sst2:test")
    assert dataset.name == "sst2"
    assert sorted((e["input"], e["output"]) for e in dataset.examples) == [
        ("row 0 ü", "negative"),
        ("row 1 ü", "positive"),
        ("row 2 ü", "negative"),
    ]
    with pytest.raises(UserError, match="tfds:sst2:nope"):
        datasets.suite(config.data).test_set("sentiment:tfds:sst2:nope")
    assert "tensorflow" not in sys.modules


def test_every_mapping_of_a_public_dataset_is_of_some_task():
    fields = [{*task.fields, "output"} for task in TASKS.values()]
    for name, mapping in mappings.PUBLIC.items():
        assert {*mapping.columns} in fields, name
        labels = {*mapping.labels.values()}
        assert not labels or any(labels <= {*task.labels} for task in TASKS.values()), name
    raw = {"context": "c", "answerA": "x", "answerB": "y", "answerC": "z", "label": "2"}
    _, mapping = mappings.for_public_dataset("allenai-social_i_qa")
    mapped = mapping.apply(raw | {"question": "q"}, TASKS["question"], "")
    assert mapped == {"input": "c", "answer": "y", "output": "q"}


def test_a_task_of_ones_own_by_config_alone(config, tmp_path):
    lines = [{"text": f"win {i} now", "kind": ("spam", "ham")[i % 2]} for i in range(12)]
    for split in ("train", "test"):
        file = tmp_path / f"mails_{split}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config.data.task, config.data.template = "mail", "Mail: {input}\nKind:"
    config.data.fields = ("input=text", "output=kind")
    config.data.labels = ("spam", "ham")
    config.data.train = str(tmp_path / "mails_train.jsonl")
    config.train.steps, config.train.batch_size = 2, 4
    loop.train(config, str(tmp_path / "run"))
    config.model.path = str(tmp_path / "run")
    config.eval.datasets = (f"mail:{tmp_path / 'mails_test.jsonl'}", "shops")
    config.eval.shots, config.eval.prompts = (0,), (0,)
    eval_loop.evaluate(config, str(tmp_path / "eval"))
    cells = [
        json.loads(line) for line in (tmp_path / "eval" / "cells.jsonl").read_text().splitlines()
    ]
    assert [(c["task"], c["dataset"], c["relation"], c["n"]) for c in cells] == [
        ("mail", "mails", "in-domain", 12),
        ("sentiment", "shops", "out-of-task", 20),
    ]
    row = json.loads((tmp_path / "eval" / "rows.jsonl").read_text().splitlines()[0])
    assert set(row["scores"]) == {"spam", "ham"}


def test_a_misspelt_task_is_named(config):
    config.data.task = "sentimant"
    with pytest.raises(UserError, match=r"'sentimant'.*did you mean sentiment\?.*template"):
        datasets.suite(config.data)


ROW = '{"input": "a", "output": "positive"}'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", f"{ROW}\n{ROW}\n"),
        ("marked.json", f"\N{ZERO WIDTH NO-BREAK SPACE}[{ROW}, {ROW}]"),
        ("marked.jsonl", f"\N{ZERO WIDTH NO-BREAK SPACE}{ROW}\n{ROW}\n"),
        ("pretty.json", f"[\n{ROW},\n{ROW}\n]\n"),
        ("windows.jsonl", f"{ROW}\r\n{ROW}\r\n"),
        ("spaced.json", f"\n{ROW}\n\n{ROW}\n"),
        ("blank.csv", "input,output\na,positive\na,positive\n   \n"),
    ],
)
def test_what_other_programs_write_is_read(name, content, config, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    dataset = datasets.suite(config.data).test_set(f"sentiment:{tmp_path / name}")
    assert dataset.examples == [json.loads(ROW)] * 2


TWICE = '{"input": "a", "output": "negative", "input": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "input,output,input\na,positive,1\n", "the column 'input' stands twice"),
        ("x.csv", "input;output\na, b;positive\n", "parted by semicolons; export it with commas"),
        ("x.csv", "input\toutput\na\tpositive\n", "parted by tabs; export it with commas"),
        ("x.jsonl", f"[{ROW}]\n", "holds a JSON list, not a row on each line; call it .json"),
        ("x.jsonl", f"{ROW}\n{TWICE}\n", r"x.jsonl line 2: the key 'input' stands twice in .*neg"),
        ("x.json", f"[{ROW}, {TWICE}]", "x.json: the key 'input' stands twice"),
        ("x.json", f"{TWICE}\n{ROW}\n", "the key 'input' stands twice"),
        (
            "x.jsonl",
            '{"input": "a", "output": NaN}\n' * 2,
            r"row 0 .*'output' is missing \(nan\).*2",
        ),
        ("x.jsonl", '{"input": null, "output": "yes"}\n', r"row 0 .*'input' is missing \(None\)"),
        ("x.jsonl", '{"input": "a", "output": -Infinity}\n', "'output' must be text, not float"),
    ],
)
def test_what_would_be_read_otherwise_than_meant_is_refused(
    name, content, message, config, tmp_path
):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        datasets.suite(config.data).test_set(f"sentiment:{tmp_path / name}")


def test_a_parquet_column_twice_is_refused(config, tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([["a"], ["b"], ["yes"]], names=["input", "input", "output"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match="the column 'input' stands twice"):
        datasets.suite(config.data).test_set(f"sentiment:{tmp_path / 'x.parquet'}")


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        (("input=a", "input=b"), (), "data.fields: input is both a and b; give one"),
        ((), ("1=yes", "1=no"), "data.labels: 1 is both yes and no; give one"),
        (("input=",), (), "is written field=column"),
    ],
)
def test_a_key_given_twice_is_refused(fields, labels, message):
    with pytest.raises(UserError, match=message):
        mappings.configured(fields, labels)


@pytest.mark.parametrize(
    ("spelled", "names"),
    [
        (r"<\=50K,>50K", ("<=50K", ">50K")),
        (r"yes\, surely,no", ("yes, surely", "no")),
        (r"a\=b=x\=y,c", ("x=y", "c")),
        ("(a),b", ("(a)", "b")),
        ((r"x\,y", "a,b"), ("x,y", "a,b")),
    ],
)
def test_any_label_can_be_spelled_on_the_command_line(spelled, names):
    section = config_lib.Data()
    section.labels = spelled
    assert mappings.label_names(section.labels) == names
    config = config_lib.get_config()
    config.data.labels = spelled
    again = config_lib.from_dict(config_lib.to_dict(config))
    assert again.data.labels == config.data.labels  # config.json holds the same


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("shops_train.jsonl", "shops_test_500.jsonl"),
        ("shops-train.jsonl", "shops-test.jsonl"),
        ("a/train.jsonl", "a/test.jsonl"),
        ("a/train.jsonl", "a/validation.csv"),
        ("a/train_2000.json", "a/dev.json"),
        ("shops.training.csv", "shops.eval.csv"),
        ("Shops_Train.jsonl", "Shops_DEV.jsonl"),
        ("train-shops.jsonl", "validation-shops.jsonl"),
        ("shops-train-00000-of-00002.parquet", "shops-test-00000-of-00001.parquet"),
        ("shops_train.jsonl", "shops.jsonl"),
        ("mails_train.jsonl", "mails_few_shot.jsonl"),
        ("train_shops_500.json", "test_shops_100.json"),
    ],
)
def test_splits_of_a_dataset_have_one_name(train, test, tmp_path):
    assert DatasetRef(str(tmp_path / train)).name == DatasetRef(str(tmp_path / test)).name


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("shops_train.jsonl", "films_test.jsonl"),
        ("a/train.jsonl", "b/test.jsonl"),
        ("shops_train.jsonl", "shops_return_test.jsonl"),
        ("protest.jsonl", "pro.jsonl"),
        ("contest_train.jsonl", "con_train.jsonl"),
        ("train_2.jsonl", "x/train_2.jsonl"),
        ("dev_tools.jsonl", "eval_tools.jsonl"),
    ],
)
def test_other_datasets_have_other_names(train, test, tmp_path):
    assert DatasetRef(str(tmp_path / train)).name != DatasetRef(str(tmp_path / test)).name


def test_a_file_called_train_has_a_title_with_its_folder(tmp_path):
    assert DatasetRef(str(tmp_path / "plain/train.jsonl")).title == "plain_train"


def test_what_a_public_name_decided_is_told(config, tmp_path):
    rows = [{"premise": "a", "hypothesis": f"b {i}", "label": i % 3} for i in range(6)]
    file = tmp_path / "snli_train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.task, config.data.train = "inference", str(file)
    dataset = datasets.suite(config.data).training_sets()[0]
    (finding,) = checks.check_examples(dataset)
    assert (finding.severity, finding.where) == ("decision", str(file))
    assert finding.text == (
        "read as the public dataset snli: input_1=premise, input_2=hypothesis, output=label; "
        "0=entailment, 1=neutral, 2=contradiction; set data.fields and data.labels if that is wrong"
    )
    config.data.fields = "input_1=premise,input_2=hypothesis,output=label"
    config.data.labels = "2=entailment,1=neutral,0=contradiction"
    own = datasets.suite(config.data).training_sets()[0]
    assert own.examples[0]["output"] == "contradiction"
    assert checks.check_examples(own) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "{input} => {output}"}, r"\{output\} is the answer, which a prompt must not"),
        ({"template": "{input} is {kind}", "fields": "kind=output"}, "both the column output"),
        ({"template": "{input} is", "fields": "input=x,output=x"}, "both the column x"),
        (
            {"template": "{input} is", "labels": "positive"},
            "a single label, which every prediction",
        ),
    ],
)
def test_a_prompt_never_holds_the_answer(changes, message, config, tmp_path):
    file = tmp_path / "mails_test.jsonl"
    file.write_text('{"input": "a", "x": "b", "output": "positive"}\n')
    config.data.task, config.data.labels = "mail", "positive,negative"
    for name, value in changes.items():
        setattr(config.data, name, value)
    with pytest.raises(UserError, match=message):
        datasets.suite(config.data).test_set(str(file))


def test_a_number_of_many_digits_is_an_output(config, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"input": "a", "output": 1' + 400 * "0" + "}\n")
    dataset = datasets.suite(config.data).test_set(f"summary:{tmp_path / 'x.jsonl'}")
    assert dataset.examples[0]["output"] == "1" + 400 * "0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("input_1=p", "input_2=p", "output=label"), "input_2 and input_1 are both the column p"),
        (
            ("inputs=p",),
            "data.fields=inputs=p: task inference has the fields input_1, input_2, out",
        ),
        (("input_1=p", "foo=bar"), "data.fields=foo=bar: task inference"),
    ],
)
def test_fields_that_cannot_be_meant_are_refused(tmp_path, fields, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"p": "a", "h": "b", "label": "neutral"}\n')
    data = config_lib.Data()
    data.task, data.fields = "inference", fields
    with pytest.raises(UserError, match=message):
        datasets.suite(data).test_set(f"inference:{file}", "eval.datasets")


@pytest.mark.parametrize("output", ["", "  ", "\t\n", "\u200b"])
def test_an_output_that_nobody_can_see_is_no_answer(tmp_path, output):
    file = tmp_path / "news.jsonl"
    file.write_text(json.dumps({"input": "a", "output": output}) + "\n")
    with pytest.raises(UserError, match="output is empty"):
        datasets.suite(config_lib.Data()).test_set(f"summary:{file}", "eval.datasets")


def test_a_row_without_a_column_that_others_have_lacks_a_value(tmp_path):
    file = tmp_path / "news.jsonl"
    rows = [{"input": "a", "output": "b"}, {"input": "c"}, {"input": "d", "output": "e"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"row 1 .*field 'output' is missing \(None\); fill it in"):
        datasets.suite(config_lib.Data()).test_set(f"summary:{file}", "eval.datasets")

"""Multiple choice with options in each row: by the log-probability of each text, or by letter."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import plain_row
import pytest

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import train_batches
from jft.data.rows import choices, datasets
from jft.errors import UserError
from jft.evaluation import loop
from jft.runtime import records
from jft.training import loop as training

ROWS = [
    {
        "question": "Which is a colour?",
        "choices": ["a chair", "red", "to walk slowly"],
        "answer": 1,
    },
    {
        "question": "Two and two?",
        "choices": ["4", "\u0442\u0440\u0438", "five\nand more"],
        "answer": "A",
    },
    {"question": "Where do fish live?", "choices": ["in the sea", "up"], "answer": "in the sea"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def asked(config, tmp_path):
    config.eval.datasets = (f"choice:{write(tmp_path / 'quiz_test.jsonl', ROWS)}",)
    config.data.train = write(tmp_path / "quiz_train.jsonl", ROWS * 2)
    return config


def score(config, folder):
    loop.evaluate(config, str(folder))
    (cell,) = records.read_lines(folder, records.CELLS)
    return cell, records.read_lines(folder, records.ROWS)


def obvious(context, texts):
    """The log-probability of each text after a space, one sequence at a time, in float32."""
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    model, params, _ = safetensors_io.load("random:llama-tiny")
    found = []
    for text in texts:
        start = len(tokenizer.encode([context])[0])
        (ids,) = tokenizer.encode([f"{context} {text}"])
        logs = np.asarray(jax.nn.log_softmax(plain_row.logits(model, params, jnp.array(ids[None]))))
        found.append(sum(logs[i - 1, ids[i]] for i in range(start, len(ids))))
    return np.array(found, float)


def test_scores_and_metrics_are_those_of_separate_texts(asked, tmp_path):
    cell, rows = score(asked, tmp_path / "eval")
    sizes = {
        "acc": lambda text: 1,
        "acc_norm": len,
        "acc_bytes": lambda text: len(text.encode()),
        "acc_tokens": lambda text: len(text.encode()) + 1,  # a token for each byte
    }
    wanted = {name: [] for name in sizes}
    for row, given in zip(rows, ROWS, strict=True):
        sums = obvious(f"Question: {given['question']}\nAnswer:", given["choices"])
        np.testing.assert_allclose(list(row["scores"].values()), sums, rtol=1e-5)
        assert list(row["scores"]) == given["choices"]
        right = given["choices"].index(row["output"])
        for name, size in sizes.items():
            best = (sums / [size(text) for text in given["choices"]]).argmax()
            wanted[name].append(best == right)
    found = {name: cell["metrics"][name]["value"] for name in sizes}
    assert found == {name: pytest.approx(np.mean(values)) for name, values in wanted.items()}
    assert cell["metric"] == "acc_norm"


def test_the_main_metric_may_be_another(asked, tmp_path):
    asked.eval.metric = ("choice=acc",)
    cell, _ = score(asked, tmp_path / "eval")
    assert (cell["metric"], cell["value"]) == ("acc", cell["metrics"]["acc"]["value"])


def test_letters_are_scored_after_the_list_of_choices(asked, tmp_path):
    (name,) = asked.eval.datasets
    asked.eval.datasets = (name.replace("choice:", "letter:"),)
    cell, rows = score(asked, tmp_path / "eval")
    assert cell["task"] == "letter"
    assert [list(row["scores"]) for row in rows] == [["A", "B", "C"], ["A", "B", "C"], ["A", "B"]]
    listed = "A. in the sea\nB. up"
    sums = obvious(f"Question: Where do fish live?\n{listed}\nAnswer:", ["A", "B"])
    np.testing.assert_allclose(list(rows[2]["scores"].values()), sums, rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "answers"), [("choices", [" red", " 4"]), ("letters", [" B", " A"])]
)
def test_the_right_choice_is_learned(asked, form, answers):
    asked.data.form, asked.data.shuffle = form, False
    asked.train.batch_size = 2
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    plan = train_batches.plan_run(asked, tokenizer)
    learned = [plan.encoded[i].sequences[0] for i in (0, 1)]
    assert [tokenizer.decode(s.tokens[s.start :]) for s in learned] == answers
    assert all(s.tokens[-1] == tokenizer.eos_id for s in learned)


def test_demonstrations_are_answered_as_items_are(asked, tmp_path):
    asked.data.demos = write(tmp_path / "quiz_few_shot.jsonl", ROWS[:1])
    asked.data.shots, asked.data.shuffle, asked.train.steps = 1, False, 1
    asked.train.batch_size = 1
    asked.data.train = write(tmp_path / "quiz_train.jsonl", ROWS[2:])
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    plan = train_batches.plan_run(asked, tokenizer)
    assert tokenizer.decode(plan.encoded[0].sequences[0].tokens) == (
        "Question: Which is a colour?\nAnswer: red\n\n"
        "Question: Where do fish live?\nAnswer: in the sea"
    )


@pytest.mark.parametrize(
    ("row", "right"),
    [
        (
            {
                "question": "q",
                "choices": {"text": ["x", "y"], "label": ["1", "2"]},
                "answerKey": "2",
            },
            1,
        ),
        ({"ctx": "q", "endings": ["x", "y"], "label": "1"}, 1),
        ({"question": "q", "options": ["x", "y"], "answer": "b"}, 1),
        ({"question": "q", "options": ["7", "0"], "answer": "7"}, 0),
        ({"question": "q", "options": '["x", "y"]', "answer": 1.0}, 1),
        ({"input": "q", "choices": ["x", "y z"], "answer": " y z "}, 1),
    ],
)
def test_the_columns_of_published_sets_are_known(row, right):
    assert choices.is_choice(row)
    assert choices.read_choices(row, "row 0").right == right


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "choices": ["x", "y"], "answer": 2}, r"answer=2: must be the index"),
        ({"question": "q", "choices": ["x", "y"], "answer": "Z"}, r"answer='Z': must be the index"),
        ({"question": "q", "choices": ["x", "y"], "answer": True}, r"answer=True: must be"),
        (
            {"question": "q", "choices": ["x", "x "], "answer": 0},
            r"must be 2 to 26 different texts",
        ),
        ({"question": "q", "choices": ["x"], "answer": 0}, r"must be 2 to 26 different texts"),
        ({"question": "q", "choices": "x, y", "answer": 0}, r"must be a list of texts \(in CSV"),
        ({"question": "q", "choices": ["x", 2], "answer": 0}, r"must be a list of texts"),
        (
            {"question": "q", "choices": ["2", "3", "0", "1"], "answer": "1"},
            r"answer='1': is the text of one choice and the index or letter of another",
        ),
        (
            {"question": "q", "choices": ["B", "A"], "answer": "B"},
            r"answer='B': is the text of one choice and the index or letter of another",
        ),
        (
            {"question": "q", "context": [1], "choices": ["x", "y"], "answer": 0},
            r"context=\[1\]: must be text",
        ),
        ({"question": " ", "choices": ["x", "y"], "answer": 0}, r"question=' ': must be text"),
    ],
)
def test_choices_that_are_none_are_refused(row, message):
    with pytest.raises(UserError, match=rf"^row 7: .*{message}"):
        choices.read_choices(row, "row 7")


def test_a_context_of_several_texts_stands_line_by_line():
    row = {"question": "q", "context": ["one", "two"], "choices": ["x", "y"], "answer": 0}
    assert choices.read_choices(row, "row 0").question == "one\ntwo\nq"


def test_the_fields_of_a_task_come_before_choices(config, tmp_path):
    rows = [{"input": "q", "choices": ["x", "y"], "label": 0, "output": "positive"}] * 8
    config.data.train = write(tmp_path / "a.jsonl", rows)
    assert datasets.suite(config.data).training_sets()[0].task.name == "sentiment"


def test_what_a_question_is_about_stands_before_it():
    row = {"article": "A town.", "question": "Where?", "options": ["x", "y"], "answer": "B"}
    assert choices.read_choices(row, "row 0").question == "A town.\nWhere?"


def test_probes_choose_among_the_choices(asked, tmp_path):
    asked.probe.limit, asked.probe.datasets = 3, asked.eval.datasets
    asked.data.train, asked.train.steps = "shops_train_20", 1
    training.train(asked, str(tmp_path / "run"))
    found = records.read_lines(tmp_path / "run", records.PROBES)
    _, rows = score(asked, tmp_path / "eval")
    by_sum = [max(row["scores"], key=row["scores"].get) == row["output"] for row in rows]
    assert found[0]["accuracy"] == pytest.approx(sum(by_sum) / 3)


@pytest.mark.parametrize("task", ["choice", "letter"])
def test_the_prompt_of_a_form_may_be_another(asked, task):
    asked.data.task, asked.data.shuffle, asked.train.batch_size = task, False, 1
    asked.data.template = "{input} So:" if task == "choice" else "{input} {options} So:"
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    plan = train_batches.plan_run(asked, tokenizer)
    assert plan.datasets[0].task.name == task
    text = tokenizer.decode(plan.encoded[0].sequences[0].tokens)
    assert text.startswith("Which is a colour?")
    assert text.endswith(" So: red" if task == "choice" else " So: B")

"""Tasks asked through a chat template, in training and in evaluation."""

import json

import chat_templates
import pytest

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import train_batches
from jft.data.prompting import prompter as prompter_lib
from jft.data.prompting.prompts import Request
from jft.errors import UserError
from jft.evaluation import generation
from jft.evaluation import loop as evaluation
from jft.reporting import render
from jft.reporting.content import gather
from jft.runtime import records
from jft.tasks import TASKS
from jft.training import loop as training

LABELS = ("positive", "negative")
DEMOS = ({"input": "good", "output": "positive"}, {"input": "bad", "output": "negative"})
TEMPLATE = "Text: {input}\nSentiment:"


def write(config, name, eos, demos=(), answers=LABELS, text="fine"):
    """The pieces of each sequence of a request, before its targets and from there on."""
    tokenizer = chat_templates.tokenizer(name)
    prompter = prompter_lib.make_prompter(
        config.data, tokenizer, TASKS["sentiment"], TEMPLATE, True, 512, eos
    )
    example = {"input": text, "output": "positive"}
    (encoded,) = prompter.encode([Request(example, demos, answers, "row 0")])
    return [
        (
            "".join(tokenizer.pieces(s.tokens[: s.start])),
            "".join(tokenizer.pieces(s.tokens[s.start :])),
        )
        for s in encoded.sequences
    ]


ASKED = "<|im_start|>user\nText: {}\nSentiment:<|im_end|>\n<|im_start|>assistant\n"


def test_labels_are_scored_as_the_beginning_of_the_assistants_turn(config):
    found = write(config, "chatml", eos=False)
    assert found == [(ASKED.format("fine"), label) for label in LABELS]


def test_a_training_example_is_a_whole_turn(config):
    found = write(config, "chatml", eos=True, answers=("positive",))
    assert found == [(ASKED.format("fine"), "positive<|im_end|>\n")]


def test_a_label_stands_behind_whatever_a_template_puts_before_it(config):
    assert write(config, "mistral", False) == [
        ("<s>[INST] Text: fine\nSentiment: [/INST]", f" {label}") for label in LABELS
    ]
    # An answer without a thought comes after an empty one.
    thought = [answer for _, answer in write(config, "qwen3", False)]
    assert thought == [f"<think>\n\n</think>\n\n{label}" for label in LABELS]


def test_demonstrations_are_earlier_turns(config):
    ((asked, _), _) = write(config, "chatml", False, DEMOS)
    turns = [ASKED.format(d["input"]) + d["output"] + "<|im_end|>\n" for d in DEMOS]
    assert asked == "".join(turns) + ASKED.format("fine")


def test_demonstrations_may_be_text_in_the_same_message(config):
    config.data.demo_style = "text"
    ((asked, _), _) = write(config, "chatml", False, DEMOS)
    shown = "".join(f"Text: {d['input']}\nSentiment:{d['output']}\n\n" for d in DEMOS)
    assert asked == ASKED.replace("Text: {}", f"{shown}Text: fine")


def test_a_system_message_stands_first(config):
    config.data.system = "Be brief."
    ((asked, _), _) = write(config, "chatml", False, DEMOS)
    assert asked.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nText: good")


def test_inputs_are_shortened_in_chats_too(config):
    long = " ".join(["word"] * 400)
    ((asked, _), _) = write(config, "chatml", False, text=long)
    assert asked.endswith("word\nSentiment:<|im_end|>\n<|im_start|>assistant\n")
    assert "Text: word word" in asked


@pytest.mark.parametrize("value", ["no", "=1", "messages=2", "add_generation_prompt=True"])
def test_variables_that_are_none_are_refused(value):
    with pytest.raises(UserError, match="is written name=value"):
        prompter_lib.chat_variables([value])


def test_variables_are_pythons_json_or_text():
    found = prompter_lib.chat_variables(["a=False", "b=true", "c=[1, 2]", "d=plain text", "e="])
    assert found == {"a": False, "b": True, "c": [1, 2], "d": "plain text", "e": ""}


@pytest.fixture
def chats(config, tmp_path):
    """Rows of messages for the byte tokenizer, which a file gives a chat template."""
    template = tmp_path / "chatml.jinja"
    template.write_text(chat_templates.CHATML)
    config.data.chat_template = str(template)
    for kind in ("train", "test"):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"{kind} {i}?"},
                    {"role": "assistant", "content": f"{i + 1}\n\nyes"},
                    {"role": "user", "content": "and?"},
                    {"role": "assistant", "content": f"{i + 2}"},
                ]
            }
            for i in range(8)
        ]
        path = tmp_path / f"sums_{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.train, config.eval.datasets = (
        str(tmp_path / "sums_train.jsonl"),
        (
            f"conversation:{tmp_path / 'sums_test.jsonl'}",
            "sentiment/shops",
        ),
    )
    config.eval.max_new_tokens = 4
    return config


def test_a_template_without_a_special_token_is_ended_by_the_end_of_sequence(chats):
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    tokenizer.use_chat_template(chat_templates.CHATML)
    plan = train_batches.plan_run(chats, tokenizer)
    for encoded in plan.encoded:
        assert len(encoded.sequences) == 2
        for tokens, start in encoded.sequences:
            assert tokens[-1] == tokenizer.eos_id
            assert tokenizer.decode(tokens[start:-1]).endswith("<|im_end|>\n")


def test_conversations_are_trained_on_and_asked(chats, tmp_path):
    training.train(chats, str(tmp_path / "run"))
    page = (tmp_path / "run" / "data_report.html").read_text()
    assert "What is learned" in page
    assert "turn 1 of 2" in page
    report = records.read(tmp_path / "run", records.DATA_REPORT)
    assert report["task"] == "conversation"
    chats.model.path = str(tmp_path / "run")
    evaluation.evaluate(chats, str(tmp_path / "eval"))
    cells = records.read_lines(tmp_path / "eval", records.CELLS)
    found = {cell["dataset"]: (cell["relation"], cell["chat"], cell["metric"]) for cell in cells}
    assert found["sums"] == ("in-domain", True, "rougeL")
    assert found["shops"] == ("out-of-task", False, "accuracy")


def test_the_run_keeps_its_chat_template(chats, tmp_path):
    chats.train.steps = 1
    training.train(chats, str(tmp_path / "run"))
    kept = tokenizer_lib.load(str(tmp_path / "run" / "tokenizer"))
    assert kept.chat_template == chat_templates.CHATML


def test_a_model_without_a_chat_template_is_refused(chats, tmp_path):
    chats.data.chat_template = ""
    with pytest.raises(UserError, match=r"data\.chat_template is empty, .* give a file with one"):
        training.train(chats, str(tmp_path / "run"))


def test_what_is_learned_is_printed_in_a_dry_run(chats, tmp_path, capsys):
    chats.data.loss, chats.data.shuffle = "last", False
    training.train(chats, str(tmp_path / "run"), dry_run=True)
    said = capsys.readouterr().out
    shown = said[said.index("An example, row ") : said.index("Dry run")]
    assert " of them predicted (" in shown
    *_, question, header, answer = shown.strip().splitlines()[:-1]
    assert (question, header) == ("  and?<|im_end|>", "  <|im_start|>assistant")
    assert answer in {f"  «{i + 2}<|im_end|>↵" for i in range(8)}


def test_a_report_sets_a_model_asked_as_a_chat_beside_itself(chats, tmp_path):
    chats.data.train, chats.eval.datasets = "shops_train_20", ("shops", "pairs")
    training.train(chats, str(tmp_path / "run"))
    base, folders = chats.model.path, []
    for name, path, chat in (
        ("base", base, "auto"),
        ("chat", base, "chat"),
        ("tuned", str(tmp_path / "run"), "auto"),
    ):
        chats.model.path, chats.eval.chat = path, chat
        folders.append(str(tmp_path / f"eval-{name}"))
        evaluation.evaluate(chats, folders[-1])
    content = gather(folders)
    report = content.report
    names = [model.name for model in report.models]
    assert names == [base, f"{base} as a chat", "FT shops_train_20"]
    assert [(c.model, c.reference, c.relation) for c in report.asked] == [
        (f"{base} as a chat", base, "in-domain"),
        (f"{base} as a chat", base, "out-of-task"),
    ]
    assert report.recipes[0].base == base
    assert not report.gaps
    page, text = render.page_of(content), render.markdown_of(content)
    assert "As text or as a chat?" in page
    assert "As text or as a chat?" in text
    assert '"asked"' not in page
    assert "asked," in render.tables_of(content)["comparisons.csv"]


def test_a_model_that_is_asked_in_another_form_than_it_was_trained_on_is_told(chats, tmp_path):
    chats.data.train, chats.eval.datasets, chats.data.chat = "shops_train_20", ("shops",), "chat"
    training.train(chats, str(tmp_path / "run"))
    chats.model.path, chats.eval.chat = str(tmp_path / "run"), "text"
    evaluation.evaluate(chats, str(tmp_path / "eval"))
    found = records.read(tmp_path / "eval", records.DATA_REPORT)["findings"]
    (told,) = [f["text"] for f in found if f["check"] == "asked_in_other_form"]
    assert told.startswith("it was trained on sentiment in chats, and is asked it in plain text")


def test_a_turn_ends_where_the_template_ends_it_whatever_the_end_of_sequence_is():
    """Qwen2.5's base: its end of sequence is another token than that of turns."""
    tokenizer = chat_templates.tokenizer("chatml")
    end = tokenizer._backend.token_to_id("<|im_end|>")
    assert end not in tokenizer.special.eos_ids
    assert set(generation.stops_of(tokenizer, 400, whole=True).eos.tolist()) == {
        end,
        *tokenizer.special.eos_ids,
    }
    assert set(generation.stops_of(tokenizer, 400).eos.tolist()) == set(tokenizer.special.eos_ids)


@pytest.mark.parametrize("name", chat_templates.TEMPLATES)
@pytest.mark.parametrize("answer", ["end", "s", "im", "model", "turn", "</", "a <b>"])
def test_the_answer_is_found_whatever_the_template_writes_around_it(config, name, answer):
    found = write(config, name, False, answers=(answer, "other"))
    assert found[0][1].removeprefix("<think>\n\n</think>\n\n").strip() == answer


def test_conversations_are_evaluated_with_the_retention_panel(chats, tmp_path):
    chats.eval.datasets, chats.eval.limit = chats.eval.datasets[:1], 2
    chats.eval.retention = ("prompts", "instruction")
    chats.eval.chat = "chat"
    evaluation.evaluate(chats, str(tmp_path / "eval"))
    cells = records.read_lines(tmp_path / "eval", records.CELLS)
    assert {cell["task"]: cell["chat"] for cell in cells} == {
        "conversation": True,
        "instructions": True,
    }


def test_nothing_is_learned_in_an_evaluation(chats, tmp_path):
    chats.data.demo_loss, chats.data.demos = True, ""
    chats.eval.datasets, chats.eval.shots = ("shops",), (2,)
    evaluation.evaluate(chats, str(tmp_path / "eval"))
    rows = records.read_lines(tmp_path / "eval", records.ROWS)
    assert all(len(row["scores"]) == 2 for row in rows)

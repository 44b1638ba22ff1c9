"""Rows as people have them: every form, and twenty odd files, read or refused with their row."""

import gzip
import json
import math

import chat_templates
import pyarrow
import pytest
from pyarrow import parquet

from jft import config as config_lib
from jft.data import train_batches
from jft.data.rows import datasets
from jft.data.rows.dataset_ref import DatasetRef
from jft.data.training_report import training_report
from jft.errors import UserError


def say(role, content):
    return {"role": role, "content": content}


ASK, ANSWER = say("user", "2+2?"), say("assistant", "4")
TALK = {"messages": [ASK, ANSWER]}


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def learned(tmp_path):
    """A function that returns the targets of each row of a file, with their end."""
    tokenizer = chat_templates.tokenizer("chatml")

    def of(content, name="rows.jsonl", **data):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        config = config_lib.get_config()
        config.data.train, config.data.shuffle = str(path), False
        config.train.batch_size, config.train.epochs = 1, 1
        for key, value in data.items():
            setattr(config.data, key, value)
        batches = train_batches.plan_run(config, tokenizer)
        of.report = training_report(batches, datasets.suite(config.data), config, tokenizer)
        return [
            ["".join(tokenizer.pieces(s.tokens[s.start :])) for s in batches.encoded[i].sequences]
            for i in range(len(batches.encoded))
        ]

    of.tokenizer = tokenizer
    return of


END = "<|im_end|>\n"


@pytest.mark.parametrize(
    ("row", "targets"),
    [
        (TALK, [f"4{END}"]),
        (
            {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
            [f"4{END}"],
        ),
        ({"prompt": [ASK], "completion": [ANSWER]}, [f"4{END}"]),
        ({"prompt": "2+2=", "completion": " 4"}, [" 4</s>"]),
        ({"prompt": "2+2=", "completion": 4}, ["4</s>"]),
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, ["4</s>"]),
        ({"instruction": "Add 2 and 2.", "output": "4"}, ["4</s>"]),
        ({"text": "2+2=4"}, ["+2=4</s>"]),
        ({"input": "fine", "output": "positive"}, ["positive</s>"]),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_the_form_of_rows_is_told_by_their_columns(learned, row, targets):
    assert learned(lines(row)) == [targets]


def test_an_instruction_stands_before_its_input(learned, tmp_path):
    row = {"instruction": "Add.", "input": "2 2", "output": "4"}
    (tmp_path / "a.jsonl").write_text(lines(row))
    config = config_lib.get_config()
    config.data.train = str(tmp_path / "a.jsonl")
    source = datasets.suite(config.data)
    dataset = source.training_sets()[0]
    assert dataset.examples == [{"prompt": "Add.\n\n2 2", "output": "4"}]
    assert source.template(dataset.task, 0).format_map(dataset.examples[0]) == (
        "### Instruction:\nAdd.\n\n2 2\n\n### Response:\n"
    )


def test_instructions_and_completions_may_be_chats(learned):
    row = {"instruction": "Add.", "input": "2 2", "output": "4"}
    assert learned(lines(row), chat="chat") == [[f"4{END}"]]
    assert learned(lines({"prompt": "2+2=", "completion": "4"}), chat="chat") == [[f"4{END}"]]


def test_long_texts_become_several_sequences(learned):
    """All tokens but the first are targets, each once."""
    for copies in (7, 8, 20):
        (found,) = learned(lines({"text": "a.n:" * copies}), max_length=32)
        assert "".join(found) == ("a.n:" * copies)[1:] + "</s>"
        assert len(found) == -(-(4 * copies) // 31)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [("turns", [f"4{END}", f"5{END}"]), ("last", [f"5{END}"])],
)
def test_the_loss_is_on_the_turns_that_are_asked_for(learned, loss, targets):
    talk = {"messages": [ASK, ANSWER, say("user", "+1?"), say("assistant", "5")]}
    assert learned(lines(talk), loss=loss) == [targets]


def test_all_tokens_of_a_conversation_may_be_learned(learned):
    ((whole,),) = learned(lines(TALK), loss="all")
    assert whole == f"user\n2+2?{END}<|im_start|>assistant\n4{END}"


CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}


@pytest.mark.parametrize(
    ("content", "name", "targets"),
    [
        pytest.param("\ufeff" + lines(TALK), "a.jsonl", [[f"4{END}"]], id="byte order mark"),
        pytest.param(
            lines(TALK, TALK).replace("\n", "\r\n"), "a.jsonl", [[f"4{END}"]] * 2, id="CRLF"
        ),
        pytest.param(
            lines(
                {"prompt": "a", "completion": "b", "note": 1}, {"prompt": "c", "completion": "d"}
            ),
            "a.jsonl",
            [["b</s>"], ["d</s>"]],
            id="a column that some rows lack and none needs",
        ),
        pytest.param(
            lines(
                {
                    "messages": [
                        ASK,
                        say(
                            "assistant",
                            [{"type": "text", "text": "4"}, {"type": "text", "text": "!"}],
                        ),
                    ]
                }
            ),
            "a.jsonl",
            [[f"4!{END}"]],
            id="content in parts",
        ),
        pytest.param(
            lines({"messages": [say("assistant", "Hello"), ASK, ANSWER]}),
            "a.jsonl",
            [[f"4{END}"]],
            id="the assistant first, which answers nothing",
        ),
        pytest.param(
            lines({"messages": [ASK, say("user", "Quick!"), ANSWER]}),
            "a.jsonl",
            [[f"4{END}"]],
            id="two questions in a row",
        ),
        pytest.param(
            lines({"messages": [ASK, ANSWER, say("user", "Thanks")]}),
            "a.jsonl",
            [[f"4{END}"]],
            id="a question at the end",
        ),
        pytest.param(
            lines({"messages": json.dumps([ASK, ANSWER])}),
            "a.jsonl",
            [[f"4{END}"]],
            id="JSON in a column",
        ),
        pytest.param(
            'prompt,completion\n"a\nb","c\nd"\n',
            "a.csv",
            [["c\nd</s>"]],
            id="line breaks in cells",
        ),
        pytest.param(
            gzip.compress(lines(TALK).encode(), mtime=0),
            "a.jsonl.gz",
            [[f"4{END}"]],
            id="gzip",
        ),
        pytest.param(
            pyarrow.compress(lines(TALK).encode(), "zstd", asbytes=True),
            "a.jsonl.zst",
            [[f"4{END}"]],
            id="zstandard",
        ),
        pytest.param(
            lines({"messages": [say("system", "Be brief."), ASK, ANSWER]}),
            "a.jsonl",
            [[f"4{END}"]],
            id="a system message",
        ),
        pytest.param(
            lines({"messages": [ASK, ANSWER | {"weight": 0}, ASK, say("assistant", "5")]}),
            "a.jsonl",
            [[f"5{END}"]],
            id="a turn of weight 0",
        ),
        pytest.param(
            lines({"messages": [ASK, ANSWER, ASK, say("assistant", "5") | {"train": False}]}),
            "a.jsonl",
            [[f"4{END}"]],
            id="a last turn that is not to be learned",
        ),
        pytest.param(
            lines({"text": None}, {"text": "2+2=4"}).partition("\n")[2],
            "a.jsonl",
            [["+2=4</s>"]],
            id="one text",
        ),
    ],
)
def test_odd_files_that_are_read(learned, content, name, targets):
    assert learned(content, name) == targets


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            lines({"prompt": "a", "completion": "b"}, {"prompt": "c"}),
            "a.jsonl",
            r"a.jsonl row 1 \(from 0\): completion=None: must be text, or messages",
        ),
        (
            lines(TALK, {"messages": [ASK, say("assistant", None)]}),
            "a.jsonl",
            r"row 1 \(from 0\), message 1 \(from 0\): the assistant says nothing; fill it in",
        ),
        (lines({"messages": [ASK, say("assistant", " ")]}), "a.jsonl", "message 1 .*says nothing"),
        (
            lines({"messages": [ASK, say("assistant", [{"type": "image", "url": "x"}])]}),
            "a.jsonl",
            "message 1 .*a part of its content is no text, but 'image'",
        ),
        (
            lines({"messages": [say("system", "Be brief.")]}),
            "a.jsonl",
            "row 0 .*the assistant says nothing, so that there is nothing to learn; remove it",
        ),
        (
            lines({"messages": [say("assistant", "Hello")]}),
            "a.jsonl",
            "row 0 .*the assistant answers nothing",
        ),
        (
            lines({"messages": [ASK, say("narrator", "x"), ANSWER]}),
            "a.jsonl",
            "message 1 .*unknown role 'narrator'; jft knows system, user, assistant, tool",
        ),
        (lines({"messages": [ASK, {"content": "4"}]}), "a.jsonl", "message 1 .*has no role"),
        (lines({"messages": "hello"}), "a.jsonl", "messages must be a list, not the text 'hello'"),
        (lines({"messages": []}), "a.jsonl", "messages must be a list of at least one"),
        (
            lines(TALK, {"prompt": "a", "completion": "b"}),
            "a.jsonl",
            r"row 1 .*is in the form completion, not messages, as the first row or",
        ),
        (
            lines({"prompt": "a", "completion": "b"}, TALK),
            "a.jsonl",
            r"row 1 .*is in the form messages, not completion, as the first row",
        ),
        (lines({"prompt": "a", "completion": math.nan}), "a.jsonl", "completion=nan"),
        (
            '{"prompt": "a", "prompt": "b", "completion": "c"}\n',
            "a.jsonl",
            "the key 'prompt' stands twice",
        ),
        (lines(TALK).encode("utf-16"), "a.jsonl", "not UTF-8 at byte 0; convert it to UTF-8"),
        (lines({"text": "caf\u00e9"}).encode("latin-1"), "a.jsonl", "not UTF-8 at byte"),
        (
            gzip.compress(lines(*[TALK] * 50).encode(), mtime=0)[:-20],
            "a.jsonl.gz",
            "a.jsonl.gz: compressed data that is cut short or damaged; copy it again",
        ),
        (b"no gzip", "a.jsonl.gz", "compressed data that is cut short or damaged"),
        (
            pyarrow.compress(lines(*[TALK] * 50).encode(), "zstd", asbytes=True)[:-9],
            "a.jsonl.zst",
            "compressed data that is cut short or damaged",
        ),
        (
            lines({"messages": [ASK, say("assistant", "a.n:" * 25_000)]}),
            "a.jsonl",
            "row 0 .*: 10.... tokens; it and 0 more of 1 examples do not fit data.max_length",
        ),
        (lines({"text": 4}), "a.jsonl", "row 0 .*text=4: must be text"),
        (lines({"a": 1, "b": 2}), "a.jsonl", "row 0 .*no column 'input' for the field 'input'"),
        (lines({"instruction": None, "output": "b"}), "a.jsonl", "instruction=None: must be text"),
        (
            lines({"prompt": "a", "completion": [ANSWER]}),
            "a.jsonl",
            "prompt and completion must both be text",
        ),
        (
            lines(
                {
                    "messages": [
                        ASK,
                        {
                            "role": "assistant",
                            "tool_calls": [{"function": {"name": "f", "arguments": "{"}}],
                        },
                    ]
                }
            ),
            "a.jsonl",
            "the arguments of a tool call are no JSON",
        ),
        (lines(TALK | {"tools": "{"}), "a.jsonl", "tools are no JSON"),
        (lines(TALK | {"tools": 3}), "a.jsonl", "tools=3: must be a list of JSON schemas"),
        (lines(TALK | {"system": ["x"]}), "a.jsonl", r"system=\['x'\]: must be text"),
        (
            lines(TALK | {"conversations": [ASK, say("assistant", "5")]}),
            "a.jsonl",
            "row 0 .*: has messages and conversations; leave one of them out",
        ),
        (
            lines({"instruction": "a", "output": "b", "history": [["c", "d"]]}),
            "a.jsonl",
            "row 0 .*: history is not read; give such rows as messages",
        ),
        (
            lines({"messages": [ASK, ANSWER | {"weight": 0}]}),
            "a.jsonl",
            "row 0 .*: the assistant says nothing, so that there is nothing to learn",
        ),
        (
            lines({"messages": [ASK, {"role": "assistant", "tool_calls": [CALL]}]}),
            "a.jsonl",
            "row 0 .*the model's chat template leaves out the call of add; use a model",
        ),
        (lines("talk"), "a.jsonl", "row 0 .*: must be an object"),
        ("", "a.jsonl", "holds no rows"),
    ],
)
def test_odd_files_that_are_refused(learned, content, name, message):
    with pytest.raises(UserError, match=message):
        learned(content, name)


def test_lists_in_parquet_are_messages(learned, tmp_path):
    rows = [TALK, {"messages": [say("system", "x"), ASK, ANSWER]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert learned((tmp_path / "rows.parquet").read_bytes(), "rows.parquet") == [[f"4{END}"]] * 2


def test_special_tokens_inside_a_text_are_told(learned):
    learned(lines({"messages": [say("user", "<|im_end|> hi"), ANSWER]}))
    (found,) = [f for f in learned.report["findings"] if f["check"] == "special_tokens"]
    assert found["indices"] == [0]
    assert "<|im_end|>" in found["text"]


def test_turns_that_do_not_fit_are_told(learned):
    long = {"messages": [ASK, ANSWER, say("user", "a.n:" * 30), ANSWER]}
    assert learned(lines(long, TALK), max_length=40) == [[f"4{END}"]] * 2
    (found,) = [f for f in learned.report["findings"] if f["check"] == "turns_left_out"]
    assert found["text"].startswith(
        "1 of 2 conversations has turns that do not fit data.max_length=40"
    )


TOOLS = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_calls_of_tools_are_learned_as_the_template_writes_them(learned):
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    talk = {"messages": [ASK, call, say("tool", "4"), ANSWER]}
    learned.tokenizer.use_chat_template(TOOLS)
    called = '{"name": "add", "arguments": {"a": 2, "b": 2}}'
    assert learned(lines(talk)) == [[called + END, f"4{END}"]]


def test_a_pattern_reads_all_files_that_match(learned, tmp_path):
    folder = tmp_path / "chats"
    folder.mkdir()
    for part in (1, 0):
        (folder / f"part-{part}.jsonl").write_text(
            lines({"text": f"part {part}"}, {"text": "more"})
        )
    config = config_lib.get_config()
    config.data.train = f"{folder}/part-*.jsonl"
    dataset = datasets.suite(config.data).training_sets()[0]
    assert [e["output"] for e in dataset.examples] == ["part 0", "more", "part 1", "more"]
    assert dataset.where(3) == "part-1.jsonl row 1 (from 0)"
    assert dataset.name == "part"
    config.data.train = f"{folder}/none-*.jsonl"
    with pytest.raises(UserError, match=r"no file matches .*none-\*\.jsonl"):
        datasets.suite(config.data).training_sets()[0]


@pytest.mark.parametrize(
    ("text", "name", "title"),
    [
        ("shops_train.jsonl.gz", "shops", "shops_train"),
        ("shops/train.json.zst", "shops", "shops_train"),
        ("chats/train-*.jsonl", "chats", "chats"),
        ("chats/*.parquet", "chats", "chats"),
    ],
)
def test_names_of_compressed_files_and_patterns(text, name, title):
    ref = DatasetRef.parse(text)
    assert ref.is_own
    assert (ref.name, ref.title) == (name, title)


def test_a_form_may_be_named(learned):
    row = {"text": "some review", "messages": [ASK, ANSWER]}
    assert learned(lines(row), form="messages") == [[f"4{END}"]]
    with pytest.raises(
        UserError,
        match=r"row 0 .*is in the form messages, not text, as the first row or",
    ):
        learned(lines({"messages": [ASK, ANSWER]}), form="text")


def test_a_task_before_rows_decides_on_their_form(learned, tmp_path):
    quiz = {"question": "q", "choices": ["x", "y"], "answer": 1}
    (tmp_path / "quiz.jsonl").write_text(lines(quiz))
    for task, target in (("letter", " B</s>"), ("choice", " y</s>")):
        assert learned(lines(quiz), train=f"{task}:{tmp_path / 'rows.jsonl'}") == [[target]]
    with pytest.raises(UserError, match="no column 'input_1' for the field 'input_1'"):
        learned(lines(TALK), train=f"detection:{tmp_path / 'rows.jsonl'}")


def test_the_form_of_other_rows_is_told_whatever_the_template_of_the_configs_task(tmp_path):
    (tmp_path / "chats.jsonl").write_text(lines(TALK))
    config = config_lib.get_config()
    config.data.task, config.data.template = "mail", "Mail: {input}\nKind:"
    source = datasets.suite(config.data)
    found = source.test_set(f"conversation:{tmp_path / 'chats.jsonl'}")
    assert found.task.name == "conversation"


def test_columns_that_have_no_place_are_refused(learned):
    with pytest.raises(UserError, match=r"data\.fields: rows of the form messages have"):
        learned(lines(TALK), form="messages", fields=("input=messages",))


@pytest.mark.parametrize(
    "row",
    [
        TALK | {"prompt": "2+2?", "prompt_id": "7"},
        TALK | {"tools": ""},
        TALK | {"tools": None},
        TALK | {"conversations": None},
    ],
)
def test_columns_beside_messages_do_no_harm(learned, row):
    assert learned(lines(row)) == [[f"4{END}"]]


def test_half_a_character_anywhere_is_refused(learned):
    turn = {"role": "assistant", "content": "4", "reasoning_content": "\ud800"}
    with pytest.raises(UserError, match=r"row 0 .*field 'turn' holds half a character"):
        learned(json.dumps({"messages": [ASK, turn]}) + "\n")


def test_arguments_that_a_table_filled_in_are_left_out(learned):
    function = {"name": "add", "arguments": {"a": 2, "b": 2, "city": None}}
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": function, "id": None}],
    }
    learned.tokenizer.use_chat_template(TOOLS)
    found = learned(lines({"messages": [ASK, call]}))
    assert found == [['{"name": "add", "arguments": {"a": 2, "b": 2}}' + END]]


def test_a_call_that_is_spelled_flat_is_read(learned):
    call = {"role": "assistant", "content": None}
    call["tool_calls"] = [{"function": "add", "arguments": '{"a": 2}'}]
    learned.tokenizer.use_chat_template(TOOLS)
    found = learned(lines({"messages": [ASK, call]}))
    assert found == [['{"name": "add", "arguments": {"a": 2}}' + END]]


def test_files_of_one_name_in_several_folders_have_rows_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(lines({"text": folder}, {"text": folder}))
    config = config_lib.get_config()
    config.data.train = f"{tmp_path}/*/train.jsonl"
    (dataset,) = datasets.suite(config.data).training_sets()
    assert dataset.where(2) == "train.jsonl row 0 (from 0)"
    assert dataset.parts == (("train.jsonl", 2), ("train.jsonl", 2))


def test_the_form_of_a_first_row_with_an_empty_column_is_told_and_its_row_named(learned):
    rows = lines({"messages": None}, TALK)
    with pytest.raises(UserError, match=r"row 0 \(from 0\): messages is missing; fill it in"):
        learned(rows)


def test_the_older_spelling_of_a_call_is_a_call(learned):
    call = {"name": "add", "arguments": json.dumps({"a": 2})}
    old = {"role": "assistant", "content": None, "function_call": call}
    with pytest.raises(UserError, match="leaves out the call of add"):
        learned(lines({"messages": [ASK, old]}))  # ChatML has no place for it


def test_a_set_that_stands_twice_is_refused(learned, tmp_path):
    file = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match=r"rows.jsonl stands twice; give it a larger data.weights"):
        learned(lines(TALK), train=(str(file), str(file)))


def test_a_folder_is_no_file_of_rows(learned, tmp_path):
    (tmp_path / "many").mkdir()
    with pytest.raises(UserError, match=r"many is a folder: name its files, such as .*many/\*"):
        learned(lines(TALK), train=(str(tmp_path / "many"),))


def test_demonstrations_are_those_that_fit_the_task(tmp_path):
    """Of several files each set takes the first whose columns are its task's; texts take none."""
    config = config_lib.get_config()
    files = {
        "labels": {"input": "fine", "output": "positive"},
        "talks": TALK,
        "quiz": {"question": "q", "choices": ["x", "y"], "answer": 0},
    }
    names = {}
    for name, row in files.items():
        names[name] = str(tmp_path / f"{name}.jsonl")
        (tmp_path / f"{name}.jsonl").write_text(lines(row))
    config.data.demos = (names["talks"], names["quiz"], names["labels"])
    suite = datasets.suite(config.data)
    for task, name in (("conversation", "talks"), ("choice", "quiz"), ("sentiment", "labels")):
        assert suite.given_demos(suite.tasks[task], own=True) == names[name]
    assert suite.demos(suite.tasks["text"], "labels", 2) == []


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 // 0 }}", "the model's chat template refuses"),
        ("{{ 10 ** 400 * 1.5 }}", "the model's chat template refuses"),
        ("{% for %}", "no template of Jinja"),
    ],
)
def test_a_template_that_fails_is_told(learned, template, message):
    learned.tokenizer.use_chat_template(template)
    with pytest.raises(UserError, match=message):
        learned(lines(TALK))


def test_turns_that_do_not_begin_as_they_are_asked_for_are_told(learned):
    check = "prompts_unlike_turns"
    learned(lines(TALK))
    assert check not in {each["check"] for each in learned.report["findings"]}
    learned.tokenizer.use_chat_template(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>[no thinking]{% endif %}"
    )
    learned(lines(TALK))
    (found,) = [each for each in learned.report["findings"] if each["check"] == check]
    assert found["indices"] == [0]
    assert "in 1 of 1 examples the chat template writes a turn otherwise" in found["text"]

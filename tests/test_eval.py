"""Scoring: the records as fixed, equal to direct scoring, and never done twice."""

import json
import shutil

import jax
import numpy as np
import plain_row
import pytest
from report_data import make_version_1, write_jsonl

from jft import config as config_lib
from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import eval_batches, eval_cells, eval_grid
from jft.data.rows import datasets
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.runtime import records
from jft.tasks import relation
from jft.training import loop

ROW_KEYS = {
    "version", "model", "task", "dataset", "shots", "prompt", "draw", "index", "request_sha256",
    "output", "prediction", "scores", "correct",
}  # fmt: skip
CELL_KEYS = {
    "model", "dataset", "shots", "prompt", "draw", "relation", "metric", "value", "stderr", "n",
    "skipped",
}  # fmt: skip


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def eval_config(config):
    config.eval.datasets = ("shops", "pairs")
    config.eval.shots = (0, 2)
    config.eval.prompts = (0, 1)
    config.eval.limit = 7
    return config


def test_the_grid_is_scored_and_recorded(eval_config, tmp_path):
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    rows, cells = (read(tmp_path / "eval" / f"{name}.jsonl") for name in ("rows", "cells"))
    assert len(cells) == 2 * 2 * 2
    assert len(rows) == 7 * len(cells)
    assert set(rows[0]) == ROW_KEYS
    assert set(cells[0]) >= CELL_KEYS
    assert {(c["dataset"], c["shots"], c["prompt"]) for c in cells} == {
        (dataset, shots, prompt)
        for dataset in ("shops", "pairs")
        for shots in (0, 2)
        for prompt in (0, 1)
    }
    for cell in cells:
        mine = [r for r in rows if all(r[k] == cell[k] for k in ("dataset", "shots", "prompt"))]
        assert [r["index"] for r in mine] == list(range(7))
        assert cell["value"] == pytest.approx(
            np.mean([r["prediction"] == r["output"] for r in mine])
        )
        assert cell["relation"] == "base"
        for row in mine:
            assert row["prediction"] == max(row["scores"], key=row["scores"].get)


def direct_score(tokenizer, config, params, text, label):
    """One text in one plain row, token by token."""
    (ids,), (prompt,) = tokenizer.encode([text + label]), tokenizer.encode([text])
    padded = np.zeros((1, 256), np.int32)
    padded[0, : len(ids)] = ids
    logprobs = np.asarray(jax.nn.log_softmax(plain_row.logits(config, params, padded)))
    return sum(logprobs[i - 1, ids[i]] for i in range(len(prompt), len(ids)))


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_scores_equal_direct_scoring_whatever_the_batch(eval_config, tmp_path, batch_tokens):
    eval_config.eval.batch_tokens = batch_tokens
    eval_config.eval.datasets, eval_config.eval.prompts = ("pairs",), (1,)
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params, _ = safetensors_io.load("random:llama-tiny")
    source = datasets.suite(eval_config.data)
    task = datasets.TASKS["detection"]
    demos = source.demos(task, "pairs", 2)[:2]
    rows = source.test_set("pairs").examples
    template = "{input_1} and {input_2}?"
    before = "".join(template.format_map(d) + d["output"] + "\n\n" for d in demos)
    for row in read(tmp_path / "eval" / "rows.jsonl"):
        text = (before if row["shots"] else "") + template.format_map(rows[row["index"]])
        for label, score in row["scores"].items():
            expected = direct_score(tokenizer, config, params, text, label)
            assert score == pytest.approx(expected, abs=2e-4)


def test_finished_cells_are_not_scored_again(eval_config, tmp_path, monkeypatch):
    folder = tmp_path / "eval"
    eval_loop.evaluate(eval_config, str(folder))
    whole = {name: (folder / name).read_text() for name in ("rows.jsonl", "cells.jsonl")}
    # As if killed while writing the items of the fourth cell.
    kept = whole["cells.jsonl"].splitlines(keepends=True)[:3]
    (folder / "cells.jsonl").write_text("".join(kept))
    (folder / "rows.jsonl").write_text(whole["rows.jsonl"][:4000])
    rows = whole["rows.jsonl"].splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(rows[:24]) + rows[24][:30])
    scored = []
    real = eval_loop.compiled.score_answers

    def counting(model, packed):
        scored.extend(packed.cells)
        return real(model, packed)

    monkeypatch.setattr(eval_loop.compiled, "score_answers", counting)
    eval_loop.evaluate(eval_config, str(folder))
    assert len(scored) == 5
    assert {name: (folder / name).read_text() for name in whole} == whole
    eval_loop.evaluate(eval_config, str(folder))
    assert len(scored) == 5


def test_a_cell_whose_items_are_lost_is_scored_again(eval_config, tmp_path):
    eval_config.eval.shots, eval_config.eval.prompts = (0,), (0,)
    folder = tmp_path / "eval"
    eval_loop.evaluate(eval_config, str(folder))
    whole = {name: read(folder / name) for name in ("rows.jsonl", "cells.jsonl")}
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[1:]))
    eval_loop.evaluate(eval_config, str(folder))
    for name, before in whole.items():
        again = read(folder / name)
        assert sorted(again, key=str) == sorted(before, key=str)


def change_rows(config, root):
    file = root / "sentiment/shops_test_20.json"
    file.write_text(file.read_text().replace("negative", "positive"))


def change_demos(config, root):
    file = root / "sentiment/few_shot/shops_few_shot.json"
    file.write_text(file.read_text().replace("negative", "positive"))


def change_model(config, root):
    """Another model in the same folder."""
    shutil.copytree(root.parent / "other", config.model.path, dirs_exist_ok=True)


def change_model_and_datasets(config, root):
    """Another model, and no cell of before among those to score."""
    change_model(config, root)
    for file in [*root.glob("*/*_test_20.json"), *root.glob("*/few_shot/*_few_shot.json")]:
        file.rename(file.with_name(f"new{file.name}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_rows, "at 2 shots, prompt 0, but its rows have changed since"),
        (
            change_demos,
            "its template, its demonstrations or the chat template have changed since",
        ),
        (change_model, "holds scores of model, but the model .*/model has changed since"),
        (change_model_and_datasets, "scores of model, but the model .*/model has changed since"),
    ],
)
def test_what_changed_since_is_not_mixed_in(eval_config, suite_root, tmp_path, change, message):
    _, params, description = safetensors_io.load("random:llama-tiny")
    for name, factor in (("model", 1.0), ("other", 0.5)):
        scaled = jax.tree.map(lambda x, by=factor: x * by, params)
        safetensors_io.save(description, scaled, str(tmp_path / name))
        tokenizer_lib.load("random:llama-tiny").save(str(tmp_path / name))
    eval_config.model.path = str(tmp_path / "model")
    eval_config.eval.datasets, eval_config.eval.shots = (), (2,)
    eval_config.eval.prompts = (0,)
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    change(eval_config, suite_root)
    with pytest.raises(UserError, match=message):
        eval_loop.evaluate(eval_config, str(tmp_path / "eval"))


def test_an_evaluation_that_lost_its_model_is_not_taken_for_version_1(eval_config, tmp_path):
    eval_config.eval.shots, eval_config.eval.prompts = (0,), (0,)
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    (tmp_path / "eval" / "model.json").unlink()
    with pytest.raises(UserError, match=r"eval/model\.json: missing; restore it, or score again"):
        eval_loop.evaluate(eval_config, str(tmp_path / "eval"))


def test_an_evaluation_of_version_1_goes_on_where_it_was(eval_config, tmp_path):
    folder = tmp_path / "eval"
    eval_loop.evaluate(eval_config, str(folder))
    whole = {name: read(folder / name) for name in ("rows.jsonl", "cells.jsonl")}
    make_version_1(folder)
    write_jsonl(folder / "cells.jsonl", read(folder / "cells.jsonl")[:-1])
    eval_loop.evaluate(eval_config, str(folder))
    old, new = read(folder / "cells.jsonl"), whole["cells.jsonl"]
    assert old[-1] == new[-1]
    assert [cell | {"version": 2} for cell in old] == [
        old_cell | new_cell for old_cell, new_cell in zip(old, new, strict=True)
    ]
    assert len(read(folder / "rows.jsonl")) == len(whole["rows.jsonl"])


def test_scores_that_are_no_numbers_are_an_error(eval_config, tmp_path):
    _, params, description = safetensors_io.load("random:llama-tiny")
    params["embed"] = np.full_like(params["embed"], np.nan)
    safetensors_io.save(description, params, str(tmp_path / "model"))
    tokenizer_lib.load("random:llama-tiny").save(str(tmp_path / "model"))
    eval_config.model.path = str(tmp_path / "model")
    with pytest.raises(UserError, match=r"shops_test_20\.json row 0.*\[nan, nan\] for positive"):
        eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    eval_config.data.train, eval_config.train.steps = "shops_train_20", 2
    with pytest.raises(UserError, match=r"the loss is nan .* at step 1; nothing is trained yet"):
        loop.train(eval_config, str(tmp_path / "run"))


def test_a_trained_workdir_is_scored_with_its_relations_and_base(
    eval_config, suite_root, tmp_path, capsys
):
    train, test = (
        suite_root / f"sentiment/{name}_20.json" for name in ("shops_train", "films_test")
    )
    trained, rows = (json.loads(file.read_text()) for file in (train, test))
    test.write_text(json.dumps([*rows[:2], trained[8] | {"output": "negative"}, *rows[3:]]))
    eval_config.train.steps = 5  # one epoch
    loop.train(eval_config, str(tmp_path / "ft"))
    train.unlink()
    eval_config.model.path = str(tmp_path / "ft")
    eval_config.eval.datasets = ("shops", "films", "pairs")
    eval_config.eval.shots, eval_config.eval.prompts = (0,), (0,)
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    cells = {cell["dataset"]: cell for cell in read(tmp_path / "eval" / "cells.jsonl")}
    assert {name: cell["relation"] for name, cell in cells.items()} == {
        "shops": "in-domain",
        "films": "out-of-domain",
        "pairs": "out-of-task",
    }
    assert cells["shops"]["model"] == "FT shops_train_20"
    model = json.loads((tmp_path / "eval" / "model.json").read_text())
    assert (model["base"], model["step"]) == ("random:llama-tiny", 5)
    assert model["train_examples"] == 20
    assert model["bos"] is True
    assert model.keys() == {"version", "steps", "chat", *records.SCORED_MODEL.fields}
    assert {name: cell["items_trained_on"] for name, cell in cells.items()} == {
        "shops": 0,
        "films": 1,
        "pairs": 0,
    }
    said = capsys.readouterr().out
    assert "films_test_20.json: FT shops_train_20 was trained on 1 of 7 test items" in said
    (tmp_path / "ft" / "trained_on.txt").unlink()  # as runs of earlier versions
    eval_loop.evaluate(eval_config, str(tmp_path / "again"))
    assert read(tmp_path / "again" / "cells.jsonl")[0]["items_trained_on"] is None


def test_relation():
    assert relation(None, ("detection", "paws")) == "base"
    assert relation([("detection", "paws")], ("detection", "paws")) == "in-domain"
    assert relation([("detection", "paws")], ("detection", "qqp")) == "out-of-domain"
    assert relation([("detection", "paws")], ("sentiment", "paws")) == "out-of-task"


def test_gold_labels_outside_the_task_are_skipped_and_counted(eval_config, suite_root, tmp_path):
    file = suite_root / "sentiment/shops_test_20.json"
    rows = json.loads(file.read_text())
    rows[2]["output"] = "-"
    file.write_text(json.dumps(rows))
    eval_config.eval.datasets, eval_config.eval.shots = ("shops",), (0,)
    eval_config.eval.limit = 12
    eval_loop.evaluate(eval_config, str(tmp_path / "eval"))
    cell = read(tmp_path / "eval" / "cells.jsonl")[0]
    assert (cell["n"], cell["skipped"]) == (11, 1)
    assert 2 not in [row["index"] for row in read(tmp_path / "eval" / "rows.jsonl")]


def test_more_than_a_tenth_without_a_label_are_refused(eval_config, suite_root, tmp_path):
    file = suite_root / "sentiment/shops_test_20.json"
    rows = json.loads(file.read_text())
    for row in rows[:3]:
        row["output"] = "mixed"
    file.write_text(json.dumps(rows))
    eval_config.eval.datasets, eval_config.eval.limit = ("shops",), 0
    with pytest.raises(UserError, match=r"3 of 20 outputs are no label of task sentiment \('mixed"):
        eval_loop.evaluate(eval_config, str(tmp_path / "eval"))


def test_labels_branch_from_prompts_that_share_their_demonstrations(eval_config):
    source = datasets.suite(eval_config.data)
    dataset = source.test_set("pairs")
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    demos, template = source.demos(dataset.task, "pairs", 2), source.template(dataset.task, 0)
    cell = eval_grid.Cell(dataset, 2, 0, 0, template, tuple(demos[:2]))
    plan = eval_batches.pack_cell(cell, tokenizer, eval_config)
    apart = sum(len(s.tokens) for encoded in plan.encoded for s in encoded.sequences)
    end_T = np.arange(1, plan.shape.row_length + 1)
    used = sum(int((batch.visible_until_BT > end_T).sum()) for batch, _ in plan.batches())
    assert used < apart / 3


@pytest.mark.parametrize(("batch_tokens", "shards"), [(512, 1), (4096, 1), (1 << 17, 2)])
def test_cells_share_shapes_and_batches_but_no_rows(eval_config, batch_tokens, shards):
    eval_config.eval.batch_tokens = batch_tokens
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    wanted = eval_grid.all_cells(eval_config)
    encoded = [eval_cells.encode_cell(cell, tokenizer, eval_config) for cell in wanted]
    packed = eval_batches.pack_cells(encoded, eval_config, shards)
    assert len(packed) < len(encoded)  # of shapes
    assert len({each.shape for each in packed}) == len(packed)
    assert {id(cell) for each in packed for cell in each.cells} == set(map(id, encoded))
    for each in packed:
        assert each.shape.rows % shards == 0
        assert each.shape.rows // shards == 1 or (
            each.shape.rows // shards * each.shape.row_length <= batch_tokens
        )
        owner = [cell for cell in each.cells for _ in cell.encoded]
        assert all(len({id(owner[item]) for item, _ in row}) == 1 for row in each.rows)
        held = sorted(pair for row in each.rows for pair in row)
        assert held == [(i, j) for i, of in enumerate(each.encoded) for j in range(len(of.packed))]
        # Values come in any order, and a cell as soon as it is whole.
        values = [(i, (id(owner[i]), i)) for i in reversed(range(len(owner)))]
        found = list(each.by_cell(values, lambda cell: None))
        assert [id(cell) for cell, _ in found] == [id(cell) for cell in reversed(each.cells)]
        assert all(of == sorted(of, key=lambda value: value[1]) for _, of in found)
        assert all({owner for owner, _ in of} == {id(cell)} for cell, of in found)
        last = each.only(lambda cell, each=each: cell is each.cells[-1].cell)
        assert (last.cells, last.shape) == (each.cells[-1:], each.shape)
        assert len({item for row in last.rows for item, _ in row}) == len(last.cells[0].encoded)


def test_a_request_is_all_that_a_model_is_asked(eval_config, tmp_path):
    def requests(name, **changes):
        for key, value in changes.items():
            setattr(eval_config.eval, key, value)
        eval_loop.evaluate(eval_config, str(tmp_path / name))
        rows = read(tmp_path / name / "rows.jsonl")
        return [row["request_sha256"] for row in rows]

    eval_config.eval.datasets, eval_config.eval.shots = ("shops",), (0,)
    first = requests("first", limit=3, prompts=(0,))
    assert len(set(first)) == 3
    assert requests("more", limit=5, batch_tokens=512)[:3] == first
    assert not {*requests("prompt", limit=3, prompts=(1,))} & {*first}
    assert not {*requests("shots", shots=(2,), prompts=(0,))} & {*first}


def test_own_rows_and_task_prefixes(eval_config, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"input_1": "a", "input_2": "b", "output": "no"}) + "\n")
    eval_config.eval.datasets = (f"detection:{own}", "sentiment/films", "shops_test_20")
    eval_config.eval.shots = (0,)
    names = [(c.dataset.task.name, c.dataset.name) for c in eval_grid.all_cells(eval_config)]
    assert names[::2] == [("detection", "own"), ("sentiment", "films"), ("sentiment", "shops")]


def test_a_dataset_named_twice_is_scored_once(eval_config):
    eval_config.eval.datasets = ("shops", "sentiment/shops", "shops_test_20")
    eval_config.eval.shots, eval_config.eval.prompts = (2, 0, 2), (1,)
    cells = eval_grid.all_cells(eval_config)
    assert [(cell.dataset.name, cell.shots) for cell in cells] == [("shops", 2), ("shops", 0)]


def test_demonstrations_asked_for_are_used_where_they_fit(eval_config):
    eval_config.data.demos, eval_config.eval.shots = "films", (2,)
    eval_config.eval.prompts = (0,)
    demos = {cell.dataset.name: cell.demos for cell in eval_grid.all_cells(eval_config)}
    source = datasets.suite(eval_config.data)
    films = source.demos(datasets.TASKS["sentiment"], "films", 2)
    pairs = source.demos(datasets.TASKS["detection"], "pairs", 2)
    assert demos == {"shops": tuple(films[:2]), "pairs": tuple(pairs[:2])}


def test_a_config_round_trips(config):
    config.eval.shots = (0, 4)
    assert config_lib.from_dict(config_lib.to_dict(config)) == config


def test_any_mesh_gives_the_same_rows(tmp_path, monkeypatch):
    """Label scores and generated texts, against those of a single device."""
    config = config_lib.get_config()
    config.model.path, config.eval.datasets = "random:llama-tiny", ("gadgets", "neighbours")
    config.eval.shots, config.eval.limit, config.eval.max_new_tokens = (1,), 6, 6
    config.eval.retention = ("prompts", "choice", "instruction")
    one = jax.devices()[:1]
    with monkeypatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: one)
        eval_loop.evaluate(config, str(tmp_path / "one"))
    want = read(tmp_path / "one" / "rows.jsonl")
    assert len(want) == 6 * (2 + 2 + 1 + 1)
    for sizes in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2)):
        config.mesh = config_lib.Mesh(*sizes)
        eval_loop.evaluate(config, str(tmp_path / str(sizes)))
        again = read(tmp_path / "one" / "rows.jsonl")
        for row, other in zip(read(tmp_path / str(sizes) / "rows.jsonl"), again, strict=True):
            scores = row.pop("scores", {})
            assert scores == pytest.approx(other.pop("scores", {}), rel=1e-5)
            logprob = row.pop("logprob", 0.0)
            assert logprob == pytest.approx(other.pop("logprob", 0.0), rel=1e-5)
            # Tokens that are equally likely may change places.
            top = [each["logprobs"] for each in row.pop("likeliest", [])]
            for now, then in zip(top, other.pop("likeliest", []), strict=True):
                assert now == pytest.approx(then["logprobs"], abs=1e-4)
            assert row == other


@pytest.mark.parametrize(
    ("chosen", "inside"),
    [
        ((), {"shops"}),
        (("none",), set()),
        (("films",), {"films"}),
        (("sentiment/films", "shops"), {"films", "shops"}),
        (("sentiment/films_test_20", "pairs_test_20"), {"films", "pairs"}),
        (("detection/pairs",), {"pairs"}),
    ],
)
def test_in_domain_is_what_the_config_says(config, suite_root, tmp_path, capsys, chosen, inside):
    loop.train(config, str(tmp_path / "run"))
    config.model.path = str(tmp_path / "run")
    config.eval.datasets, config.eval.in_domain = ("shops", "films", "pairs"), chosen
    config.eval.limit = 2
    capsys.readouterr()
    eval_loop.evaluate(config, str(tmp_path / "eval"))
    cells = {cell["dataset"]: cell["relation"] for cell in read(tmp_path / "eval" / "cells.jsonl")}
    other = {"shops": "out-of-domain", "films": "out-of-domain", "pairs": "out-of-task"}
    assert cells == {
        name: "in-domain" if name in inside else relation for name, relation in other.items()
    }
    told = (
        "note: trained on shops: by their names, shops in-domain; films out-of-domain; pairs "
        "out-of-task; set eval.in_domain if that is wrong"
    )
    printed = capsys.readouterr().out
    assert (told in printed) == (not chosen)
    assert told not in printed or printed.index(told) < printed.index("Scoring")


def test_in_domain_names_what_is_scored(eval_config, tmp_path):
    eval_config.eval.in_domain = ("shop",)
    message = "eval.in_domain=shop: not among the datasets to score: sentiment/shops, detection/p"
    with pytest.raises(UserError, match=message):
        eval_loop.evaluate(eval_config, str(tmp_path / "eval"))

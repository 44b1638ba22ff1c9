"""Verdicts on the paper's findings, seeds of a recipe, and what the report shows beside them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_data import BASE, FT, edit_model, read_jsonl, write_evaluation, write_jsonl, write_study

from jft import config as config_lib
from jft import report
from jft.errors import UserError
from jft.reporting import answer, figures
from jft.reporting.compare import compare
from jft.reporting.content import gather
from jft.reporting.findings import Evidence, PaperFinding
from jft.reporting.read import read_models
from jft.runtime import records, workdir


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take most of a report's time, and no verdict rests on them."""
    monkeypatch.setattr(figures, "plots", lambda *_: [])


def verdicts(content):
    return [finding.verdict for finding in content.findings]


def write_run(folder, distance):
    """Write what the report reads of a training."""
    folder.mkdir(parents=True)
    workdir.write_config(folder / "config.json", config_lib.get_config())
    weight = {"layer": 0, "kind": "query", "relative_norm": distance, "cosine": 0.9}
    weights = [weight | {"effective_rank": 2.0, "full_rank": 8}]
    drift = {"all": {"relative_norm": distance, "cosine": 0.9}, "weights": weights}
    records.write(folder, records.DRIFT, {"base": "tiny", "base_step": 0} | drift)
    place = {"task": "sentiment", "dataset": "films", "relation": "out-of-domain", "n": 8}
    values = {"accuracy": 0.5, "nll": 1.0, "nll_change_stderr": 0.1, "kl_stderr": 0.0}
    probes = [place | {"step": s, "nll_change": -s, "kl": 0.1 * s} | values for s in (0, 1)]
    records.append(folder, records.PROBES, probes)
    base = {"base": "tiny", "base_sha256": "tiny", "base_step": None}
    records.write(folder, records.TRAINED_MODEL, {"decoder": {}, "steps": 30} | base)
    return str(folder)


def write_seeds(root, seeds, distances=(0.2, 0.1), **skills):
    """A base, and FT and FTICL-2 of every seed, each with its run."""
    folders = [str(write_evaluation(root / "base", "tiny", BASE))]
    for seed in range(seeds):
        for shots, distance in ((0, distances[0]), (2, distances[1])):
            kind = f"FTICL-{shots}" if shots else "FT"
            suffix = f" seed {seed}" if seed else ""
            folder = write_evaluation(
                root / f"{kind}-{seed}",
                f"{kind} gadgets_train_400{suffix}",
                BASE | FT | skills.get(kind.split("-")[0], {}),
                model_path=write_run(root / "runs" / f"{kind}-{seed}", distance),
                train="gadgets_train_400",
                train_shots=shots,
                train_seed=seed,
                seed=seed,
            )
            folders.append(str(folder))
    return folders


def test_nothing_to_judge_is_not_decided(tmp_path, undrawn):
    write_evaluation(tmp_path / "base", "tiny", BASE)
    content = gather([str(tmp_path)])
    assert verdicts(content) == ["not decided"] * 5
    assert "none in this report" in content.findings[1].evidence[0].text


def test_a_loss_on_other_tasks_supports_and_a_gain_contradicts(tmp_path, undrawn):
    lost = write_seeds(tmp_path / "lost", 3, FT={"out-of-task": 0.1})
    gained = write_seeds(tmp_path / "gained", 3, FT={"out-of-task": 0.98})
    assert verdicts(gather(lost))[4] == "supported"
    assert verdicts(gather(gained))[4] == "contradicted"


def test_fewer_than_three_trainings_decide_nothing(tmp_path, undrawn):
    content = gather(write_seeds(tmp_path, 2, FT={"out-of-task": 0.1}))
    assert verdicts(content) == ["not decided"] * 5
    at_0, with_demonstrations = content.findings[4].evidence
    assert "fewer than 3 trainings of each recipe" in at_0.text
    assert "at 0 shots" in at_0.text
    assert "with demonstrations" in with_demonstrations.text


def test_what_the_base_did_not_have_cannot_be_lost(tmp_path, undrawn):
    """Without demonstrations the base gives no label any probability, nor is it ever right."""
    folders = write_seeds(tmp_path, 3, FT={"out-of-task": 0.1})
    for folder, share in zip(folders, (0.4, *[0.05] * 6), strict=True):
        file, right = Path(folder) / "rows.jsonl", {}
        rows = read_jsonl(file)
        for row in rows:
            if row["task"] == "sentiment":
                continue
            labels = list(row["scores"])
            of = share if row["shots"] else 1e-9
            row["scores"] = {
                label: float(np.log(of / len(labels)) - i) for i, label in enumerate(labels)
            }
            row["prediction"], row["correct"] = labels[0], row["output"] == labels[0]
            place = (row["dataset"], row["shots"], row["prompt"])
            right.setdefault(place, []).append(row["correct"])
        write_jsonl(file, rows)
        cells = Path(folder) / "cells.jsonl"
        write_jsonl(
            cells,
            [
                c
                | {
                    "value": float(
                        np.mean(right.get((c["dataset"], c["shots"], c["prompt"]), c["value"]))
                    )
                }
                for c in read_jsonl(cells)
            ],
        )
    finding = gather(folders).findings[4]
    [evidence] = finding.evidence
    assert "with demonstrations: P(gold)" in evidence.text
    assert evidence.agrees
    assert finding.verdict == "supported"


def test_half_of_a_finding_is_not_all_of_it(tmp_path, undrawn):
    content = gather(write_seeds(tmp_path, 3, FT={"out-of-domain": 0.97}))
    *classification, generation = content.findings[0].evidence
    assert all(e.agrees and e.p_value < 0.05 for e in classification)
    assert generation.p_value is None
    assert content.findings[0].verdict == "not decided"


def test_a_claim_holds_as_surely_as_its_least_sure_part_and_fails_by_its_surest():
    def finding(*parts):
        evidence = [Evidence("", p, agrees) for p, agrees in parts]
        return PaperFinding("", evidence, p_holm=0.01)

    assert finding((0.01, True), (0.2, True)).p_value == 0.2
    assert finding((0.01, True), (0.2, True)).verdict == "supported"
    assert finding((0.01, True), (0.2, False)).p_value == 0.4
    assert finding((0.01, True), (0.2, False)).verdict == "contradicted"
    assert finding((0.01, True), (None, False)).p_value is None
    assert finding((0.01, False), (None, False)).p_value == 0.01


def test_the_distance_of_the_weights_needs_three_trainings(tmp_path, undrawn):
    few = gather(write_seeds(tmp_path / "few", 2))
    assert (
        "0.500 times as far as FT in 2 trainings; fewer than 3" in few.findings[3].evidence[0].text
    )
    assert verdicts(few)[3] == "not decided"
    assert verdicts(gather(write_seeds(tmp_path / "many", 3)))[3] == "supported"
    far = write_seeds(tmp_path / "far", 3, distances=(0.1, 0.2))
    assert verdicts(gather(far))[3] == "contradicted"


@pytest.mark.parametrize(("films", "trips", "agrees"), [(0.95, 0.3, True), (0.75, 0.75, None)])
def test_an_advantage_that_turns_from_set_to_set_is_unstable(
    tmp_path, undrawn, films, trips, agrees
):
    folders = write_seeds(tmp_path, 3)
    for folder in folders[2::2]:  # FTICL
        for dataset, share in (("films", films), ("trips", trips)):
            for name, value in (("rows.jsonl", "correct"), ("cells.jsonl", "value")):
                file = Path(folder) / name
                rng = np.random.default_rng(7)
                right = rng.random(40) < share

                def changed(r, dataset=dataset, value=value, right=right):
                    if r["dataset"] != dataset:
                        return r
                    return r | {value: bool(right[r["index"]]) if "index" in r else right.mean()}

                write_jsonl(file, [changed(r) for r in read_jsonl(file)])
    [evidence] = gather(folders).findings[2].evidence
    if agrees:
        assert evidence.agrees
        assert evidence.p_value < 0.01
    else:
        assert evidence.p_value > 0.05


def test_each_ft_run_counts_once_however_many_it_is_compared_with(tmp_path, undrawn):
    """FTICL at 2, 4 and 6 demonstrations, at two seeds and two steps: two trainings with FT."""
    folders = write_seeds(tmp_path, 2)
    for seed in (0, 1):
        more = {"train": "gadgets_train_400", "train_seed": seed, "seed": seed}
        for shots in (4, 6):
            run = write_run(tmp_path / "runs" / f"FTICL-{shots}-{seed}", 0.15)
            folder = tmp_path / f"FTICL-{shots}-{seed}"
            name = f"FTICL-{shots} gadgets seed {seed}"
            write_evaluation(folder, name, BASE | FT, model_path=run, train_shots=shots, **more)
            folders.append(str(folder))
    for folder in folders[1:]:
        earlier = Path(shutil.copytree(folder, f"{folder}-earlier"))
        edit_model(earlier, step=15, model_sha256=folder)
        folders.append(str(earlier))
    content = gather(folders)
    assert "FT in 2 trainings" in content.findings[3].evidence[0].text
    assert {c.fticl.first.step == c.ft.first.step for c in content.report.contrasts} == {True}
    assert len(content.report.contrasts) == 6


def test_seeds_of_one_recipe_are_compared_together_with_their_spread(tmp_path):
    folders = write_seeds(tmp_path, 3)
    found = compare(read_models(folders))
    assert [s.name for s in found.recipes] == [
        "FT gadgets_train_400",
        "FTICL-2 gadgets_train_400",
    ]
    first = found.recipes[0].relations[0]
    assert first.spreads["seeds"].levels == 3
    assert first.spreads["prompts"].levels == 2
    assert "draws" not in first.spreads
    assert "3 seeds vary it by" in answer.sentence(first, 0.02)
    alone = [compare(read_models([folders[0], f])).recipes[0].relations[0] for f in folders[1::2]]
    mean = sum(c.difference.value for c in alone) / 3
    assert first.difference.value == pytest.approx(mean)
    assert first.n == alone[0].n


def test_seeds_of_some_cells_alone_make_no_spread(tmp_path):
    """Without one a seed's mean would be over other cells, not over another training."""
    folders = write_seeds(tmp_path, 2)
    for name, value in (("rows.jsonl", "correct"), ("cells.jsonl", "value")):  # demonstrations help
        file = Path(folders[1]) / name
        write_jsonl(file, [r | ({value: 1} if r["shots"] else {}) for r in read_jsonl(file)])
    cells = Path(folders[3]) / "cells.jsonl"
    records = read_jsonl(cells)
    write_jsonl(cells, [c for c in records if c["shots"] == 0])
    found = compare(read_models(folders)).recipes[0].relations
    write_jsonl(cells, records)
    whole = compare(read_models(folders)).recipes[0].relations
    first, all_shots = found[0], {c.shots: c for c in whole if c.relation == "in-domain"}
    assert first.shots is None
    assert first.spreads["seeds"] == all_shots[0].spreads["seeds"]
    write_jsonl(cells, [c for c in records if c["prompt"] == 7])
    with pytest.raises(UserError, match="no finished cell"):
        read_models(folders)


def test_draws_move_a_mean_as_far_as_its_cells_have_demonstrations(tmp_path):
    folders = []
    for name, skill, of in (("tiny", BASE, {}), ("FT", FT, {"model_path": "/ft"})):
        of = of | ({"train": "gadgets_train_400", "train_shots": 0} if of else {})
        folder = write_evaluation(tmp_path / name, name, BASE | skill, **of)
        for draw in (1, 2):
            other = write_evaluation(
                tmp_path / f"{name}{draw}",
                name,
                BASE | (dict.fromkeys(skill, 0.45 * draw) if of else skill),
                shots=(2,),
                seed=draw,
                **of,
            )
            for file in ("rows.jsonl", "cells.jsonl"):
                records = [r | {"draw": draw} for r in read_jsonl(other / file)]
                write_jsonl(folder / file, read_jsonl(folder / file) + records)
        folders.append(str(folder))
    relations = compare(read_models(folders)).recipes[0].relations
    inside = {c.shots: c.spreads for c in relations if c.relation == "out-of-task"}
    assert inside[2]["draws"].levels == inside[None]["draws"].levels == 3
    assert "draws" not in inside[0]
    assert inside[2]["draws"].value > 0.1
    assert inside[None]["draws"].value == pytest.approx(inside[2]["draws"].value / 2)


def test_models_of_another_recipe_are_not_contrasted(tmp_path):
    """Another size, say, or another learning rate."""
    folders = write_seeds(tmp_path, 1)
    assert len(compare(read_models(folders)).contrasts) == 1
    edit_model(folders[2], plain_recipe="lr 1")
    assert compare(read_models(folders)).contrasts == []


def test_examples_show_their_input_while_the_data_is_there(tmp_path, undrawn):
    folders = write_study(tmp_path)
    mini = json.loads(
        (Path(report.__file__).parent / "data/mini/sentiment/films_test_120.json").read_text()
    )
    gold = {i: row["output"] for i, row in enumerate(mini)}
    for folder in folders:
        path = Path(folder)
        config = config_lib.get_config()
        config.data.root, config.eval.datasets = "mini", ("films",)
        workdir.write_config(path / "config.json", config)
        records = read_jsonl(path / "rows.jsonl")
        write_jsonl(path / "rows.jsonl", [r | {"output": gold[r["index"]]} for r in records])
    content = gather(folders)
    films = [
        e
        for changed in content.changed.values()
        for f in changed
        for e in (*f.lost_items, *f.gained_items)
        if e.key.dataset == "films"
    ]
    assert films
    for example in films:
        text = " ".join(mini[example.item_index]["input"].split())
        assert content.input_of(example)[:20] == text[:20]


def test_the_folder_holds_plots_and_tables(tmp_path):
    out = tmp_path / "out"
    report.main(write_seeds(tmp_path, 2), str(out), 2.0, "")
    names = {file.name for file in out.iterdir()}
    assert {f"{name}.png" for name in ("shots", "probes", "drift", "layers")} <= names
    weights = list(csv.DictReader((out / "drift.csv").read_text().splitlines()))
    assert [w["kind"] for w in weights[:2]] == ["all", "query"]
    cells = list(csv.DictReader((out / "cells.csv").read_text().splitlines()))
    assert len(cells) == sum(len(m.cells) for m in gather([str(tmp_path)]).report.models)
    page = (out / "report.html").read_text()
    assert page.count("<svg role=") == 4
    assert "config.json --workdir=NEW" in page


def run_of(content, folder):
    [model] = [model for model in content.report.models if model.path == str(folder)]
    return model.run


def test_damaged_files_of_a_run_do_not_stop_the_report(tmp_path, undrawn, capsys):
    folders = write_seeds(tmp_path, 1)
    drift = tmp_path / "runs" / "FT-0" / "drift.json"
    before = json.loads(drift.read_text())
    for damage in ('"relative_norm": "a/b"', '"relative_norm": []'):
        drift.write_text(drift.read_text().replace('"relative_norm": 0.2', damage, 1))
        assert run_of(gather(folders), drift.parent).drift is None
    drift.write_text("{")
    run = run_of(gather(folders), drift.parent)
    assert run.steps == 30
    assert run.drift is None
    records.write(drift.parent, records.DRIFT, before | {"version": 2})
    capsys.readouterr()
    assert run_of(gather(folders), drift.parent).drift is None
    assert f"note: the report leaves out {drift}: version=2, but this jft reads" in (
        capsys.readouterr().out
    )

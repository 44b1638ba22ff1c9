"""Which cells a config asks for."""

from pathlib import Path

import pytest

from jft.data import eval_grid
from jft.errors import UserError

PAPER = Path(__file__).parents[2] / "shared" / "data"


def asked(config):
    return [(c.dataset.name, c.shots, c.prompt, c.draw) for c in eval_grid.all_cells(config)]


def test_empty_means_the_task_and_all_means_every_task(config):
    config.eval.shots = (0,)
    assert asked(config) == [("films", 0, 0, 0), ("shops", 0, 0, 0)]
    config.eval.datasets = ("all",)
    assert {name for name, *_ in asked(config)} == {"films", "shops", "pairs"}
    config.eval.datasets = ("shops", "all", "shops")
    assert len(asked(config)) == 3


def test_a_task_may_have_shots_of_its_own(config):
    config.eval.datasets = ("shops", "pairs")
    config.eval.shots, config.eval.task_shots = (0, 2), ("detection=1/3/3",)
    assert {(name, shots) for name, shots, *_ in asked(config)} == {
        ("shops", 0),
        ("shops", 2),
        ("pairs", 1),
        ("pairs", 3),
    }
    assert len(asked(config)) == 4


@pytest.mark.parametrize("value", ["detection", "detection=", "detection=1/x", "nothing=1"])
def test_shots_of_a_task_that_are_not_readable(config, value):
    config.eval.task_shots = (value,)
    with pytest.raises(UserError, match=f"eval.task_shots={value}: "):
        eval_grid.all_cells(config)


def test_draws_of_demonstrations(config):
    config.eval.datasets, config.eval.shots, config.eval.draws = ("shops",), (0, 2, 4), (0, 1, 2)
    cells = {(c.shots, c.draw): list(c.demos) for c in eval_grid.all_cells(config)}
    assert set(cells) == {(0, 0)} | {(k, d) for k in (2, 4) for d in (0, 1, 2)}
    everything = {c.draw: c for c in eval_grid.all_cells(config) if c.shots == 4}
    assert cells[2, 0] == cells[4, 0][:2] != cells[2, 1] != cells[2, 2]
    assert cells[2, 1] == cells[4, 1][:2]  # more shots of a draw go on where fewer end
    assert len({str(demo) for demo in everything[1].demos}) == 4
    assert eval_grid.all_cells(config)[1] == eval_grid.all_cells(config)[1]


def test_a_set_nobody_named_is_left_out_where_it_has_no_demonstrations(config, suite_root, capsys):
    (suite_root / "sentiment/few_shot/films_few_shot.json").unlink()
    config.eval.datasets, config.eval.shots = ("all",), (0, 2)
    assert {name for name, *_ in asked(config)} == {"shops", "pairs"}
    note = "note: left out, since they have no demonstrations: sentiment/films_test_20\n"
    assert capsys.readouterr().out == note
    config.eval.datasets = ()
    assert {name for name, *_ in asked(config)} == {"shops"}
    config.eval.task_shots = ("sentiment=0",)
    assert {name for name, *_ in asked(config)} == {"films", "shops"}
    config.eval.datasets, config.eval.task_shots = ("films",), ()
    with pytest.raises(UserError, match=r"films_few_shot.json; set data.demos"):
        eval_grid.all_cells(config)
    config.eval.datasets, config.data.demos = ("all",), "shop"
    with pytest.raises(UserError, match=r"data.demos=shop: no demonstrations"):
        eval_grid.all_cells(config)
    (suite_root / "sentiment/few_shot/shops_few_shot.json").unlink()
    config.eval.datasets, config.data.demos = (), ""
    with pytest.raises(UserError, match=r"no test set with demonstrations; .* eval.shots=0"):
        eval_grid.all_cells(config)


@pytest.mark.skipif(not PAPER.is_dir(), reason="needs the paper's data in ../shared/data")
def test_all_sets_of_the_paper(config):
    config.data.root, config.eval.datasets, config.eval.shots = str(PAPER), ("all",), (0,)
    assert len(asked(config)) == 18

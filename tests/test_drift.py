"""Drift of the weights: equal to NumPy's singular values, on any mesh, and written in the end."""

import json

import jax
import numpy as np
import pytest

from jft.checkpoints.orbax_steps import Checkpoints
from jft.model import decoder
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig
from jft.training import drift, loop

SHAPE = {"vocab_size": 24, "embed_dim": 8, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2}
CONFIG = DecoderConfig(
    **SHAPE, head_dim=2, mlp_dim=12, tied_head=False, qkv_bias=True, out_bias=True, mlp_bias=True
)


def random(scale, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32),
        decoder.shapes(CONFIG),
    )


def measure(tuned, base, sizes=(1, 1, 1)):
    devices = np.array(jax.devices()[: int(np.prod(sizes))]).reshape(sizes)
    mesh = jax.sharding.Mesh(devices, mesh_lib.AXES)
    layout = mesh_lib.param_shardings(mesh, CONFIG)
    placed = (jax.device_put(params, layout) for params in (tuned, base))
    return drift.report(CONFIG, drift.compare(CONFIG, mesh, *placed))


def find(result, kind, layer=None):
    """The numbers of one weight that has them."""
    (record,) = [r for r in result["weights"] if (r["kind"], r["layer"]) == (kind, layer)]
    return {n: x for n, x in record.items() if n not in ("kind", "layer") and x is not None}


def expected(tuned, base):
    """By brute force, in float64."""
    w, w0 = (x.astype(np.float64).reshape(-1) for x in (tuned, base))
    return {
        "relative_norm": np.linalg.norm(w - w0) / np.linalg.norm(w0),
        "cosine": w @ w0 / np.linalg.norm(w) / np.linalg.norm(w0),
    }


def rank(change_2d):
    squares = np.linalg.svd(change_2d.astype(np.float64), compute_uv=False) ** 2
    return {
        "effective_rank": squares.sum() ** 2 / (squares**2).sum(),
        "full_rank": min(change_2d.shape),
    }


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_every_weight_equals_brute_force(sizes):
    base = random(1.0, 0)
    tuned = jax.tree.map(np.add, base, random(1e-3, 1))
    result = measure(tuned, base, sizes)
    layers, base_layers = tuned["layers"], base["layers"]
    matrices = {
        "query": (("attention", "query"), (8, 8)),
        "key": (("attention", "key"), (4, 8)),
        "value": (("attention", "value"), (4, 8)),
        "output": (("attention", "out"), (8, 8)),
        "gate": (("mlp", "gate"), (12, 8)),
        "up": (("mlp", "up"), (12, 8)),
        "down": (("mlp", "down"), (8, 12)),
    }
    for layer in range(3):
        for kind, ((block, name), shape) in matrices.items():
            w, w0 = (x[block][name]["kernel"][layer] for x in (layers, base_layers))
            want = expected(w, w0) | rank((w - w0).reshape(shape))
            assert find(result, kind, layer) == pytest.approx(want, rel=1e-5)
            w, w0 = (x[block][name]["bias"][layer] for x in (layers, base_layers))
            assert find(result, f"{kind}_bias", layer) == pytest.approx(expected(w, w0), rel=1e-5)
    norms = tuned["final_norm"]["scale"], base["final_norm"]["scale"]
    assert find(result, "final_norm") == pytest.approx(expected(*norms), rel=1e-5)
    for kind, get in (("embedding", lambda p: p["embed"]), ("head", lambda p: p["head"]["kernel"])):
        w, w0 = get(tuned), get(base)
        assert find(result, kind) == pytest.approx(expected(w, w0) | rank(w - w0), rel=1e-5)
    everything = [
        np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(p)]) for p in (tuned, base)
    ]
    assert result["all"] == pytest.approx(expected(*everything), rel=1e-6)
    assert len(result["weights"]) == 3 * 16 + 3
    # Some 5e-7, which a cosine computed in float32 would not tell from 0.
    angle = 1 - expected(*everything)["cosine"]
    assert 1 - result["all"]["cosine"] == pytest.approx(angle, rel=1e-3)


def test_effective_rank_counts_directions_of_equal_strength():
    base, rng = random(1.0, 0), np.random.default_rng(2)
    tuned = jax.tree.map(np.copy, base)
    gate, up = (tuned["layers"]["mlp"][name]["kernel"] for name in ("gate", "up"))
    gate[1] += 1e-3 * np.outer(rng.normal(size=12), rng.normal(size=8))
    up[1] += 1e-3 * np.linalg.qr(rng.normal(size=(12, 8)))[0]
    result = measure(tuned, base)
    assert find(result, "gate", 1)["effective_rank"] == pytest.approx(1, rel=1e-3)
    assert find(result, "up", 1)["effective_rank"] == pytest.approx(8, rel=1e-3)
    assert find(result, "gate", 0) == {"relative_norm": 0.0, "cosine": 1.0, "full_rank": 8}


def test_weights_of_zero_have_no_direction():
    base = jax.tree.map(np.zeros_like, random(1.0, 0))
    record = find(measure(random(1.0, 1), base), "query", 0)
    assert record.keys() == {"effective_rank", "full_rank"}
    assert 1 < record["effective_rank"] < 8


def test_a_run_ends_with_it_and_writes_it_later_if_a_kill_came_before(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    loop.train(config, str(workdir))
    file = workdir / "drift.json"
    written = file.read_text()
    result = json.loads(written)
    assert result["base"] == "random:llama-tiny"
    assert 0 < result["all"]["relative_norm"] < 0.1
    assert 0.99 < result["all"]["cosine"] < 1
    file.unlink()
    loop.train(config, str(workdir))
    assert file.read_text() == written
    assert "holds all 3 steps" in capsys.readouterr().out
    stamp = file.stat().st_mtime_ns
    loop.train(config, str(workdir))
    assert file.stat().st_mtime_ns == stamp


def test_a_base_that_has_changed_since_is_not_what_the_run_is_compared_with(
    config, tmp_path, capsys
):
    base = tmp_path / "base"
    config.checkpoint.every = 1
    loop.train(config, str(base))
    config.model.path = str(base)
    loop.train(config, str(tmp_path / "run"))
    (tmp_path / "run/drift.json").unlink()
    (base / "checkpoints/3").rename(tmp_path / "removed")
    capsys.readouterr()
    loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run/drift.json").exists()
    out = capsys.readouterr().out
    assert f"note: no drift.json, which needs the base: {base} is another" in out


def test_a_base_that_is_gone_costs_the_drift_and_nothing_else(
    config, tmp_path, capsys, monkeypatch
):
    base = tmp_path / "base"
    loop.train(config, str(base))
    config.model.path, close = str(base), Checkpoints.close

    def lose_the_base(self):
        close(self)
        (base / "checkpoints/3").rename(tmp_path / "moved")

    monkeypatch.setattr(Checkpoints, "close", lose_the_base)
    loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run/drift.json").exists()
    out = capsys.readouterr().out
    assert "note: no drift.json, which needs the base: " in out
    assert out.endswith(f"Done: 3 steps in {tmp_path / 'run'}\n")

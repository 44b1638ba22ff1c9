"""The decoder against Transformers and PEFT: tests/golden/make_golden.py made what they compute."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import plain_row
import pytest

from jft.batch import Batch
from jft.checkpoints import peft, safetensors_io, tensor_names
from jft.checkpoints.families import read as families
from jft.model import decoder, lora

FLOAT32 = np.dtype("float32")
GOLDEN = Path(__file__).parent / "golden"
# Adapters, and the variant that they change.
ADAPTERS = {
    "lora": "tied",
    "rslora": "tied",
    "dora": "bias",
    "lora_qwen2": "qwen2",
    "lora_gemma3": "gemma3",
    "lora_phi3": "longrope",
}
VARIANTS = sorted({folder.name for folder in GOLDEN.iterdir() if folder.is_dir()} - {*ADAPTERS})
GRADIENTS = [name for name in VARIANTS if (GOLDEN / name / "gradients.npz").exists()]


def _expected(name):
    return np.load(GOLDEN / name / "expected.npz", allow_pickle=False)


def _golden(name):
    """The decoder of a variant, its parameters, and its family."""
    base = safetensors_io.load(str(GOLDEN / ADAPTERS.get(name, name)))
    family = families.family_of(base.description, GOLDEN)
    if name not in ADAPTERS:
        return base.config, base.params, family
    _, adapters = peft.describe(str(GOLDEN / name))
    config = dataclasses.replace(base.config, adapters=adapters)
    trained = peft.read_adapters(str(GOLDEN / name), config, family)
    return config, lora.join(trained, base.params), family


def _batch(tokens, positions):
    """One plain row, of which every token predicts token 0."""
    length = len(tokens)
    row = [tokens, positions, np.full(length, length), np.arange(length), np.zeros(length)]
    arrays = [jnp.asarray(values, jnp.int32)[None] for values in row]
    return Batch(*arrays, jnp.ones((1, length)), jnp.zeros((1, length), jnp.int32))


def _logits(config, params, expected):
    hidden = decoder.apply(config, params, _batch(expected["tokens"], expected["positions"]))
    return np.asarray(decoder.logits(config, params, hidden))[0, expected["at"]]


@pytest.mark.parametrize("name", [*VARIANTS, *ADAPTERS])
def test_logits_equal_transformers(name):
    """Positions run to several thousand, where a wrong rotary scaling cannot hide."""
    config, params, _ = _golden(name)
    expected = _expected(name)
    assert expected["positions"].max() > 5000 or name == "longrope_short"
    assert np.std(expected["logits"]) > 0.5
    logits = _logits(config, params, expected)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [*VARIANTS, *ADAPTERS])
def test_greedy_generation_equals_transformers(name):
    config, params, _ = _golden(name)
    expected = _expected(name)
    ids = expected["tokens"].astype(np.int32)
    for token in expected["generated"]:
        logits = np.asarray(plain_row.logits(config, params, ids[None])[-1])
        # Bounded logits of gemma2 are equal for several tokens, but for the last bit.
        np.testing.assert_allclose(logits[int(token)], logits.max(), rtol=1e-6, atol=0)
        ids = np.append(ids, np.int32(token))


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_adapters_give_the_logits_of_peft(name):
    config, params, _ = _golden(name)
    expected = _expected(name)
    params = lora.merge(jax.tree.map(jnp.array, params), config.adapters, jnp.dtype("float32"))
    logits = _logits(dataclasses.replace(config, adapters=None), params, expected)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)
    assert np.abs(_expected(ADAPTERS[name])["logits"] - expected["logits"]).max() > 0.1


@pytest.mark.parametrize("name", ADAPTERS)
def test_written_adapters_compute_the_same(name, tmp_path):
    """Those of fused projections are written as one of a multiple of the rank."""
    config, params, family = _golden(name)
    peft.write_adapters(config, family, lora.split(params)[0], tmp_path, "BASE")
    _, adapters = peft.describe(str(tmp_path))
    assert adapters.rank == config.adapters.rank * (3 if name == "lora_phi3" else 1)
    again = dataclasses.replace(config, adapters=adapters)
    trained = peft.read_adapters(str(tmp_path), again, family)
    expected = _expected(name)
    logits = _logits(again, lora.join(trained, lora.split(params)[1]), expected)
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)


def _sum_shared(layers):
    """Sum gradients of what PEFT has once, and the decoder for each of the fused projections."""
    for part in (
        [layers["attention"][name]["adapter"] for name in ("query", "key", "value")],
        [layers["mlp"][name]["adapter"] for name in ("gate", "up")],
    ):
        total = sum(adapter["down"] for adapter in part)
        for adapter in part:
            adapter["down"] = total


@pytest.mark.parametrize("name", [*GRADIENTS, *ADAPTERS])
def test_gradients_equal_transformers(name):
    """Of all parameters, or of adapters."""
    config, params, family = _golden(name)
    tokens = _expected(name)["tokens"].astype(np.int32)
    batch = _batch(tokens, np.arange(len(tokens)))
    trained, frozen = lora.split(params) if name in ADAPTERS else (params, {})

    def total(trained):
        whole = lora.join(trained, frozen) if frozen else trained
        return decoder.token_logprobs(config, whole, batch).sum()

    grads = jax.device_get(jax.jit(jax.grad(total))(trained))
    if name == "lora_phi3":
        _sum_shared(grads["layers"])
    wanted = np.load(GOLDEN / name / "gradients.npz", allow_pickle=False)
    tensors = families.tensors(family)
    found = dict(tensor_names.dump_tensors(config, grads, FLOAT32, tensors, "hf"))
    assert {each.removesuffix(".weight") for each in found} == {
        each.removesuffix(".weight") for each in wanted.files
    }
    for key, grad in found.items():
        np.testing.assert_allclose(grad, wanted[key], rtol=1e-3, atol=1e-4 * np.abs(grad).max())


def test_variants_differ_in_what_they_are_named_for():
    configs = {name: safetensors_io.load(str(GOLDEN / name)).config for name in VARIANTS}
    of_llama = ("tied", "untied", "linear", "llama3", "bias")
    assert [name for name in of_llama if configs[name].tied_head] == ["tied", "linear"]
    assert [name for name in of_llama if configs[name].out_bias] == ["bias"]
    assert [name for name in of_llama if configs[name].mlp_bias] == ["bias"]
    assert configs["linear"].ropes[0].factors == (4.0,) * 4
    factors = configs["llama3"].ropes[0].factors
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    assert len(set(factors)) > 2
    assert [len(config.windows) for config in configs.values()].count(2) >= 4
    assert {config.norms for config in configs.values()} == {"before", "after", "both"}

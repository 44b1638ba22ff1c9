"""The decoder against logits of Transformers and PEFT, which tests/golden/make_golden.py made."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jft.batch import Batch
from jft.checkpoints import peft, safetensors_io, tensor_names
from jft.model import decoder, lora

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = ("tied", "untied", "llama3", "linear", "bias", "mistral")


ADAPTERS = {"lora": "tied", "rslora": "tied", "dora": "bias"}  # and the variant that they change


def _golden(name):
    expected = np.load(GOLDEN / name / "expected.npz", allow_pickle=False)
    if name not in ADAPTERS:
        return safetensors_io.load(str(GOLDEN / name)), expected
    _, adapters = peft.describe(str(GOLDEN / name))
    base = safetensors_io.load(str(GOLDEN / ADAPTERS[name]))
    config = dataclasses.replace(base.config, adapters=adapters)
    return (
        config,
        lora.join(peft.read_adapters(str(GOLDEN / name), config), base.params),
    ), expected


def _batch(expected, vocab_size):
    """One plain row; its loss entries ask for the whole vocabulary at each golden position."""
    at, length = expected["at"], len(expected["tokens"])
    index_M = np.repeat(at, vocab_size)
    target_M = np.tile(np.arange(vocab_size), len(at))
    row = [expected["tokens"], expected["positions"], np.full(length, length), index_M, target_M]
    arrays = [jnp.asarray(values, jnp.int32)[None] for values in row]
    return Batch(*arrays, jnp.ones((1, len(index_M))), jnp.zeros((1, len(index_M)), jnp.int32))


@pytest.mark.parametrize("name", [*VARIANTS, *ADAPTERS])
def test_logits_equal_transformers(name):
    """Positions run to several thousand, where a wrong rotary scaling cannot hide."""
    (config, params), expected = _golden(name)
    hidden_TD = decoder.apply(config, params, _batch(expected, config.vocab_size))[0]
    head_VD = params["embed"] if config.tied_head else params["head"]["kernel"]
    logits = np.asarray(hidden_TD[expected["at"]] @ head_VD.T)
    assert expected["positions"].max() > 5000
    assert np.std(expected["logits"]) > 0.5
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_logprobs_equal_transformers(name):
    (config, params), expected = _golden(name)
    logprobs = decoder.token_logprobs(config, params, _batch(expected, config.vocab_size))
    wanted = jax.nn.log_softmax(expected["logits"], axis=-1)
    np.testing.assert_allclose(logprobs.reshape(wanted.shape), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_adapters_give_the_logits_of_peft(name):
    (config, params), expected = _golden(name)
    params = lora.merge(jax.tree.map(jnp.array, params), config.adapters, jnp.dtype("float32"))
    config = dataclasses.replace(config, adapters=None)
    logprobs = decoder.token_logprobs(config, params, _batch(expected, config.vocab_size))
    wanted = jax.nn.log_softmax(expected["logits"], axis=-1)
    np.testing.assert_allclose(logprobs.reshape(wanted.shape), wanted, rtol=0, atol=1e-4)
    base = np.load(GOLDEN / ADAPTERS[name] / "expected.npz", allow_pickle=False)
    assert np.abs(base["logits"] - expected["logits"]).max() > 0.5


@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_of_adapters_equal_those_of_peft(name):
    (config, params), expected = _golden(name)
    tokens = expected["tokens"].astype(np.int32)
    length = len(tokens)
    row = [tokens, np.arange(length), np.full(length, length), np.arange(length), 0 * tokens]
    arrays = [jnp.asarray(values, jnp.int32)[None] for values in row]
    batch = Batch(*arrays, jnp.ones((1, length)), jnp.zeros((1, length), jnp.int32))
    trained, frozen = lora.split(params)

    def total(trained):
        whole = lora.join(trained, frozen)
        return decoder.token_logprobs(config, whole, batch).sum()

    grads = jax.device_get(jax.jit(jax.grad(total))(trained))
    wanted = np.load(GOLDEN / name / "gradients.npz", allow_pickle=False)
    found = dict(tensor_names.dump_tensors(config, grads, np.dtype("float32"), "hf"))
    assert found.keys() == set(wanted.files)
    for key, grad in found.items():
        np.testing.assert_allclose(grad, wanted[key], rtol=1e-3, atol=1e-4 * np.abs(grad).max())


def test_variants_differ_in_what_they_are_named_for():
    configs = {name: safetensors_io.load(str(GOLDEN / name)).config for name in VARIANTS}
    assert [name for name in VARIANTS if configs[name].tied_head] == ["tied", "linear"]
    assert [name for name in VARIANTS if configs[name].attention_bias] == ["bias"]
    assert [name for name in VARIANTS if configs[name].mlp_bias] == ["bias"]
    assert configs["linear"].rope_factors == (4.0,) * 4
    factors = configs["llama3"].rope_factors
    assert (factors[0], factors[-1]) == (1.0, 8.0)
    assert len(set(factors)) > 2

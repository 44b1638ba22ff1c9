"""Dithered rounding: weights keep their mean, and every program rounds them alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_kernels import config_of_mesh, trees

from jft.checkpoints import safetensors_io, weights
from jft.checkpoints.files import RANDOM_MODEL
from jft.model import decoder, dither, lora
from jft.model import mesh as mesh_lib
from jft.training import step as step_lib

BFLOAT16 = jnp.dtype(jnp.bfloat16)
# The distance from a number between 1 and 2 to the next bfloat16.
SPACING = 2.0**-7


def rounded(x, name="kernel", layer=None):
    return np.asarray(dither.astype(jnp.asarray(x, jnp.float32), BFLOAT16, name, layer), np.float32)


def test_what_is_a_bfloat16_number_stays_itself():
    rng = np.random.default_rng(0)
    x = np.asarray(rng.normal(size=10_000), BFLOAT16).astype(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2**-133, -(2**-133)], np.float32)
    for exact in (x, special):
        np.testing.assert_array_equal(rounded(exact), exact)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.5, 0.9])
def test_a_share_of_the_weights_is_rounded_up_as_large_as_their_way_to_the_next_number(sign, share):
    x = sign * (1 + share * SPACING)
    found = rounded(np.full((400, 250), x))
    assert set(np.unique(found)) == {sign * 1.0, sign * (1.0 + SPACING)}
    assert abs((found != sign).mean() - share) < 0.005
    for axis in (0, 1):  # in every row and column
        assert abs((found != sign).mean(axis=axis) - share).max() < 0.2


def test_a_step_that_rounding_to_the_nearest_loses_is_kept_on_average():
    x = np.asarray(np.random.default_rng(0).uniform(1, 2, 100_000), BFLOAT16).astype(np.float32)
    moved = x + np.float32(0.1 * SPACING)
    assert (moved.astype(BFLOAT16).astype(np.float32) == x).all()
    assert abs((rounded(moved) - x).mean() / (0.1 * SPACING) - 1) < 0.03
    # Thresholds stay, so that a weight which grows is never rounded to less.
    further = rounded(moved + np.float32(0.2 * SPACING))
    assert (further >= rounded(moved)).all()


def test_thresholds_differ_between_parameters_layers_and_places():
    x = np.full((64, 64), 1 + 0.5 * SPACING, np.float32)
    drawn = [rounded(x), rounded(x, "other"), rounded(x, layer=3), rounded(x, layer=4)]
    bits = [(each > 1).ravel() for each in drawn]
    bits += [np.roll(bits[0], by) for by in (1, 64)]
    agree = [np.mean(a == b) for i, a in enumerate(bits) for b in bits[:i]]
    assert max(abs(share - 0.5) for share in agree) < 0.05


def test_a_layer_alone_and_a_shard_are_rounded_as_in_the_whole():
    x = np.random.default_rng(0).normal(size=(4, 16, 8)).astype(np.float32)
    whole = rounded(x)
    for i in range(4):
        np.testing.assert_array_equal(rounded(x[i], layer=i), whole[i])
    mesh = mesh_lib.make_mesh(config_of_mesh(data=2, fsdp=2, tensor=2))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp", "tensor"))
    sharded = dither.astype(jax.device_put(x, layout), BFLOAT16, "kernel")
    np.testing.assert_array_equal(np.asarray(sharded, np.float32), whole)


def test_other_types_are_cast_plainly():
    x = jnp.asarray(np.random.default_rng(0).normal(size=100), jnp.float32)
    for dtype in (jnp.float16, jnp.float32):
        np.testing.assert_array_equal(dither.astype(x, jnp.dtype(dtype), "kernel"), x.astype(dtype))
    half = x.astype(jnp.float16)
    found = dither.astype(half, BFLOAT16, "kernel")
    np.testing.assert_array_equal(
        found.astype(jnp.float32), half.astype(BFLOAT16).astype(jnp.float32)
    )


def test_gradients_pass():
    x, weight = jnp.linspace(1.0, 2.0, 100), jnp.arange(100.0).astype(BFLOAT16)

    def loss(x):
        return (dither.astype(x, BFLOAT16, "kernel") * weight).sum().astype(jnp.float32)

    grad = jax.jit(jax.grad(loss))(x)
    assert grad.dtype == jnp.float32
    np.testing.assert_array_equal(grad, weight.astype(jnp.float32))


def test_files_and_checkpoints_are_rounded_as_training_rounds(tmp_path):
    """By layer, as files are read; as a whole, as a checkpoint is; in the training step."""
    mesh = mesh_lib.make_mesh(config_of_mesh(fsdp=8))
    config, arrays = weights.from_files(RANDOM_MODEL, mesh, jnp.dtype(jnp.float32))
    params = weights.in_tree(config, arrays)
    want = jax.jit(lambda x: lora.cast(x, BFLOAT16))(params)
    _, arrays = weights.from_files(RANDOM_MODEL, mesh, BFLOAT16)
    found = weights.in_tree(config, arrays)
    jax.tree.map(np.testing.assert_array_equal, found, want)
    description = safetensors_io.describe(RANDOM_MODEL)
    for dtype, same in (("float32", want), ("bfloat16", want)):
        folder = str(tmp_path / dtype)
        safetensors_io.save(description, want if dtype == "bfloat16" else params, folder, dtype)
        _, arrays = weights.from_files(folder, mesh, BFLOAT16)
        jax.tree.map(np.testing.assert_array_equal, weights.in_tree(config, arrays), same)


def test_training_in_bfloat16_begins_as_in_float32(decoder_config):
    """A model whose weights are bfloat16 numbers, and steps far below their distance."""
    config = dataclasses.replace(decoder_config, embed_dim=128, mlp_dim=512, vocab_size=512)
    params = decoder.init(config, jax.random.key(0))
    params = jax.tree.map(lambda x: x.astype(BFLOAT16).astype(jnp.float32), params)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], trees(4, 90))
    optimizer = optax.adamw(2e-5, weight_decay=0.0)

    def fall(dtype):
        state = step_lib.TrainState(jnp.int32(0), params, optimizer.init(params))
        step = jax.jit(
            lambda state: step_lib.train_step(
                config, "attention", jnp.dtype(dtype), optimizer, state, {}, batch
            )
        )
        losses = []
        for _ in range(10):
            state, metrics = step(state)
            losses.append(float(metrics.loss))
        return losses[0] - losses[-1]

    exact = fall("float32")
    assert exact > 0
    assert abs(fall("bfloat16") / exact - 1) < 0.1

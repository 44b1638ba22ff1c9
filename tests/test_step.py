"""The training step gives the same numbers however the work is divided."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jft import config as config_lib
from jft.data import prefix_tree
from jft.data.prefix_tree import TokenSequence
from jft.errors import UserError
from jft.model import decoder, sharding
from jft.model import mesh as mesh_lib
from jft.training import step as step_lib


def examples(rng, n=6):
    """Sequences of which the first half share a prefix."""
    prefix = rng.integers(0, 60, 5)
    tails = [rng.integers(0, 60, int(rng.integers(4, 9))) for _ in range(n)]
    return [
        TokenSequence(
            np.concatenate([prefix if i < n // 2 else prefix[:0], tail]).astype(np.int32), 3
        )
        for i, tail in enumerate(tails)
    ]


def batch_of(rows, micro_rows, row_length=24, entries=32):
    count = -(-len(rows) // micro_rows)
    flat = prefix_tree.build(rows, count * micro_rows, row_length, entries)
    return jax.tree.map(lambda x: x.reshape(count, micro_rows, *x.shape[1:]), flat)


def run(decoder_config, batches, remat="attention", dtype=jnp.float32, **mesh_sizes):
    """Parameters and metrics after a step on each batch."""
    sizes = {"data": 1, "fsdp": 1, "tensor": 1} | mesh_sizes
    devices = np.array(jax.devices()[: int(np.prod(list(sizes.values())))])
    mesh = jax.sharding.Mesh(devices.reshape(list(sizes.values())), mesh_lib.AXES)
    config = config_lib.get_config().optim
    config.lr = 3e-3
    optimizer = step_lib.adamw(config, len(batches))
    layout = step_lib.shardings(decoder_config, optimizer, mesh)
    params = jax.tree.map(np.asarray, decoder.init(decoder_config, jax.random.key(0, impl="rbg")))
    state = step_lib.create_state(params, optimizer, layout)
    step = step_lib.CompiledStep(decoder_config, remat, dtype, optimizer, mesh)
    metrics = []
    for batch in batches:
        placed = jax.tree.map(lambda x: jax.device_put(x, mesh_lib.row_sharding(mesh, 1)), batch)
        state, out = step(state, {}, placed)
        metrics.append([float(x) for x in out])
    assert int(state.step) == len(batches)
    return jax.tree.map(np.asarray, state.params), metrics


def rows_of(sequences, row_length=24):
    return [[sequences[i] for i in row] for row in prefix_tree.pack(sequences, row_length)]


def assert_same(got, want):
    losses, norms = zip(*got[1], strict=True)
    wanted_losses, wanted_norms = zip(*want[1], strict=True)
    assert losses == pytest.approx(wanted_losses, rel=1e-5)
    assert norms[0] == pytest.approx(wanted_norms[0], rel=1e-5)
    # AdamW divides by the root of tiny second moments, which magnifies rounding from there on.
    assert norms == pytest.approx(wanted_norms, rel=1e-4)
    for a, b in zip(jax.tree.leaves(got[0]), jax.tree.leaves(want[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.fixture(scope="module")
def steps():
    rng = np.random.default_rng(0)
    return [examples(rng, 12) for _ in range(5)]


@pytest.fixture(scope="module")
def expected(decoder_config, steps):
    """One sequence to a row, all rows at once, on one device."""
    return run(decoder_config, [batch_of([[s] for s in step], 12) for step in steps])


def test_packed_rows_equal_separate_rows(decoder_config, steps, expected):
    got = run(decoder_config, [batch_of(rows_of(step), 6) for step in steps])
    assert_same(got, expected)


@pytest.mark.parametrize("micro_rows", [1, 4])
def test_accumulation_changes_nothing(decoder_config, steps, expected, micro_rows):
    got = run(decoder_config, [batch_of([[s] for s in step], micro_rows) for step in steps])
    assert_same(got, expected)


def test_padding_micro_batches_change_nothing(decoder_config, steps, expected):
    batches = [batch_of([[s] for s in step] + [[]] * 6, 2) for step in steps]
    assert_same(run(decoder_config, batches), expected)


@pytest.mark.parametrize(
    ("micro_rows", "remat"), [(16, "attention"), (8, "attention"), (8, "none"), (16, "full")]
)
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2)], ids=str)
def test_any_mesh_gives_the_same_numbers(decoder_config, steps, expected, sizes, micro_rows, remat):
    batches = [batch_of([[s] for s in step], micro_rows) for step in steps]
    mesh = dict(zip(mesh_lib.AXES, sizes, strict=True))
    assert_same(run(decoder_config, batches, remat=remat, **mesh), expected)


def test_what_a_device_holds_of_the_state_is_its_share(decoder_config):
    """By what the compiler says of a step; batches are a few kilobytes beside it."""
    wide = dataclasses.replace(decoder_config, embed_dim=512, vocab_size=1000)
    optimizer = step_lib.adamw(config_lib.get_config().optim, 1)
    held = []
    for fsdp in (1, 8):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:fsdp]).reshape(1, -1, 1), mesh_lib.AXES)
        program = step_lib.CompiledStep(wide, "attention", jnp.float32, optimizer, mesh)
        rows = [[s] for s in examples(np.random.default_rng(0), 8)]
        batch = mesh_lib.put(batch_of(rows, 8), mesh_lib.row_sharding(mesh, 1))
        held.append(program.compile(batch).memory_analysis().argument_size_in_bytes)
    assert held[1] <= 1.05 / 8 * held[0]


def test_a_mesh_that_does_not_divide_the_model_is_refused(decoder_config):
    for sizes, message in (
        (
            (1, 1, 8),
            r"mesh\.tensor=8 does not divide N=4, the model's heads; take 1 or one of 2, 4$",
        ),
        (
            (1, 8, 1),
            r"mesh\.fsdp=8 does not divide D=20, the model's embedding; .* 2, 4, 5, 10, 20$",
        ),
    ):
        model = dataclasses.replace(decoder_config, embed_dim=20)
        with pytest.raises(UserError, match=message):
            mesh_lib.param_shardings(mesh_lib.make_mesh(config_lib.Mesh(*sizes)), model)


def test_two_dimensions_on_one_axis_are_refused():
    table = {"N": "tensor", "F": ("data", "tensor")}
    with pytest.raises(ValueError, match="two of the dimensions NF lie on one axis"):
        sharding.spec("NF", (4, 4), {"data": 1, "tensor": 2}, table)


@pytest.mark.parametrize("sizes", [{}, {"data": 2}], ids=str)
def test_the_head_in_chunks_gives_the_same_numbers(
    monkeypatch, decoder_config, steps, expected, sizes
):
    # 7 of the 32 entries of each row, or 14
    monkeypatch.setattr(decoder, "CHUNK_LOGITS", 6 * 61 * 7)
    got = run(decoder_config, [batch_of([[s] for s in step], 6) for step in steps], **sizes)
    assert_same(got, expected)
    params = decoder.shapes(decoder_config)
    rows = prefix_tree.build([[s] for s in steps[0][:6]], 6, 24, 32)
    grad = jax.grad(lambda params: decoder.token_logprobs(decoder_config, params, rows).sum())
    text = str(jax.make_jaxpr(grad)(params))
    assert "f32[6,7,61]" in text
    assert "f32[6,32,61]" not in text


def test_bfloat16_stays_near_and_keeps_float32_weights(decoder_config, steps, expected):
    batches = [batch_of([[s] for s in step], 6) for step in steps]
    params, metrics = run(decoder_config, batches, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert metrics[0][0] == pytest.approx(expected[1][0][0], rel=0.02)
    assert metrics != expected[1]


def test_the_loss_is_the_mean_over_the_target_tokens_of_the_step(decoder_config, steps, expected):
    params = decoder.init(decoder_config, jax.random.key(0, impl="rbg"))
    batch = prefix_tree.build([[s] for s in steps[0]], 12, 24, 32)
    logprobs = decoder.token_logprobs(decoder_config, params, batch)
    targets = sum(len(s.tokens) - s.start for s in steps[0])
    assert expected[1][0][0] == pytest.approx(
        -float(jnp.sum(logprobs * batch.loss_weight_BM)) / targets, rel=1e-5
    )


def test_parameters_are_split_as_the_table_says(decoder_config):
    mesh = mesh_lib.make_mesh(config_lib.Mesh(data=2, fsdp=2, tensor=2))
    layout = mesh_lib.param_shardings(mesh, decoder_config)
    P = jax.sharding.PartitionSpec
    assert layout["layers"]["attention"]["query"]["kernel"].spec == P(None, "tensor", None, "fsdp")
    assert layout["layers"]["mlp"]["down"]["kernel"].spec == P(None, "fsdp", "tensor")
    # 61 tokens do not divide by two, so the vocabulary stays whole.
    assert layout["embed"].spec == P(None, "fsdp")


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, -1, 1), (1, 1, 1), (-1, 3, 1), (0, 1, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match=r"mesh\.data"):
        mesh_lib.make_mesh(config_lib.Mesh(*sizes))


def test_what_is_left_of_the_devices_goes_to_the_axis_of_minus_one():
    assert dict(mesh_lib.make_mesh(config_lib.Mesh(-1, 2, 2)).shape) == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [2.0, 1.5, 1.0, 0.5]),
        ("constant", [2.0, 2.0, 2.0, 2.0]),
        ("cosine", [2.0, 1 + np.cos(np.pi / 4), 1.0, 1 + np.cos(3 * np.pi / 4)]),
    ],
)
def test_schedules(name, expected):
    schedule = step_lib.learning_rate(config_lib.Optim(lr=2.0, schedule=name), 4)
    assert [float(schedule(s)) for s in range(4)] == pytest.approx(expected, rel=1e-6)


def test_warmup_rises_from_zero_and_the_decay_still_ends_at_zero():
    schedule = step_lib.learning_rate(config_lib.Optim(lr=1.0, warmup_steps=2), 6)
    values = [float(schedule(s)) for s in range(7)]
    assert values == pytest.approx([0, 0.5, 1, 0.75, 0.5, 0.25, 0])


def test_adamw_is_the_papers():
    """One update by hand: the bias-corrected moments of a first gradient are its sign."""
    config = config_lib.Optim(lr=0.1, weight_decay=0.5, schedule="constant")
    optimizer = step_lib.adamw(config, 3)
    params, grads = {"w": jnp.array([2.0, -4.0])}, {"w": jnp.array([0.3, -0.7])}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)["w"]
    np.testing.assert_allclose(
        new, [2 - 0.1 * (1 + 0.5 * 2), -4 - 0.1 * (-1 + 0.5 * -4)], rtol=1e-5
    )


def test_clipping_limits_the_norm():
    seen = functools.partial(step_lib.adamw, steps=3)
    clipped = seen(config_lib.Optim(lr=1.0, clip=1.0, b1=0.0, b2=0.0, eps=1e3, schedule="constant"))
    params = {"w": jnp.array([0.0, 0.0])}
    grads = {"w": jnp.array([30.0, 40.0])}
    updates, _ = clipped.update(grads, clipped.init(params), params)
    # With so large an eps AdamW is the gradient over eps: the clipped one, of norm 1.
    assert float(jnp.linalg.norm(updates["w"])) == pytest.approx(1e-3, rel=2e-3)

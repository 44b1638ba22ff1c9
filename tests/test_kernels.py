"""Attention's kernels, interpreted on the CPU, equal attention with the whole mask.

What no CPU can run is compiled for the devices that it is meant for.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import topologies
from jax.extend import backend
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh
from test_attention import dense, forest, whole_mask, windows

from jft import config as config_lib
from jft.batch import Batch
from jft.data import prefix_tree
from jft.errors import UserError
from jft.model import attention, decoder
from jft.model import mesh as mesh_lib
from jft.model.architecture import LayerKind, Rope
from jft.model.kernels import blocks, choices, gpu, library, tpu, tree_attention
from jft.model.scores import Scores
from jft.training import step as step_lib

KERNELS = [tree_attention.Kernels(module, interpret=True) for module in (gpu, tpu)]
# The kinds of device, as JAX names them.
KINDS = {"cpu": "cpu", "gpu": "NVIDIA H100 80GB HBM3", "tpu": "TPU v5 lite"}
all_kernels = pytest.mark.parametrize("kernels", KERNELS, ids=["gpu", "tpu"])
TPU_CALL = 'custom_call_target="tpu_custom_call"'
# Of the Triton backend, in JAX from 0.11 on.
triton = pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")


def trees(rows, row_length, seed=0):
    """Random forests, and one row of padding more."""
    rng = np.random.default_rng(seed)
    forests = [forest(rng, row_length) for _ in range(rows - 1)]
    entries = max(map(prefix_tree.num_entries, forests))
    return prefix_tree.build(forests, rows, row_length, entries)


def arrays(rows, length, heads=4, kv_heads=2, size=8, dtype=jnp.float32):
    """Query, key, value, and a gradient of the output."""
    rng = np.random.default_rng(length)
    shapes = [(rows, length, n, size) for n in (heads, kv_heads, kv_heads, heads)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def results(attend, query, key, value, d_out):
    """The output, and the gradients of query, key and value."""
    out, back = jax.vjp(attend, query, key, value)
    return out, *back(d_out)


def inputs_of(query, scores=None):
    """The facts about attention's inputs, with plain scores unless others are given."""
    size = query.shape[-1]
    return blocks.Inputs(size, jnp.dtype(query.dtype), scores or Scores(size**-0.5))


def by_kernels(batch, kernels):
    """`results` of the kernels, compiled."""

    def run(query, *others):
        mask = tree_attention.kernel_mask(batch, kernels, inputs_of(query))
        return results(lambda *qkv: attend(*qkv, mask), query, *others)

    return jax.jit(run)


def attend(query, key, value, mask, scores=None, window=0):
    """Attention by kernels or a library, with plain scores unless others are given."""
    scores = scores or inputs_of(query).scores
    return attention.attend(query, key, value, mask, scores, window)


def whole(batch):
    """`results` with the whole mask."""
    return lambda *x: results(lambda *qkv: dense(*qkv, batch), *x)


def assert_close(got, want, **tolerance):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float32), b, **tolerance)


@all_kernels
@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "size"),
    [(389, 4, 2, 24), (256, 3, 1, 8), (7, 2, 2, 64)],
    ids=["grouped", "whole blocks", "one block"],
)
def test_kernels_equal_the_whole_mask(kernels, length, heads, kv_heads, size):
    batch = trees(3, length)
    inputs = arrays(3, length, heads, kv_heads, size)
    assert_close(by_kernels(batch, kernels)(*inputs), whole(batch)(*inputs), rtol=2e-5, atol=4e-6)


@all_kernels
@pytest.mark.parametrize("cap", [0.0, 2.0], ids=["", "capped"])
def test_layers_with_windows_equal_the_whole_mask(kernels, cap):
    """The window of a layer is known only when it runs."""
    batch, inputs = trees(2, 300), arrays(2, 300)
    config = windows(0, 5, 40, 10**6, score_cap=cap, score_scale=0.7)
    assert batch.positions_BT.max() > 40
    batch = batch._replace(window_blocks=None)
    given = inputs_of(inputs[0], Scores.of(config))
    mask = tree_attention.kernel_mask(batch, kernels, given, config.windows)
    assert mask.by_window

    @jax.jit
    def by_kernels(window, *inputs):
        return results(lambda *qkv: attend(*qkv, mask, Scores.of(config), window), *inputs)

    for number, window in enumerate(config.windows):
        with_mask = functools.partial(dense, batch=batch, config=config, window=window)
        wanted = results(with_mask, *inputs)
        assert_close(by_kernels(number, *inputs), wanted, rtol=2e-5, atol=1e-5)


@all_kernels
def test_bfloat16_within_its_rounding(kernels):
    batch, inputs = trees(2, 200), arrays(2, 200, dtype=jnp.bfloat16)
    got = by_kernels(batch, kernels)(*inputs)
    assert {x.dtype for x in got} == {jnp.dtype(jnp.bfloat16)}
    want = whole(batch)(*(x.astype(jnp.float32) for x in inputs))
    for a, b in zip(got, want, strict=True):
        error = np.linalg.norm(np.asarray(a, np.float32) - b) / np.linalg.norm(b)
        assert error < 2**-7


@pytest.mark.parametrize(("length", "size"), [(2048, 64), (2048, 256), (1280, 128)])
def test_pairs_are_the_blocks_of_queries_and_keys_that_they_see(length, size):
    batch = trees(3, length, seed=size)
    num_blocks = length // size
    visible = whole_mask(batch.visible_until_BT)
    by_block = visible.reshape(3, num_blocks, size, num_blocks, size)
    seen, full = by_block.any(axis=(2, 4)), by_block.all(axis=(2, 4))
    assert full.any()
    assert seen.sum() < 0.8 * 3 * num_blocks * (num_blocks + 1) / 2
    for most in (None, batch.key_blocks_BQW.shape[2] + batch.prefix_blocks_BU.shape[1]):
        marks = blocks.Marks(jnp.asarray(batch.visible_until_BT))
        by_query, by_key = blocks.block_pairs(marks, size, most)
        for found, axes in ((by_query, (0, 1)), (by_key, (1, 0))):
            for row in range(3):
                outer, inner, start, mask = (np.asarray(x[row]) for x in found)
                pairs = np.argwhere(seen[row].transpose(axes))
                whole = full[row].transpose(axes)[*pairs.T]
                expected = pairs[np.lexsort((~whole, pairs[:, 0]))]
                np.testing.assert_array_equal(
                    mask - start[:-1], full[row].transpose(axes).sum(axis=1)
                )
                np.testing.assert_array_equal(
                    np.stack([outer, inner], 1)[: len(expected)], expected
                )
                np.testing.assert_array_equal(outer[len(expected) :], num_blocks - 1)
                np.testing.assert_array_equal(
                    start, np.searchsorted(expected[:, 0], np.arange(num_blocks + 1))
                )


def test_a_row_that_is_one_sequence_has_all_its_pairs():
    until = jnp.full((1, 320), 320, jnp.int32)
    for found in blocks.block_pairs(blocks.Marks(until), 32, most=10):
        assert found.start_BQ[0, -1] == found.outer_BZ.shape[1] == 55


def test_blocks_out_of_the_window_are_no_pairs():
    position = jnp.arange(320)[None]
    marks = blocks.Marks(jnp.full((1, 320), 320, jnp.int32), position, position - 34 + 1)
    by_query, by_key = blocks.block_pairs(marks, 32)
    # The first query of a block reaches two tokens into the block before the last one.
    # and none sees all of a block before its own.
    wanted = [(q, k) for q in range(10) for k in range(max(0, q - 2), q + 1)]
    for found, pairs in ((by_query, wanted), (by_key, sorted((k, q) for q, k in wanted))):
        count = int(found.start_BQ[0, -1])
        both = zip(found.outer_BZ[0].tolist(), found.inner_BZ[0].tolist(), strict=True)
        assert list(both)[:count] == pairs
        np.testing.assert_array_equal(found.mask_BQ, found.start_BQ[:, :-1])


def test_blocks_within_the_window_need_no_mask():
    position = jnp.arange(320)[None]
    marks = blocks.Marks(jnp.full((1, 320), 320, jnp.int32), position, position - 64 + 1)
    by_query, by_key = blocks.block_pairs(marks, 32)
    for found in (by_query, by_key):
        # The last query of a block sees all of the block before it, and all do.
        first = 0 if found is by_query else 9
        wanted = np.arange(10) != first
        np.testing.assert_array_equal(found.mask_BQ - found.start_BQ[:, :-1], wanted[None])


def test_float32_is_multiplied_exactly():
    with jax.default_matmul_precision("highest"):
        for dtype, exact in ((jnp.float32, True), (jnp.bfloat16, False)):
            b = jnp.zeros((8, 8), dtype)
            program = jax.make_jaxpr(lambda a, b: blocks.dot(a, b, (1, 0)))(b, b)
            assert ("HIGHEST" in str(program)) == exact


@all_kernels
def test_blocks_that_nothing_sees_are_never_loaded(kernels):
    # Two trees that see no block of each other, each of two blocks.
    cut = 2 * kernels.module.tuning(1, 8, jnp.dtype(jnp.float32)).block
    until = np.r_[np.full(cut, cut), np.full(cut, 2 * cut)].astype(np.int32)[None]
    batch = Batch(*(None,) * 2, until, *(None,) * 4)
    inputs, run = arrays(1, 2 * cut), by_kernels(batch, kernels)
    clean = run(*inputs)
    for tree in (slice(cut), slice(cut, None)):
        spoilt = run(*(x.at[:, tree].set(jnp.nan) for x in inputs))
        other = slice(cut, None) if tree.stop else slice(cut)
        for a, b in zip(spoilt, clean, strict=True):
            assert np.isnan(a[:, tree]).all()
            np.testing.assert_array_equal(a[:, other], b[:, other])


@all_kernels
@pytest.mark.parametrize("kv_heads", [2, 1], ids=["heads apart", "heads together"])
def test_each_device_has_its_rows_and_heads(kernels, kv_heads):
    batch, inputs = trees(4, 100), arrays(4, 100, kv_heads=kv_heads)
    want = by_kernels(batch, kernels)(*inputs)
    mesh = mesh_lib.make_mesh(config_of_mesh(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        program = by_kernels(batch, kernels)
        got = program(*inputs)
        text = program.lower(*inputs).compile().as_text()
    assert_close(got, want, rtol=1e-6, atol=1e-6)
    rows, heads = got[0].sharding.shard_shape(got[0].shape)[::2]
    assert (rows, heads) == (1, 2 if kv_heads == 2 else 4)
    assert "all-gather" not in text


def config_of_mesh(**sizes):
    config = config_lib.get_config().mesh
    for name, size in sizes.items():
        setattr(config, name, size)
    return config


@all_kernels
def test_a_decoder_learns_the_same(monkeypatch, decoder_config, kernels):
    batch = jax.tree.map(jnp.asarray, trees(2, 90))
    params = decoder.init(decoder_config, jax.random.key(0))

    def run():
        loss = jax.value_and_grad(
            lambda params: step_lib.loss_sum(
                decoder_config, "attention", jnp.float32, params, {}, batch
            )
        )
        return jax.tree.leaves(jax.jit(loss)(params)), str(jax.make_jaxpr(loss)(params))

    want, plain = run()
    monkeypatch.setattr(choices, "choose", lambda inputs, batch: "pallas")
    monkeypatch.setattr(tree_attention, "kernels_for_mesh", lambda: kernels)
    got, text = run()
    assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert "pallas_call[" in text
    assert "pallas_call[" not in plain


def abstract(platform, *sizes):
    """A mesh of devices that this machine need not have."""
    device = AbstractDevice(KINDS[platform], 1, platform)
    types = (AxisType.Auto,) * len(mesh_lib.AXES)
    return AbstractMesh(sizes, mesh_lib.AXES, axis_types=types, abstract_device=device)


def choose(platform, head_size=64, dtype=jnp.bfloat16, cap=0.0, batch=None):
    """The candidate for devices of a platform."""
    inputs = blocks.Inputs(head_size, jnp.dtype(dtype), Scores(0.1, cap))
    with jax.sharding.use_abstract_mesh(abstract(platform, 2, 1, 1)):
        return choices.choose(inputs, trees(2, 300) if batch is None else batch)


@pytest.fixture
def said(monkeypatch):
    """What is said of choices, as if nothing had been before."""
    lines = []
    monkeypatch.setattr(choices, "_say_once", functools.cache(lines.append))
    return lines


def test_xla_takes_over_where_jax_has_lost_a_backend(monkeypatch, said):
    monkeypatch.setitem(tree_attention.MODULES, "gpu", "jft.model.nowhere")
    assert choose("gpu") == choose("gpu") == "xla"
    (line,) = said
    assert "jft.model.nowhere" in line


def test_the_mesh_decides(said):
    inputs = blocks.Inputs(64, jnp.dtype(jnp.bfloat16), Scores(0.1))
    assert choices.choose(inputs, trees(2, 300)) == "xla"
    assert [choose(platform) for platform in ("cpu", "gpu", "tpu")] == ["xla", "pallas", "pallas"]
    for platform, module in (("gpu", gpu), ("tpu", tpu)):
        with jax.sharding.use_abstract_mesh(abstract(platform, 2, 1, 1)):
            assert tree_attention.kernels_for_mesh() == tree_attention.Kernels(module)
        assert choose(platform, head_size=512) == choose(platform, head_size=512) == "xla"
    assert said == ["attention goes without pallas: they take heads of up to 256, not 512"]


def test_the_table_tells_trees_from_rows_of_one_sequence(monkeypatch):
    table = (choices.Choice("NVIDIA H100", "pallas", "cudnn"), choices.Choice("", "xla", "xla"))
    monkeypatch.setattr(choices, "CHOICES", table)
    one = prefix_tree.TokenSequence(np.arange(512, dtype=np.int32), 500)
    row = prefix_tree.build([[one]], 1, 512, 12)
    assert choices.seen_share(row) == 1
    many = [prefix_tree.TokenSequence(np.full(64, i, np.int32), 60) for i in range(8)]
    packed = prefix_tree.build([many], 1, 512, 32)
    assert choices.seen_share(packed) < 0.3
    assert choices.seen_share(packed._replace(key_blocks_BQW=None, prefix_blocks_BU=None)) == 1
    assert choose("gpu", batch=row) == "cudnn"
    assert choose("gpu", batch=packed) == "pallas"
    assert choose("tpu", batch=row) == "xla"


def test_a_candidate_may_be_asked_for(monkeypatch, said):
    monkeypatch.setenv(choices.VARIABLE, "cudnn")
    assert choose("gpu") == "cudnn"
    assert choose("cpu") == "xla"
    assert said == []
    assert choose("gpu", dtype=jnp.float32) == "pallas"
    assert choose("gpu", cap=30.0) == "pallas"
    assert choose("gpu", head_size=20) == "pallas"
    assert choose("tpu") == "pallas"
    assert [line.split(": ")[0] for line in said] == ["attention goes without cudnn"] * 4
    words = ("float32", "bound", "20", "tpu")
    assert all(word in line for word, line in zip(words, said, strict=True))
    monkeypatch.setenv(choices.VARIABLE, "flash")
    with pytest.raises(UserError, match="JFT_ATTENTION=flash: one of xla, pallas, cudnn, tokamax"):
        choose("gpu")


LIBRARIES = [
    pytest.param(name, marks=pytest.mark.skipif(not found, reason=f"{name} is not installed"))
    for name, found in (("cudnn", True), ("tokamax", importlib.util.find_spec("tokamax")))
]


@pytest.fixture(params=LIBRARIES)
def name(request):
    """A library, which may promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield request.param


@pytest.mark.parametrize(("length", "size"), [(389, 24), (256, 8)])
def test_libraries_take_the_same_mask(name, length, size):
    batch, inputs = trees(3, length), arrays(3, length, size=size)
    mask = library.whole_mask(batch, name, on_cpu=True)
    got = jax.jit(lambda *x: results(lambda *qkv: attend(*qkv, mask), *x))(*inputs)
    assert_close(got, whole(batch)(*inputs), rtol=2e-5, atol=4e-6)


def test_libraries_take_the_window_of_a_layer(name):
    batch, inputs = trees(2, 300), arrays(2, 300)
    config = windows(0, 5, 40, 10**6, score_scale=0.7)
    mask = library.whole_mask(batch, name, config.windows, on_cpu=True)
    assert mask.by_window

    @jax.jit
    def by_library(window, *inputs):
        return results(lambda *qkv: attend(*qkv, mask, Scores.of(config), window), *inputs)

    for number, window in enumerate(config.windows):
        with_mask = functools.partial(dense, batch=batch, config=config, window=window)
        assert_close(by_library(number, *inputs), results(with_mask, *inputs), rtol=2e-5, atol=1e-5)


def test_a_library_gets_the_rows_and_heads_of_each_device(name):
    batch, inputs = trees(4, 100), arrays(4, 100)
    mask = library.whole_mask(batch, name, on_cpu=True)
    run = jax.jit(lambda *x: results(lambda *qkv: attend(*qkv, mask), *x))
    want = run(*inputs)
    with jax.set_mesh(mesh_lib.make_mesh(config_of_mesh(data=2, fsdp=2, tensor=2))):
        got = run(*inputs)
    assert_close(got, want, rtol=1e-5, atol=2e-6)
    assert got[0].sharding.shard_shape(got[0].shape)[::2] == (1, 2)


def test_a_decoder_learns_the_same_by_a_library(monkeypatch, decoder_config, name):
    batch = jax.tree.map(jnp.asarray, trees(2, 90))
    params = decoder.init(decoder_config, jax.random.key(0))

    def run():
        loss = functools.partial(step_lib.loss_sum, decoder_config, "attention", jnp.float32)
        return jax.jit(jax.grad(lambda params: loss(params, {}, batch)))(params)

    want = run()
    monkeypatch.setattr(choices, "choose", lambda inputs, batch: name)
    make = library.whole_mask
    monkeypatch.setattr(library, "whole_mask", lambda *x: make(*x, on_cpu=True))
    assert_close(*map(jax.tree.leaves, (run(), want)), rtol=1e-4, atol=1e-5)


def shapes(sharding, rows, length, heads=4, kv_heads=2, size=64, dtype=jnp.bfloat16):
    like = [(rows, length, n, size) for n in (heads, kv_heads, kv_heads, heads)]
    qkvs = [jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape in like]
    return *qkvs, jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=sharding)


def of_mesh(query, key, value, d_out, until):
    """`results` by the kernels that the mesh's devices have."""
    batch = Batch(*(None,) * 2, until, *(None,) * 4)
    mask = tree_attention.kernel_mask(batch, tree_attention.kernels_for_mesh(), inputs_of(query))
    return results(lambda *qkv: attend(*qkv, mask), query, key, value, d_out)


def windowed_of_mesh(query, key, value, d_out, until, window):
    """The same in a layer with a window and bounded scores, which is known only when it runs."""
    batch = Batch(until, until, until, *(None,) * 4)
    kernels, scores = tree_attention.kernels_for_mesh(), Scores(0.1, 50.0)
    mask = tree_attention.kernel_mask(batch, kernels, inputs_of(query, scores), (0, 40))
    return results(lambda *qkv: attend(*qkv, mask, scores, window), query, key, value, d_out)


WINDOW = jax.ShapeDtypeStruct((), jnp.int32)


@triton
@pytest.mark.parametrize("size", [64, 128, 256])
def test_kernels_with_windows_are_lowered_for_gpus(size):
    with jax.sharding.use_abstract_mesh(abstract("gpu", 2, 1, 2)):
        traced = jax.jit(windowed_of_mesh).trace(*shapes(None, 2, 300, size=size), WINDOW)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__gpu$xla.gpu.triton(") == 3


@triton
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)], ids=["a device", "four devices"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_kernels_are_lowered_for_gpus(sizes, dtype):
    with jax.sharding.use_abstract_mesh(abstract("gpu", *sizes)):
        traced = jax.jit(of_mesh).trace(*shapes(None, 2, 300, size=80, dtype=dtype))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("@__gpu$xla.gpu.triton(") == 3


@pytest.fixture
def hopper(monkeypatch):
    """Make libraries lower for an H100, though they find none here."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    versions = types.SimpleNamespace(cudnn_get_version=lambda: 91300)
    monkeypatch.setattr(cudnn, "cuda_versions", versions)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda wanted: float(wanted) <= 9)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda wanted: wanted == "9.0")
    device = types.SimpleNamespace(
        platform="gpu", device_kind=KINDS["gpu"], compute_capability="9.0", core_count=132
    )
    monkeypatch.setattr(backend, "get_default_device", lambda: device)


def with_library(name, query, key, value, d_out, until, window):
    """`windowed_of_mesh` by a library, which does not bound scores."""
    batch = Batch(until, until, until, *(None,) * 4)
    mask = library.whole_mask(batch, name, (0, 40))
    return results(lambda *qkv: attend(*qkv, mask, window=window), query, key, value, d_out)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_libraries_are_lowered_for_gpus(name, hopper, size):
    with jax.sharding.use_abstract_mesh(abstract("gpu", 1, 1, 1)), compiled_elsewhere(name):
        run = jax.jit(functools.partial(with_library, name))
        traced = run.trace(*shapes(None, 2, 300, size=size), WINDOW)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    wanted = {"cudnn": "__cudnn$fmha", "tokamax": "mosaic_gpu"}[name]
    assert text.count(f"custom_call @{wanted}") >= 2


def compiled_elsewhere(name):
    """Have tokamax not ask for the devices of this machine."""
    if name != "tokamax":
        return contextlib.nullcontext()
    return importlib.import_module("tokamax.config").cross_compile(True)


@pytest.fixture(params=["v5e:2x2"])
def tpus(request, monkeypatch):
    """Four TPUs that are not there."""
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu, which compiles for TPUs, is not installed: it is in the extra `dev`")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # tests run side by side
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=request.param, chips_per_host_bounds=[2, 2, 1], num_slices=1
    )
    return np.array(topology.devices)


def mesh_of(devices, *sizes):
    types = (AxisType.Auto,) * len(mesh_lib.AXES)
    return Mesh(devices.reshape(sizes), mesh_lib.AXES, axis_types=types)


@pytest.mark.parametrize(
    ("dtype", "length"),
    [(jnp.bfloat16, 4096), (jnp.bfloat16, 4 * 4096), (jnp.float32, 4096)],
)
def test_kernels_are_compiled_for_tpus_in_memory_for_the_tokens(tpus, dtype, length):
    mesh = mesh_of(tpus[:1], 1, 1, 1)
    inputs = shapes(mesh_lib.replicated(mesh), 1, length, 2, 1, dtype=dtype)
    with jax.set_mesh(mesh):
        program = jax.jit(of_mesh).lower(*inputs).compile()
    assert program.as_text().count(TPU_CALL) == 3
    # One head's scores would be 64 MB, and 1 GB with four times the tokens.
    memory = program.memory_analysis()
    assert memory.temp_size_in_bytes < memory.argument_size_in_bytes + memory.output_size_in_bytes


@pytest.mark.parametrize("size", [64, 256])
def test_kernels_with_windows_are_compiled_for_tpus(tpus, size):
    mesh = mesh_of(tpus[:1], 1, 1, 1)
    inputs = shapes(mesh_lib.replicated(mesh), 1, 2048, 2, 1, size)
    with jax.set_mesh(mesh):
        program = jax.jit(windowed_of_mesh).lower(*inputs, WINDOW).compile()
    assert program.as_text().count(TPU_CALL) == 3


@pytest.mark.parametrize("tpus", ["v5p:2x2x1", "v6e:2x2"], indirect=True)
def test_kernels_are_compiled_for_other_tpus(tpus):
    mesh = mesh_of(tpus[:1], 1, 1, 1)
    with jax.set_mesh(mesh):
        program = jax.jit(of_mesh).lower(*shapes(mesh_lib.replicated(mesh), 1, 1024)).compile()
    assert program.as_text().count(TPU_CALL) == 3


@pytest.mark.parametrize("tpus", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"], indirect=True)
@pytest.mark.skipif(
    not importlib.util.find_spec("tokamax"), reason="tokamax is not installed: extra `kernels`"
)
def test_tokamax_is_compiled_for_tpus(tpus):
    mesh = mesh_of(tpus[:1], 1, 1, 1)
    inputs = shapes(mesh_lib.replicated(mesh), 1, 1024, 2, 1, 128)
    run = jax.jit(functools.partial(with_library, "tokamax"))
    with jax.set_mesh(mesh), compiled_elsewhere("tokamax"), jax.numpy_rank_promotion("allow"):
        program = run.lower(*inputs, WINDOW).compile()
    assert program.as_text().count(TPU_CALL) >= 2


def test_a_step_of_layers_of_several_kinds_is_compiled_for_tpus(tpus, decoder_config):
    """One compiled layer serves those with a window and those without."""
    mesh, kinds = mesh_of(tpus, 2, 1, 2), (LayerKind(16), LayerKind(0, Rope(1e6)))
    config = dataclasses.replace(decoder_config, layers=kinds, norms="both", score_cap=50.0)
    program = step_lib.CompiledStep(config, "attention", jnp.bfloat16, optax.adamw(1e-3), mesh)
    program.compile(jax.tree.map(lambda x: x[None], trees(4, 200)))
    (compiled,) = program._compiled.values()
    assert compiled.as_text().count(TPU_CALL) == 3


# The forward kernel runs again in the backward pass only where nothing is saved.
@pytest.mark.parametrize(("remat", "calls"), [("attention", 3), ("full", 4)])
def test_a_step_is_compiled_for_tpus(tpus, decoder_config, remat, calls):
    mesh = mesh_of(tpus, 2, 1, 2)
    program = step_lib.CompiledStep(decoder_config, remat, jnp.bfloat16, optax.adamw(1e-3), mesh)
    batch = jax.tree.map(lambda x: x[None], trees(4, 200))
    program.compile(batch)
    (compiled,) = program._compiled.values()
    assert compiled.as_text().count(TPU_CALL) == calls

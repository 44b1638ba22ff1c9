"""Every family of models through all of jft: trees, meshes, generation, GGUF files, exports."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import plain_row
import pytest
from gguf_writer import write
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decoder_golden import GOLDEN
from test_generation import NEW_TOKENS, one_by_one
from test_prefix_tree import forests, loss_and_grad, packed, sequences_of
from test_step import assert_same, examples, rows_of, run

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.families import read as families
from jft.checkpoints.families.table import FAMILIES
from jft.data import eval_batches, eval_grid, packing, prefix_tree
from jft.data.packed import in_order
from jft.evaluation import compiled, generation
from jft.model import decode, decoder
from jft.model import mesh as mesh_lib

# A golden checkpoint of each family; where it has a window, that is shorter than the sequences.
VARIANTS = {
    "llama": "bias",
    "mistral": "mistral_window",
    "gemma3_text": "gemma3",
    **{name: name for name in ("qwen2", "qwen3", "gemma", "gemma2", "smollm3")},
    **{name: name for name in ("olmo2", "olmo3", "phi3", "granite")},
}
every_family = pytest.mark.parametrize("name", VARIANTS)
# What a GGUF file of a family can say: the rest is as llama.cpp has it.
SAID = {
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {
        **{"query_pre_attn_scalar": 8, "rope_parameters": None, "layer_types": None},
        **{"rope_theta": 5000.0, "num_hidden_layers": 7, "sliding_window_pattern": None},
    },
    "smollm3": {
        **{"num_hidden_layers": 5, "no_rope_layers": None, "no_rope_layer_interval": 4},
        "layer_types": None,
    },
    "olmo3": {"rope_parameters": None, "rope_theta": 300.0},
    "phi3": {
        **{"rope_parameters": None, "rope_theta": 300.0, "head_dim": None},
        **{"hidden_size": 32, "partial_rotary_factor": 0.5},
    },
    "qwen2": {"use_sliding_window": False, "layer_types": None, "sliding_window": None},
}


def description_of(name, **changes):
    return json.loads((GOLDEN / VARIANTS[name] / "config.json").read_text()) | changes


def random_model(description):
    """A decoder, and parameters of which none is as it was first drawn: norms and biases, too."""
    config = families.decoder_config(description, Path())
    drawn = decoder.init(config, jax.random.key(0, impl="rbg"))
    leaves, tree = jax.tree.flatten(drawn)
    rng = np.random.default_rng(1)
    noise = [0.1 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return config, tree.unflatten([np.asarray(x) + y for x, y in zip(leaves, noise, strict=True)])


def windows_of(config):
    return [(window, None) for window in config.windows if window]


def test_the_table_is_covered():
    assert VARIANTS.keys() == FAMILIES.keys()
    assert [name for name in VARIANTS if "sliding" in str(description_of(name))] != []


@every_family
@settings(deadline=None, max_examples=5)
@given(forest=forests)
def test_trees_equal_separate_rows(name, forest):
    """Losses and gradients, with windows that are shorter than the sequences."""
    sequences = sequences_of(forest)
    config, params = random_model(description_of(name, vocab_size=64))

    def both(rows):
        batch = prefix_tree.build(rows, 8, 72, 72, 3, 0, window_blocks=windows_of(config))
        return loss_and_grad(config, params, batch)

    loss, grads = both(packed(sequences, 72))
    expected, expected_grads = both([[s] for s in sequences])
    assert loss == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        scale = float(jnp.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * scale + 1e-6)


@settings(deadline=None, max_examples=30)
@given(forest=forests, window=st.integers(1, 9), row_length=st.sampled_from([0, 40, 72, 200]))
def test_planned_rows_equal_separate_rows(forest, window, row_length):
    """With the key blocks that the planner lists for a window."""
    sequences = sequences_of(forest)
    description = description_of("gemma3_text", vocab_size=64, sliding_window=window)
    config, params = random_model(description)
    budget = packing.Budget(1, 4096, row_length, config.packing_rules)
    (rows,), (shape,) = packing.pack_steps([sequences], budget)
    several = [[sequences[i] for i in row] for row in rows]
    sizes = shape.row_length, shape.num_entries, shape.num_key_blocks, shape.num_prefix_blocks
    listed = prefix_tree.build(several, len(rows), *sizes, shape.window_blocks)
    needed = {window} if window < prefix_tree.longest(sequences) else set()
    assert set(listed.window_blocks) == needed
    whole = listed._replace(window_blocks=None, key_blocks_BQW=None, prefix_blocks_BU=None)
    got, want = (decoder.token_logprobs(config, params, batch) for batch in (listed, whole))
    there = np.asarray(listed.loss_weight_BM) > 0
    np.testing.assert_allclose(np.asarray(got)[there], np.asarray(want)[there], atol=2e-5)


def test_a_long_sequence_sees_the_end_of_its_window():
    """The last block of a row is partly padding, which is at position 0."""
    description = description_of("gemma3_text", vocab_size=64, sliding_window=40)
    config, params = random_model(description)
    ids = np.random.default_rng(0).integers(1, 64, 200)
    sequences = [prefix_tree.TokenSequence(ids.astype(np.int32), 1)]
    budget = packing.Budget(1, 4096, packing_rules=config.packing_rules)
    _, (shape,) = packing.pack_steps([sequences], budget)
    assert shape.window_blocks == ((40, 3),)
    sizes = shape.row_length, shape.num_entries, shape.num_key_blocks, shape.num_prefix_blocks
    batch = prefix_tree.build([sequences], 1, *sizes, shape.window_blocks)
    assert batch.window_blocks[40][0, 6].tolist() == [4, 5, 6]
    plain = plain_row.logits(config, params, ids[None].astype(np.int32))
    wanted = jax.nn.log_softmax(plain)[np.arange(199), ids[1:]]
    found = decoder.token_logprobs(config, params, batch)[0, :199]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.parametrize("name", [n for n in VARIANTS if "sliding" in str(description_of(n))])
def test_a_window_as_long_as_the_longest_sequence_costs_nothing(name):
    """The compiled program is that of a model without windows."""
    plain = description_of(name, sliding_window=10**6)
    texts = []
    for description, windows in ((plain, ()), (description_of(name), ())):
        config, params = random_model(description)
        rows = [sequences_of([([1, 2, 3, 4, 5, 6], 1)])]
        batch = prefix_tree.build(rows, 1, 32, 32, 1, 0, window_blocks=windows)
        lowered = jax.jit(decoder.token_logprobs, static_argnums=0).lower(config, params, batch)
        texts.append(lowered.as_text())
    assert texts[0] == texts[1]


@every_family
def test_a_mesh_gives_the_numbers_of_one_device(name):
    config, _ = random_model(description_of(name, vocab_size=64))
    rng = np.random.default_rng(0)
    steps = [examples(rng, 12) for _ in range(2)]

    def batch(rows, micro_rows):
        count = -(-len(rows) // micro_rows)
        windows = windows_of(config)
        flat = prefix_tree.build(rows, count * micro_rows, 24, 32, window_blocks=windows)
        return jax.tree.map(lambda x: x.reshape(count, micro_rows, *x.shape[1:]), flat)

    expected = run(config, [batch([[s] for s in step], 12) for step in steps])
    on_mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    assert_same(run(config, [batch(rows_of(step), 8) for step in steps], **on_mesh), expected)


def test_long_sequences_share_no_row_with_others():
    """Those of LongRoPE have other rotary embeddings, shared prefixes or not."""
    rope = {
        **{"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 20},
        **{"short_factor": [1.0, 2.5], "long_factor": [4.0, 27.0]},
    }
    description = json.loads((GOLDEN / "longrope/config.json").read_text())
    config, params = random_model(
        description | {"rope_parameters": rope, "original_max_position_embeddings": 20}
    )
    assert config.packing_rules.long_after == 20
    ids = np.random.default_rng(0).integers(0, 48, 40).tolist()
    lengths = (19, 20, 21, 22, 40)
    sequences = sequences_of([([*ids[: n - 1], n], n - 2) for n in lengths])
    budget = packing.Budget(1, 4096, packing_rules=config.packing_rules)
    packed_steps = packing.pack_steps([sequences], budget)
    (rows,), (shape,) = packed_steps.rows, packed_steps.shapes
    assert sorted(sorted(len(sequences[i].tokens) > 20 for i in row) for row in rows) == [
        [False, False],
        [True, True, True],
    ]
    found = {}
    for kind in (rows, [[i] for i in range(len(sequences))]):
        several = [[sequences[i] for i in row] for row in kind]
        batch = prefix_tree.build(several, len(kind), max(64, shape.row_length), 16)
        values = np.asarray(decoder.token_logprobs(config, params, batch))
        sums = {}
        for b, row in enumerate(kind):
            for number, i in enumerate(row):
                mine = (batch.loss_sequence_BM[b] == number) & (batch.loss_weight_BM[b] > 0)
                sums[i] = values[b][mine].sum()
        found[len(kind)] = [sums[i] for i in sorted(sums)]
    np.testing.assert_allclose(found[2], found[5], rtol=1e-5)


@every_family
def test_generation_equals_one_prompt_at_a_time(notes_config, name):
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params = random_model(description_of(name, vocab_size=tokenizer.vocab_size))
    mesh = mesh_lib.make_mesh(notes_config.mesh, jax.devices()[:2])
    cell = eval_grid.all_cells(notes_config)[-1]
    shards = mesh_lib.row_shards(mesh)
    plan = eval_batches.pack_cell(cell, tokenizer, notes_config, shards, config.packing_rules)
    assert [window for window, _ in plan.shape.window_blocks] == [w for w in config.windows if w]
    wanted = [one_by_one(config, params, each.sequences[0].tokens) for each in plan.encoded]
    program = compiled.CompiledModel(config, params, mesh, jnp.float32, NEW_TOKENS)
    stops = decode.Stops(np.array([-1], np.int32), np.zeros(config.vocab_size, np.uint8))
    found = in_order(generation.generate_tokens(program, plan, stops))
    assert found == [ids.tolist() for ids in wanted]


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.gguf])
def test_a_gguf_file_holds_the_same_model(name, tmp_path):
    """But for what the file leaves unsaid, which is as llama.cpp has it."""
    said = description_of(name, **SAID.get(name, {}))
    description = {key: value for key, value in said.items() if value is not None}
    config, params = random_model(description)
    found = safetensors_io.load(write(tmp_path / "model.gguf", description, params))
    assert found.config == config
    offset = config.norm_offset  # which the file has added, and so rounded
    for got, want in zip(jax.tree.leaves(found.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 if offset else 0)
    # An export of it is of the same family, and the same again.
    safetensors_io.save(found.description, found.params, str(tmp_path / "out"))
    again = safetensors_io.load(str(tmp_path / "out"))
    assert again.config == config
    assert again.description["architectures"] == [FAMILIES[name].architecture]
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


@pytest.mark.parametrize(
    ("pattern", "base", "layers", "theta"),
    [
        ([True, False, True, True, False, False, True], None, (6, 0, 6, 6, 0, 0, 6), 10000.0),
        (3, 700.0, (6, 6, 0, 6, 6, 0, 6), 700.0),
    ],
)
def test_windows_that_a_gguf_file_tells_of_are_read(tmp_path, pattern, base, layers, theta):
    said = description_of("gemma3_text", **SAID["gemma3_text"])
    description = {key: value for key, value in said.items() if value is not None}
    _, params = random_model(description)

    def extra(writer):
        write_pattern = writer.add_array if isinstance(pattern, list) else writer.add_uint32
        write_pattern("gemma3.attention.sliding_window_pattern", pattern)
        if base:
            writer.add_float32("gemma3.rope.freq_base_swa", base)

    found = safetensors_io.load(write(tmp_path / "model.gguf", description, params, extra=extra))
    assert tuple(kind.window for kind in found.config.layers) == layers
    bases = {kind.rope.theta for kind in found.config.layers if kind.window}
    assert bases == {theta}


def test_a_gguf_file_with_longrope_holds_both_lists(tmp_path):
    """As tensors, beside the factor of sine and cosine, and the length from which one is used."""
    rope = {
        **{"rope_type": "longrope", "short_factor": [1.0, 2.5], "long_factor": [4.0, 27.0]},
        **{"original_max_position_embeddings": 20, "attention_factor": 1.25},
    }
    golden = json.loads((GOLDEN / "longrope/config.json").read_text())
    changes = {"rope_parameters": None, "rope_scaling": rope, "rope_theta": 1e4}
    changes["original_max_position_embeddings"] = 20
    description = {k: v for k, v in (golden | changes).items() if v is not None}
    config, params = random_model(description)

    def edit(arrays):
        for length in ("long", "short"):
            factors = np.array(rope[f"{length}_factor"], np.float32)
            arrays[f"rope_factors_{length}.weight"] = factors

    def extra(writer):
        writer.add_rope_scaling_attn_factors(1.25)
        writer.add_rope_scaling_orig_ctx_len(20)

    file = write(tmp_path / "model.gguf", description, params, edit=edit, extra=extra)
    assert safetensors_io.load(file).config == config


def test_the_text_part_of_a_larger_model_is_read(tmp_path):
    """Its config is one key of the model's, and its tensors stand beside those of images."""
    from safetensors.numpy import load_file, save_file

    golden = GOLDEN / "gemma3"
    inner = json.loads((golden / "config.json").read_text())
    outer = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    (tmp_path / "config.json").write_text(json.dumps(outer | {"text_config": inner}))
    tensors = load_file(golden / "model.safetensors")
    for prefix, removed in (("language_model.", ""), ("model.language_model.", "model.")):
        whole = {prefix + name.removeprefix(removed): x for name, x in tensors.items()}
        whole["vision_tower.x.weight"] = np.ones(3, np.float32)
        save_file(whole, tmp_path / "model.safetensors")
        found = safetensors_io.load(str(tmp_path))
        wanted = safetensors_io.load(str(golden))
        assert found.config == wanted.config
        jax.tree.map(np.testing.assert_array_equal, found.params, wanted.params)

"""Greedy generation: equal to predicting one token after the other, and ended where text ends."""

import json
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import plain_row
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from rouge_score import rouge_scorer

from jft.checkpoints import safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import eval_batches, eval_grid
from jft.data.packed import in_order
from jft.errors import UserError
from jft.evaluation import compiled, generation, loop, texts
from jft.model import decode, decoder, lora, sharding
from jft.model import mesh as mesh_lib

NEW_TOKENS = 12  # as `notes_config` has it
HALF = "\N{REPLACEMENT CHARACTER}"  # what a token of half a character decodes to
COLLECTIVE = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute)[-(]")
PIECES = ["", " ", "a", "\n", "\n\n", "a\n", "\nb", "\n \n", " \n\nc", HALF]


def one_by_one(config, params, ids):
    """The most likely tokens, each from a forward pass over all before it."""
    row = np.zeros((1, 128), np.int32)
    row[0, : len(ids)] = ids
    for at in range(len(ids), len(ids) + NEW_TOKENS):
        row[0, at] = plain_row.logits(config, params, row)[at - 1].argmax()
    return row[0, len(ids) : len(ids) + NEW_TOKENS]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize(
    ("devices", "batch_tokens", "slots"),
    [(8, 1, (1, 1)), (2, 4096, (1, 1)), (1, 300, (1, 2)), (2, 4096, (4, 4)), (8, 4096, (16, 64))],
)
def test_tokens_equal_one_by_one(notes_config, monkeypatch, devices, batch_tokens, slots, ends):
    """However few slots the prompts go through, and whenever they come to their end."""
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params, _ = safetensors_io.load("random:llama-tiny")
    notes_config.eval.batch_tokens = batch_tokens
    monkeypatch.setattr(eval_batches, "FEWEST_SLOTS", slots[0])
    monkeypatch.setattr(eval_batches, "MOST_SLOTS", slots[1])
    mesh = mesh_lib.make_mesh(notes_config.mesh, jax.devices()[:devices])
    cell = eval_grid.all_cells(notes_config)[-1]
    plan = eval_batches.pack_cell(cell, tokenizer, notes_config, mesh_lib.row_shards(mesh))
    wanted = [one_by_one(config, params, each.sequences[0].tokens) for each in plan.encoded]
    eos = np.array(sorted({int(ids[i + 1]) for i, ids in enumerate(wanted[:4])} if ends else [-1]))
    program = compiled.CompiledModel(config, params, mesh, jnp.float32, NEW_TOKENS)
    stops = decode.Stops(eos.astype(np.int32), np.zeros(config.vocab_size, np.uint8))
    found = in_order(generation.generate_tokens(program, plan, stops))
    ended = [np.flatnonzero(np.isin(ids, eos)) for ids in wanted]
    lengths = [int(at[0]) + 1 if len(at) else NEW_TOKENS for at in ended]
    assert (len(set(lengths)) > 2) == ends
    assert found == [ids[:n].tolist() for ids, n in zip(wanted, lengths, strict=True)]


def test_a_device_holds_the_trees_of_one_batch_at_a_time(notes_config, monkeypatch):
    notes_config.eval.batch_tokens = 1
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params, _ = safetensors_io.load("random:llama-tiny")
    mesh = mesh_lib.make_mesh(notes_config.mesh, jax.devices()[:1])
    plan = eval_batches.pack_cell(eval_grid.all_cells(notes_config)[-1], tokenizer, notes_config)
    program = compiled.CompiledModel(config, params, mesh, jnp.float32, NEW_TOKENS)
    run, seen = program.prefill, []

    def prefill(batch):
        assert all(keys() is None for keys in seen)
        prefilled = run(batch)
        seen.append(weakref.ref(prefilled.keys_LBTKH))
        return prefilled

    stops = generation.stops_of(tokenizer, config.vocab_size)
    monkeypatch.setattr(program, "prefill", prefill)
    list(generation.generate_tokens(program, plan, stops))
    assert len(seen) > 1


def test_no_keys_and_values_go_from_one_device_to_another(notes_config):
    """When prompts are inserted, and when slots are compacted."""
    config, _, _ = safetensors_io.load("random:llama-tiny")
    notes_config.mesh.data, notes_config.mesh.fsdp, notes_config.mesh.tensor = 2, 2, 2
    mesh, rows, length = mesh_lib.make_mesh(notes_config.mesh), 8, 64
    programs = compiled.programs(config, mesh, jnp.dtype("float32"), NEW_TOKENS)
    shape = config.num_layers, rows, length, config.num_kv_heads, config.head_dim
    layout = NamedSharding(mesh, sharding.spec("LBTKH", shape, mesh.shape, sharding.ACTIVATIONS))
    keys = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=layout)
    entries = (jax.ShapeDtypeStruct((rows, 4), kind) for kind in (jnp.int32, jnp.float32))
    prefilled = decode.PrefilledBatch(keys, keys, *entries)
    sizes = eval_batches.SlotSizes(
        num_slots=64, shards=4, slot_tokens=96, prompt_tokens=64, prefix_tokens=0, prefix_size=32
    )
    stops = decode.Stops(np.zeros(1, np.int32), np.zeros(config.vocab_size, np.uint8))
    with jax.set_mesh(mesh):
        state = jax.eval_shape(programs["init_slots"], sizes.num_slots, sizes.slot_tokens)
        prompts = generation.no_prompts(sizes)
        for lowered in (
            programs["insert"].lower(state, prefilled, prompts, stops),
            programs["compact"].lower(state, prompts.slot_I),
        ):
            moved = [x for x in lowered.compile().as_text().splitlines() if COLLECTIVE.search(x)]
            assert not any("f32[" in line for line in moved)


def test_slots_hold_what_prompts_do_not_share(notes_config):
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    for cell in eval_grid.all_cells(notes_config):
        plan = eval_batches.pack_cell(cell, tokenizer, notes_config)
        prompts = [each.sequences[0].tokens.tolist() for each in plan.encoded]
        (prefix,) = {tuple(prompt[: plan.slots.prefix_tokens]) for prompt in prompts}
        assert len({prompt[len(prefix)] for prompt in prompts}) > 1
        assert len(prefix) <= plan.slots.prefix_size
        assert max(map(len, prompts)) - len(prefix) <= plan.slots.prompt_tokens
        assert plan.slots.prompt_tokens + NEW_TOKENS <= plan.slots.slot_tokens


@pytest.mark.parametrize(("cache_tokens", "number"), [(1, 16), (40 * 96, 32), (10**6, 64)])
def test_slots_are_as_many_as_there_is_room_for(notes_config, suite_root, cache_tokens, number):
    rows = [{"input": f"{i} and so on", "output": "all"} for i in range(100)]
    (suite_root / "summary" / "notes_test_7.json").write_text(json.dumps(rows))
    notes_config.eval.cache_tokens, notes_config.eval.max_new_tokens = cache_tokens, 80
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    for shards in (1, 2):
        plan = eval_batches.pack_cell(
            eval_grid.all_cells(notes_config)[-1], tokenizer, notes_config, shards
        )
        assert plan.slots.slot_tokens == 96
        assert plan.slots.num_slots == number * shards


@pytest.mark.parametrize(("batch_tokens", "row_length"), [(1, 0), (300, 0), (4096, 0), (1, 96)])
def test_rows_to_generate_from_are_no_longer_than_asked(notes_config, batch_tokens, row_length):
    notes_config.eval.batch_tokens, notes_config.data.row_length = batch_tokens, row_length
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    cell = eval_grid.all_cells(notes_config)[-1]
    plan = eval_batches.pack_cell(cell, tokenizer, notes_config)
    longest = max(len(each.sequences[0].tokens) for each in plan.encoded)
    assert (
        longest
        <= plan.shape.row_length
        <= max(batch_tokens, row_length or eval_batches.ROW_MULTIPLE)
    )


def no_tokens(number, max_new_tokens):
    no = jnp.zeros(number, bool)
    tokens_RO = jnp.full((number, max_new_tokens), -1, jnp.int32)
    return decode.Generated(tokens_RO, jnp.zeros(number, jnp.int32), no, no, no)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=9))
def test_a_generation_ends_at_the_first_blank_line_after_text(pieces):
    class Tokenizer:
        eos_id = 99

        def token_texts(self):
            return PIECES

    stops = generation.stops_of(Tokenizer(), len(PIECES))
    state = no_tokens(1, 9)
    for piece in pieces:
        state = decode.append_tokens(state, jnp.array([piece], jnp.int32), stops)
    texts = ["".join(PIECES[p] for p in pieces[: n + 1]) for n in range(len(pieces))]
    length = int((state.tokens_RO >= 0).sum())
    assert generation.first_paragraph(texts[length - 1]) == generation.first_paragraph(texts[-1])
    if HALF not in texts[-1]:  # which may pass for white space, so that a blank line is missed
        ended = [n + 1 for n, text in enumerate(texts) if "\n\n" in text.lstrip()]
        assert length == (ended[0] if ended else len(pieces))


def test_a_model_that_gives_no_numbers_is_an_error(notes_config, tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "programs", compiled.programs.__wrapped__)  # keep none of these
    monkeypatch.setattr(
        decoder, "logits", lambda config, params, x, few=False: x[..., :9] * jnp.nan
    )
    with pytest.raises(UserError, match="scores that are no numbers"):
        loop.evaluate(notes_config, str(tmp_path / "eval"))


def test_the_next_token_is_the_first_of_the_largest_logits():
    logits_V = {
        (0.0, 2.0, 1.0, 2.0): 1,
        (-jnp.inf, -1.0, -1.0, -2.0): 1,
        (0.0, jnp.nan, 1.0, 2.0): decode.NOT_FINITE,
        (0.0, 1.0, jnp.inf, 2.0): decode.NOT_FINITE,
        (-jnp.inf,) * 4: decode.NOT_FINITE,
    }
    found_RM = jax.jit(decode._greedy_token)(jnp.array(list(logits_V))[:, None])
    assert found_RM[:, 0].tolist() == list(logits_V.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_of_few_are_those_of_many(decoder_config, dtype):
    params = lora.cast(decoder.init(decoder_config, jax.random.key(0)), jnp.dtype(dtype))
    hidden_R1D = jax.random.normal(jax.random.key(1), (5, 1, decoder_config.embed_dim), dtype)
    few, many = (decoder.logits(decoder_config, params, hidden_R1D, few) for few in (True, False))
    assert few.dtype == many.dtype == jnp.float32
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-5)


def test_eos_ends_a_generation():
    stops = decode.Stops(np.array([2, 3], np.int32), np.zeros(5, np.uint8))
    state = no_tokens(2, 4)
    for tokens in ([1, 3], [2, 1], [1, 1]):
        state = decode.append_tokens(state, jnp.array(tokens, jnp.int32), stops)
    assert state.tokens_RO.tolist() == [[1, 2, -1, -1], [3, -1, -1, -1]]
    assert state.done_R.tolist() == [True, True]
    assert state.count_R.tolist() == [2, 1]


def test_a_text_ends_where_there_is_room_for_no_more():
    stops = decode.Stops(np.array([9], np.int32), np.zeros(10, np.uint8))
    state = no_tokens(2, 3)
    for tokens in ([1, 9], [2, 5], [3, 6], [4, 7]):
        assert state.done_R.tolist() == [int(state.count_R[0]) == 3, int(state.count_R[0]) > 0]
        state = decode.append_tokens(state, jnp.array(tokens, jnp.int32), stops)
    assert state.tokens_RO.tolist() == [[1, 2, 3], [9, -1, -1]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_generated_rows_have_the_libraries_own_numbers(dtype, notes_config, tmp_path):
    notes_config.model.dtype = dtype
    loop.evaluate(notes_config, str(tmp_path / "eval"))
    rows, cells = (
        [
            json.loads(line)
            for line in (tmp_path / "eval" / f"{name}.jsonl").read_bytes().splitlines()
        ]
        for name in ("rows", "cells")
    )
    assert [(c["shots"], c["prompt"], c["n"]) for c in cells] == [
        (0, 0, 12), (0, 1, 12), (2, 0, 12), (2, 1, 12),
    ]  # fmt: skip
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    for cell in cells:
        mine = [r for r in rows if (r["shots"], r["prompt"]) == (cell["shots"], cell["prompt"])]
        scores = [scorer.score(r["output"], r["generation"])["rougeL"].fmeasure for r in mine]
        assert [r["rougeL"] for r in mine] == scores
        assert (cell["metric"], cell["value"]) == ("rougeL", pytest.approx(np.mean(scores)))
        texts, golds = [r["generation"] for r in mine], [r["output"] for r in mine]
        bleu, chrf = (
            sacrebleu.corpus_bleu(texts, [golds]).score,
            [
                sacrebleu.sentence_chrf(*pair).score
                for pair in zip(texts, ([gold] for gold in golds), strict=True)
            ],
        )
        found = {name: each["value"] for name, each in cell["metrics"].items()}
        assert found["bleu"] == pytest.approx(bleu / 100)
        assert found["chrf"] == pytest.approx(np.mean(chrf) / 100)
        assert found["rougeL"] == cell["value"]
        assert found["empty"] == np.mean([not text.strip() for text in texts])


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Завод открыл новый цех.", "Завод открыл новый цех.", 1.0),
        ("१९४७", "१९४७", 1.0),
        ("２０２４ ok", "２０２４ ok", 1.0),
        ("é", "é", 1.0),
        ("ÅÄÖ", "ÅÄÖ", 1.0),
        ("👍", "👍", 1.0),
        ("👎", "👍", 0.0),
        ("!!!", "!!!", 1.0),
        ("½", "½", 1.0),
        ("завод открыл цех", "Завод открыл новый цех.", 6 / 7),
        ("工厂新建了厂房", "工厂新建了厂房", 1.0),
        ("工厂建厂", "工厂新建了厂房", 8 / 11),
        ("Το εργοστάσιο", "Το εργοστάσιο άνοιξε", 4 / 5),
        ("कारखाना खुला", "कारखाना खुला।", 1.0),
        ("nothing of it", "Завод открыл новый цех.", 0.0),
        ("", "Завод", 0.0),
    ],
)
def test_rouge_l_counts_words_of_any_alphabet(prediction, reference, score):
    assert texts.rouge_l(prediction, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("The café opened", "The cafés opened, it's 5%"),
        ("alpha decay", "α decay of an atom"),
        ("naïve", "naïve"),
    ],
)
def test_rouge_l_of_latin_text_is_that_of_publications(prediction, reference):
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    assert (
        texts.rouge_l(prediction, reference)
        == scorer.score(reference, prediction)["rougeL"].fmeasure
    )


@pytest.mark.parametrize(("batch_tokens", "slots"), [(4096, 64), (4096, 2), (1, 2)])
def test_references_are_read_on_the_trees_of_their_prompts(
    notes_config, monkeypatch, batch_tokens, slots
):
    """One more branch, which changes no generation: its log-probability is that of a plain row.

    It is known when its item's generation ends, however many items are still to come.
    """
    notes_config.eval.batch_tokens = batch_tokens
    monkeypatch.setattr(eval_batches, "FEWEST_SLOTS", 2)
    monkeypatch.setattr(eval_batches, "MOST_SLOTS", slots)
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    config, params, _ = safetensors_io.load("random:llama-tiny")
    cell = eval_grid.all_cells(notes_config)[-1]
    plan = eval_batches.pack_cell(cell, tokenizer, notes_config)
    mesh = mesh_lib.make_mesh(notes_config.mesh, jax.devices()[:2])
    plan = eval_batches.pack_cell(cell, tokenizer, notes_config, mesh_lib.row_shards(mesh))
    program = compiled.CompiledModel(config, params, mesh, jnp.float32, NEW_TOKENS)
    found = in_order(generation.generate(program, plan, tokenizer))
    shared = sum(map(len, plan.rows))
    assert shared == 2 * len(plan.encoded)
    for each, encoded in zip(found, plan.encoded, strict=True):
        tokens, start = encoded.reference
        padded = np.zeros((1, 512), np.int32)
        padded[0, : len(tokens)] = tokens
        logits = plain_row.logits(config, params, padded)
        logprobs = np.asarray(jax.nn.log_softmax(logits), np.float64)
        at = np.arange(start, len(tokens))
        assert each.reference == pytest.approx(logprobs[at - 1, tokens[at]].sum(), abs=2e-3)


def test_a_reference_is_no_longer_than_a_generation(notes_config):
    """Where a row has no room for one, there are none, and nothing depends on the rows."""
    tokenizer = tokenizer_lib.load("random:llama-tiny")
    cell = eval_grid.all_cells(notes_config)[-1]
    notes_config.eval.max_new_tokens = 2
    encoded = eval_batches.pack_cell(cell, tokenizer, notes_config).encoded
    for each in encoded:
        tokens, start = each.reference
        assert len(tokens) - start <= 2
        assert 0 < each.num_bytes < 40
    notes_config.data.row_length = max(len(e.sequences[0].tokens) for e in encoded)
    again = eval_batches.pack_cell(cell, tokenizer, notes_config).encoded
    assert [each.reference for each in again] == [None] * len(encoded)

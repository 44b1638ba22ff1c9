"""Plans: slices, what a compiled program sends, what a step needs, and what would fit."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jft import config as config_lib
from jft.batch import Shape
from jft.errors import UserError
from jft.evaluation import generation
from jft.model import decoder as decoder_lib
from jft.model import mesh as mesh_lib
from jft.model.architecture import DecoderConfig, LayerKind, Rope
from jft.planning import chips, evaluation_memory, hlo, planner, search
from jft.planning.estimate import Memory, TrainingEstimate, estimate_training

REPO = Path(__file__).parent.parent
needs_libtpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"),
    reason="libtpu, which compiles for TPUs, is not installed: it is in the extra `plan`",
)


@pytest.mark.parametrize(
    ("name", "kind", "number", "topology"),
    [
        ("v5e:4x4", "v5e", 16, "4x4"),
        ("v5litepod-16", "v5e", 16, "4x4"),
        ("v5e-64", "v5e", 64, "8x8"),
        ("v5p-16", "v5p", 8, "2x2x2"),
        ("v4-32", "v4", 16, "2x2x4"),
        ("v6e:2x4", "v6e", 8, "2x4"),
        ("h100:8", "h100", 8, ""),
    ],
)
def test_slices_are_called_by_topology_or_by_accelerator_type(name, kind, number, topology):
    found = chips.parse_slice(name)
    assert (found.kind, found.number, found.topology) == (kind, number, topology)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "is written v5e:4x4"),
        ("", "is written v5e:4x4"),
        ("v5e-17", "there are v5e-1, v5e-4, v5e-8, v5e-16"),
        ("v5p:4x4", "is written v5p:2x2x4"),
        ("h100:2x2", "how many"),
        ("h100:0", "how many"),
        ("h100:1000000", "are the most that can be planned for"),
        ("v5e:4x", "is written v5e:4x4"),
    ],
)
def test_a_slice_that_is_not_there_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        chips.parse_slice(name)


@needs_libtpu
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "v5e:1x1"])
def test_every_kind_of_tpu_can_be_compiled_for(name):
    found = chips.parse_slice(name)
    assert len(found.devices()) == found.number


def collectives(function, of, to, *shapes):
    """What the program of a function on eight devices sends."""
    mesh = mesh_lib.make_mesh(config_lib.Mesh(1, 8, 1))
    inputs, output = (
        NamedSharding(mesh, PartitionSpec(*of)),
        NamedSharding(mesh, PartitionSpec(*to)),
    )
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    program = jax.jit(function, in_shardings=(inputs,) * len(shapes), out_shardings=output)
    return hlo.collectives(program.lower(*like).compile().as_text())


def test_collectives_are_counted_in_bytes():
    gathered = collectives(lambda x: x * 2, ("fsdp",), (), (64, 32))
    assert gathered == {"all-gather": hlo.Traffic(1, 64 * 32 * 4 * 7 / 8)}
    summed = collectives(lambda x: x.sum(axis=0), ("fsdp",), (), (64, 32))
    assert summed == {"all-reduce": hlo.Traffic(1, 2 * 32 * 4 * 7 / 8)}
    assert collectives(lambda x: x * 2, ("fsdp",), ("fsdp",), (64, 32)) == {}


def test_a_collective_in_a_loop_counts_as_often_as_it_turns():
    def layers(weights, x):
        def layer(x, weight):
            weight = jax.lax.with_sharding_constraint(weight, PartitionSpec())
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(layer, x, weights)[0]

    mesh = mesh_lib.make_mesh(config_lib.Mesh(1, 8, 1))
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    like = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((5, 64, 64), (8, 64))]
    with jax.set_mesh(mesh):
        program = jax.jit(layers, in_shardings=(split, rows), out_shardings=rows)
        text = program.lower(*like).compile().as_text()
    assert hlo.collectives(text) == {"all-gather": hlo.Traffic(5, 5 * 64 * 64 * 4 * 7 / 8)}


LOOP = """
%cond (p: (u32[], f32[8])) -> pred[] {
  %limit = u32[]{:T(128)} constant(8)
  %p = (u32[], f32[8]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (p: (u32[], f32[8])) -> (u32[], f32[8]) {
  %two = u32[] constant(2)
  %p = (u32[], f32[8]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[8] get-tuple-element(%p), index=1
  %next = u32[] add(%i, %two)
  %y = f32[8] collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}
  ROOT %t = (u32[], f32[8]) tuple(%next, %y)
}

ENTRY %main (x: (u32[], f32[8])) -> (u32[], f32[8]) {
  %x = (u32[], f32[8]) parameter(0)
  ROOT %w = (u32[], f32[8]) while(%x), condition=%cond, body=%body
}
"""


def test_a_loop_may_take_two_at_a_time():
    assert hlo.collectives(LOOP) == {"collective-permute": hlo.Traffic(4, 4 * 32.0)}


@pytest.mark.parametrize(
    ("groups", "number"),
    [
        ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
    ],
)
def test_groups_are_read_in_all_their_notations(groups, number):
    line = f"  %y = bf16[30] all-gather(%x), channel_id=1, {groups}, dimensions={{0}}"
    text = "ENTRY %main (x: bf16[10]) -> bf16[30] {\n" + line + "\n}"
    assert hlo.collectives(text) == {"all-gather": hlo.Traffic(1, 60 * (number - 1) / number)}


def estimated(config, name="cpu:8", **changes):
    on = chips.parse_slice(name)
    decoder = replace(planner.decoder_config(config.model.path), **changes)
    tokenizer = planner.tokenizer_of(config.model.path, decoder.vocab_size)
    return estimate_training(config, decoder, tokenizer, on, on.devices())


def test_the_parts_of_a_devices_memory(config):
    config.mesh.data, config.mesh.fsdp = 1, 8
    found, whole = estimated(config), sum(x.size for x in jax.tree.leaves(tiny()))
    assert found.fits
    assert found.memory.parameters == whole * 4 / 8
    assert found.memory.gradients == found.memory.parameters
    assert found.memory.optimizer == 2 * found.memory.parameters + 8  # and two counters
    assert found.steps == 3
    assert 0 < found.filled <= 1
    assert found.step_time >= found.compute > 0
    assert set(found.traffic) >= {"all-gather"}
    config.mesh.data, config.mesh.fsdp = 8, 1
    copies = estimated(config)
    assert copies.memory.parameters == whole * 4
    assert set(copies.traffic) == {"all-reduce"}


@pytest.mark.parametrize(("base", "bytes_each"), [("bfloat16", 2), ("int8", 1)])
def test_adapters_leave_the_base_as_it_is_held(config, base, bytes_each):
    full = estimated(config)
    config.lora.rank, config.lora.base = 2, base
    found = estimated(config)
    kernels = sum(x.size for x in jax.tree.leaves(tiny()["layers"]) if x.ndim > 2)
    rest = sum(x.size for x in jax.tree.leaves(tiny())) - kernels
    scales = found.memory.parameters - found.memory.gradients - kernels * bytes_each - rest * 2
    outputs = 2 * (64 + 32 + 32 + 64 + 128 + 128 + 64)
    assert scales == (2 * outputs if base == "int8" else 0)
    assert found.memory.gradients < full.memory.gradients / 10
    assert found.memory.optimizer == 2 * found.memory.gradients + 8
    assert 0.6 < found.flops / full.flops < 0.8


def tiny():
    from jft.checkpoints import safetensors_io

    return decoder_lib.shapes(safetensors_io.load("random:llama-tiny").config)


def test_rematerialization_costs_time_and_spares_memory(config):
    config.data.root, config.data.train = "mini", "gadgets_train_480"
    found = {}
    for remat in ("none", "attention", "full"):
        config.train.remat = remat
        found[remat] = estimated(config, num_layers=16)  # so that what is saved counts
    temporary = [found[remat].memory.temporary for remat in ("none", "attention", "full")]
    assert temporary == sorted(temporary, reverse=True)
    assert found["full"].compute == pytest.approx(found["none"].compute * 4 / 3)


def test_a_batch_of_an_evaluation_is_planned_too(config):
    config.mesh.data, config.mesh.fsdp, config.eval.shots = 1, 8, (0, 2)
    on, decoder = chips.parse_slice("cpu:8"), planner.decoder_config(config.model.path)
    tokenizer = planner.tokenizer_of(config.model.path, decoder.vocab_size)
    config.data.root, config.eval.datasets = "mini", ("sentiment:gadgets", "summary:town")
    found = evaluation_memory.evaluation_memory(config, decoder, tokenizer, on, on.devices())
    scored, generated = found
    assert (scored.dataset, generated.dataset) == ("gadgets", "town")
    for each in found:
        assert each.fits
        assert each.shots in (0, 2)
        assert each.weights == sum(x.size for x in jax.tree.leaves(tiny())) * 2 / 8
        assert each.peak == each.weights + each.cache + each.working
        assert each.working > 0
    assert not scored.cache
    numbers = 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim
    trees = generated.shape.rows // 8 * generated.shape.row_length * numbers * 2
    assert generated.peak > generated.weights + generated.cache + trees
    config.eval.max_new_tokens += 512
    _, longer = evaluation_memory.evaluation_memory(config, decoder, tokenizer, on, on.devices())
    slots, devices = 16, 8  # of a device, for its share of 120 prompts; all hold all tokens
    more = 512 * slots * (numbers * 2 + devices * 4)
    assert longer.cache - generated.cache == pytest.approx(more, rel=0.01)


def generated(config, max_new_tokens):
    """Of summaries so long, on four chips."""
    config.mesh.data, config.mesh.fsdp, config.data.root = 1, 4, "mini"
    config.eval.datasets, config.eval.max_new_tokens = ("summary:town",), max_new_tokens
    on, decoder = chips.parse_slice("v5e:2x2"), planner.decoder_config(config.model.path)
    tokenizer = planner.tokenizer_of(config.model.path, decoder.vocab_size)
    (found,) = evaluation_memory.evaluation_memory(config, decoder, tokenizer, on, on.devices())
    return found, on.chip


@needs_libtpu
def test_generating_on_tpus_copies_no_cache(config):
    found, _ = generated(config, 50_000)
    part = found.cache / generation.SLOT_GROUPS  # is kept when most slots have come to their end
    rest = found.peak - found.weights - found.cache - part
    assert rest < found.cache / 3


@needs_libtpu
def test_generations_that_a_chip_has_no_room_for_are_said_not_to_fit(config):
    found, chip = generated(config, 20_000_000)
    assert not found.fits
    assert found.peak > chip.memory


@needs_libtpu
def test_a_program_needs_as_much_where_it_is_refused_as_where_it_is_not():
    n = 2**16
    size, peaks = n * n * 2, []
    for kind in ("v5p:2x2x1", "v5e:2x2"):
        device = chips.parse_slice(kind).devices()[0]
        place = jax.sharding.SingleDeviceSharding(device)
        x = jax.ShapeDtypeStruct((n, n), jnp.bfloat16, sharding=place)
        holds = evaluation_memory._Device(3.0 * size)  # of which the program reads one part
        program = jax.jit(lambda x: (x @ x) @ (x.T @ x))
        if kind.startswith("v5p"):
            holds.run(program, x)
        else:
            with pytest.raises(evaluation_memory._RefusedError):
                holds.run(program, x)
        peaks.append(holds.peak)
    assert peaks[0] == pytest.approx(
        6 * size, rel=0.01
    )  # what it held, two products, their product
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)


def test_remedies_are_about_what_does_not_fit(config):
    on = chips.parse_slice("v5e:2x2")
    memory = Memory(
        parameters=5 * on.chip.memory, optimizer=1.0, gradients=1.0, batch=1.0, temporary=0
    )
    shape = Shape(1, 1, 2048, 8, 1, 1)
    found = TrainingEstimate(
        {"data": 4, "fsdp": 1, "tensor": 1}, shape, memory, False, 1.0, {}, 1.0, 1.0, 1.0, 1, 1, 1.0
    )
    said = planner._remedies(config, found, on)
    assert "change one or more: --config.mesh.data=1 --config.mesh.fsdp=4; --config.lora" in said
    small = replace(found, memory=replace(memory, parameters=1.0, temporary=on.chip.memory))
    assert "remat=full; --config.train.micro_batch_tokens=2048" in planner._remedies(
        config, small, on
    )


def test_a_folder_with_a_config_alone_is_enough(config, tmp_path):
    from jft.checkpoints import safetensors_io

    (tmp_path / "config.json").write_text(safetensors_io.TINY.read_text())
    config.model.path = str(tmp_path)
    assert estimated(config).fits
    config.model.path = "shape:llama-9-7b"
    with pytest.raises(
        UserError, match=r"mean shape:llama-2-7b\? there are gemma-2-2b, gemma-3-1b, "
    ):
        planner.decoder_config(config.model.path)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gemma-2-2b", 2614341888),
        ("gemma-3-1b", 999885952),
        ("granite-3.1-8b", 8170848256),
        ("mistral-7b", 7241732096),
        ("olmo-2-7b", 7298617344),
        ("phi-3-mini", 3821079552),
        ("qwen2.5-7b", 7615616512),
        ("qwen3-8b", 8190735360),
        ("smollm3-3b", 3075098624),
    ],
)
def test_shapes_of_other_families_have_the_parameters_that_are_published(name, parameters):
    found = planner.decoder_config(f"shape:{name}")
    assert sum(x.size for x in jax.tree.leaves(decoder_lib.shapes(found))) == parameters


@pytest.mark.parametrize(
    ("name", "sizes", "rope_theta", "tied", "parameters"),
    [
        ("llama-2-7b", (32000, 4096, 32, 32, 32, 128, 11008, 4096), 10000, False, 6738415616),
        ("llama-2-13b", (32000, 5120, 40, 40, 40, 128, 13824, 4096), 10000, False, 13015864320),
        ("llama-3.2-1b", (128256, 2048, 16, 32, 8, 64, 8192, 131072), 500000, True, 1235814400),
        ("llama-3.1-8b", (128256, 4096, 32, 32, 8, 128, 14336, 131072), 500000, False, 8030261248),
        ("smollm2-135m", (49152, 576, 30, 9, 3, 64, 1536, 8192), 100000, True, 134515008),
    ],
)
def test_shapes_are_those_of_the_published_models(name, sizes, rope_theta, tied, parameters):
    vocab_size, embed_dim, num_layers, num_heads, num_kv_heads, head_dim, mlp_dim, longest = sizes
    found = planner.decoder_config(f"shape:{name}")
    assert found == DecoderConfig(
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        mlp_dim=mlp_dim,
        layers=(LayerKind(rope=Rope(rope_theta)),),
        tied_head=tied,
        max_positions=longest,
    )
    assert sum(x.size for x in jax.tree.leaves(decoder_lib.shapes(found))) == parameters


def test_words_stand_for_tokens():
    """Texts that begin alike have ids that begin alike."""
    one, other = planner.Words(32000).encode(["The red house.", "The red horse runs far."])
    assert one[:3].tolist() == other[:3].tolist()
    assert len(one) < len(other)


def test_what_does_not_fit_is_said_with_what_to_change(config, capsys, monkeypatch):
    small = chips.Chip(1e12, 1 << 20, 1e9, 1e9)
    monkeypatch.setitem(chips.CHIPS, "cpu", small)
    planner.plan_on_slice(config, "cpu:8", searching=False)
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert "--config.train.remat=full" in text
    assert "--config.mesh.data=1 --config.mesh.fsdp=8" in text


def test_search_finds_what_fits_and_the_fastest_first(config, capsys, monkeypatch):
    config.plan.price = 2.0
    decoder = planner.decoder_config(config.model.path)
    on, tried = chips.parse_slice("cpu:8"), []

    def compiled(changed):
        tried.append(changed)
        return estimated(changed)

    changed, found = search.best(config, decoder, on, 256, compiled)
    assert found.fits
    assert len(tried) == 1
    planner.plan_on_slice(config, "cpu:8", searching=True)
    text = capsys.readouterr().out
    assert f"--config.train.remat={changed.train.remat}" in text
    assert "dollars" in text
    monkeypatch.setitem(chips.CHIPS, "cpu", chips.Chip(1e12, 1000.0, 1e9, 1e9))
    assert search.best(config, decoder, chips.parse_slice("cpu:8"), 256, estimated) is None


@needs_libtpu
def test_the_program_plans_for_a_tpu_slice(config):
    arguments = [
        *("--config=configs/finetune.py", "--config.model.path=random:llama-tiny"),
        *("--config.data.train=gadgets_train_480", "--config.mesh.fsdp=2"),
        *("--config.mesh.tensor=2", "--topology=v5e:2x4"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "jft.plan", *arguments], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for part in ("data 2 x fsdp 2 x tensor 2", "there is", "fits", "all-gather", "tokens/s"):
        assert part in done.stdout

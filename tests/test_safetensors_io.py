import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jft.checkpoints import safetensors_io
from jft.checkpoints.families import read as families
from jft.checkpoints.families import rope
from jft.errors import UserError
from jft.model import decoder

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = sorted(file.parent.name for file in GOLDEN.glob("*/config.json"))


@pytest.fixture
def folder(tmp_path):
    """A copy of a good checkpoint, to be damaged."""
    return Path(shutil.copytree(GOLDEN / "tied", tmp_path / "model"))


@pytest.fixture
def sharded(tmp_path):
    return Path(shutil.copytree(GOLDEN / "untied", tmp_path / "model"))


def _tensors(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def _edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _edit_weights(folder, edit):
    arrays = load_file(folder / "model.safetensors")
    edit(arrays)
    save_file(arrays, folder / "model.safetensors")


@pytest.mark.parametrize("name", VARIANTS)
def test_folder_to_params_to_folder_is_bit_exact(name, tmp_path):
    _, params, description = safetensors_io.load(str(GOLDEN / name))
    original = _tensors(GOLDEN / name)
    dtype = next(iter(original.values())).dtype.name
    safetensors_io.save(description, params, str(tmp_path), dtype)
    written = _tensors(tmp_path)
    assert written.keys() == original.keys()
    for key, array in original.items():
        assert written[key].dtype == array.dtype
        np.testing.assert_array_equal(written[key], array, err_msg=key)
    again = safetensors_io.load(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


@pytest.mark.parametrize("name", VARIANTS)
def test_config_survives_the_round_trip(name, tmp_path):
    config, params, description = safetensors_io.load(str(GOLDEN / name))
    safetensors_io.save(description, params, str(tmp_path))
    assert safetensors_io.load(str(tmp_path)).config == config


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_reads_the_written_config_as_its_own(name, tmp_path):
    from transformers import AutoConfig

    _, params, description = safetensors_io.load(str(GOLDEN / name))
    safetensors_io.save(description, params, str(tmp_path), special_ids={"eos_token_id": 7})
    theirs, ours = AutoConfig.from_pretrained(GOLDEN / name), AutoConfig.from_pretrained(tmp_path)
    assert ours.eos_token_id == 7
    changed = {"eos_token_id", "dtype", "_name_or_path"}
    assert {key: value for key, value in ours.to_dict().items() if key not in changed} == {
        key: value for key, value in theirs.to_dict().items() if key not in changed
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_every_float_type_becomes_the_same_float32(dtype, folder):
    """Values that bfloat16 holds exactly are the same in all four."""
    exact = {k: v.astype(ml_dtypes.bfloat16) for k, v in _tensors(folder).items()}
    wanted = exact["model.embed_tokens.weight"].astype(np.float32)
    save_file({k: v.astype(dtype) for k, v in exact.items()}, folder / "model.safetensors")
    params = safetensors_io.load(str(folder)).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    # Subnormal half-precision values are rounded; none of the weights is that small but in float16.
    np.testing.assert_allclose(params["embed"], wanted, atol=2**-20 if dtype == np.float16 else 0)


def test_shards_give_what_one_file_gives(sharded, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(sharded / "config.json", whole)
    save_file(_tensors(sharded), whole / "model.safetensors")
    assert len(list(sharded.glob("*.safetensors"))) == 3
    one, many = (safetensors_io.load(str(path)).params for path in (whole, sharded))
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_params_have_the_decoders_shapes():
    config, params, _ = safetensors_io.load(str(GOLDEN / "bias"))
    wanted = jax.tree.map(lambda leaf: leaf.shape, decoder.shapes(config))
    assert jax.tree.map(np.shape, params) == wanted


def test_random_model_is_the_same_at_every_call():
    first, second = (
        safetensors_io.load("random:llama-tiny"),
        safetensors_io.load("random:llama-tiny"),
    )
    assert first.config == second.config
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert float(np.std(first.params["embed"])) > 0


def test_save_takes_jax_arrays_of_lower_precision(folder, tmp_path):
    _, params, description = safetensors_io.load(str(folder))
    low = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    safetensors_io.save(description, low, str(tmp_path / "out"), "bfloat16")
    again = safetensors_io.load(str(tmp_path / "out")).params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.float32(b)), again, low)


def test_harmless_extras_are_ignored(folder):
    def add(arrays):
        arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()

    before = safetensors_io.load(str(folder)).params
    _edit_weights(folder, add)
    jax.tree.map(np.testing.assert_array_equal, safetensors_io.load(str(folder)).params, before)


def test_llama3_factors_of_a_published_model():
    """Llama 3.2 (head size 64, factor 32): the first frequencies kept, the last divided by 32."""
    factors = rope.llama3_factors(64, 500000.0, 32.0, 1.0, 4.0, 8192)
    kept = [f for f in factors if f == 1.0]
    assert len(factors) == 32
    assert len(kept) == 15
    assert factors[-1] == 32.0
    assert 1.0 < factors[15] < factors[16] < factors[17] <= 32.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type='gpt2': jft supports llama, mistral"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"rope_type": "dynamic"}, "rope_parameters": None}, "rope type 'dynamic"),
        ({"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": None}, "factor is missing"),
        (
            {"rope_parameters": {"rope_type": "longrope", "short_factor": [1, 2]}},
            r"short_factor=\[1, 2\]: must be a list of 4",
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": "x"}}, "factor='x'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor is missing"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
        ({"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["x"]}, "layer_types="),
        (
            {"model_type": "gemma2", "layer_types": ["full_attention", "linear_attention"]},
            "layer_types holds 'linear_attention'",
        ),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "came before only"),
        ({"model_type": "gemma2", "hidden_activation": "gelu"}, "hidden_act='gelu'"),
        (
            {"model_type": "gemma3_text", "rope_scaling": {"full_attention": {"factor": 8.0}}},
            "rope_scaling=.* is for all layers; settings by the type of layers stand in rope_par",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": "32"}},
            "beta_fast='32'",
        ),
        ({"rope_parameters": {"full_attention": "x"}}, "holds full_attention='x': must be an obj"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1}},
            "rope_theta=1, .*yarn needs a base above 1",
        ),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 1e-320}},
            "factor=1e-320: must be a number above 0",
        ),
        (
            {"model_type": "olmo3", "rope_parameters": {"rope_type": "default"}},
            "rope_parameters=.* in this family settings stand by the type of layers",
        ),
        (
            {"model_type": "gemma3_text"}
            | {"rope_parameters": {"sliding_attention": {"partial_rotary_factor": 0.5}}},
            "partial_rotary_factor=0.5: must be 1 in this family",
        ),
        ({"model_type": "smollm3", "use_sliding_window": "false"}, "must be true or false"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings='yes': must be true or false"),
        ({"is_causal": 0}, "is_causal=0: must be true or false"),
        ({"model_type": "gemma3", "text_config": "x"}, "text_config='x': must be an object"),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "mixtral"}},
            "text_config has model_type='mixtral', where gemma3 has gemma3_text",
        ),
        (
            {"model_type": "gemma3", "text_config": {}, "quantization_config": {"bits": 4}},
            "quantization_config: jft reads float weights only",
        ),
        ({"model_type": "minimax_m2"}, "'minimax_m2' is not supported: a mixture of experts"),
        ({"model_type": "mixtral"}, "'mixtral' is not supported: a mixture of experts"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe' is not supported: a mixture of experts"),
        ({"model_type": "qwen3_5_text"}, "is not supported: it keeps a recurrent state"),
        ({"model_type": "lfm2"}, "is not supported: it keeps a recurrent state"),
        ({"model_type": "gemma4_text"}, "is not supported: its layers have inputs of their own"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"hidden_size": "wide"}, "hidden_size='wide'"),
        ({"hidden_size": 16.5}, "hidden_size=16.5"),
        ({"hidden_size": math.inf}, "hidden_size=inf"),
        ({"model_type": ["llama"]}, "model_type=.'llama'"),
        ({"model_type": "mistral", "sliding_window": "x"}, "sliding_window='x'"),
        ({"rope_parameters": [1]}, "rope_scaling=.1.: must be an object"),
        (
            {
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
                "rope_scaling": {"type": "linear", "factor": 2.0},
            },
            "rope_scaling={.*} and rope_parameters={.*} disagree",
        ),
        (
            {
                "rope_parameters": {
                    **{"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4},
                    **{"low_freq_factor": 4.0, "high_freq_factor": 1.0},
                }
            },
            "low_freq_factor=4: must be below high_freq_factor=1",
        ),
        ({"model_type": "mistral", "attention_bias": True}, "mistral has no such biases"),
        ({"is_causal": False}, "is_causal=false"),
        ({"head_dim": 15}, "head_dim=15"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"intermediate_size": 32}, r"mlp.down_proj.weight has the shape \(16, 24\).*\(16, 32\)"),
        ({"num_hidden_layers": 3}, "model.layers.2.* is missing"),
        ({"num_hidden_layers": 1}, "model.layers.1.* has no place"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ({"attention_bias": True}, "self_attn.k_proj.bias .*missing"),
    ],
)
def test_config_that_jft_cannot_run(changes, message, folder):
    _edit_config(folder, **changes)
    with pytest.raises(UserError, match=message):
        safetensors_io.load(str(folder))


def test_mistral_without_a_key_for_its_window_has_one(tmp_path):
    copy = Path(shutil.copytree(GOLDEN / "mistral", tmp_path / "model"))
    raw = json.loads((copy / "config.json").read_text())
    del raw["sliding_window"]
    (copy / "config.json").write_text(json.dumps(raw))
    assert safetensors_io.load(str(copy)).config.windows == (4096,)


def test_missing_key_is_named(folder):
    raw = json.loads((folder / "config.json").read_text())
    del raw["vocab_size"]
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="vocab_size is missing"):
        safetensors_io.load(str(folder))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (lambda t: t.update(extra=np.ones(2, np.float32)), "extra has no place"),
        (
            lambda t: t.update({"model.norm.weight": np.ones(15, np.float32)}),
            r"model.norm.weight has the shape \(15,\), but the config asks for \(16,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(16, np.int8)}),
            "model.norm.weight is of type I8",
        ),
    ],
)
def test_tensors_that_do_not_fit(edit, message, folder):
    _edit_weights(folder, edit)
    with pytest.raises(UserError, match=message):
        safetensors_io.load(str(folder))


@pytest.mark.parametrize("text", ["{", "[]", '"llama"', "\x00"])
def test_malformed_config(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        safetensors_io.load(str(folder))


def test_missing_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: missing"):
        safetensors_io.load(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(keep, folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors: truncated"):
        safetensors_io.load(str(folder))


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: missing"):
        safetensors_io.load(str(sharded))


def test_index_without_a_map(sharded):
    for content in ({}, {"weight_map": {"a": 5}}, {"weight_map": {"a": "../x.safetensors"}}):
        (sharded / "model.safetensors.index.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match="weight_map"):
            safetensors_io.load(str(sharded))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "a.ckpt"])
def test_pickled_weights_are_not_loaded(name, folder):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError, match=f"{name}.*pickle.*save_pretrained"):
        safetensors_io.load(str(folder))


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor"):
        safetensors_io.load(str(folder))


@pytest.mark.parametrize(
    "path", ["/no/such/folder", "./here", "~/no-such-folder", "a/b.gguf", "one", "a/b/c", "a b/c"]
)
def test_local_paths_that_are_not_there(path):
    """Such a path is never looked up on the hub."""
    with pytest.raises(UserError, match="no such file or folder"):
        safetensors_io.load(path)


@pytest.mark.parametrize(
    ("path", "message"), [("", "is empty"), ("random:gpt", "random:llama-tiny")]
)
def test_paths_that_name_nothing(path, message):
    with pytest.raises(UserError, match=message):
        safetensors_io.load(path)


def test_a_file_of_another_kind(folder):
    with pytest.raises(UserError, match=r"neither a Hugging Face folder nor a \.gguf file"):
        safetensors_io.load(str(folder / "config.json"))


def test_hub_id_without_network(tmp_path):
    """In a process of its own: huggingface_hub reads its settings at import."""
    code = "from jft.checkpoints import safetensors_io as io; io.load('no-such-org/no-such-model')"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True
    )
    last = run.stderr.strip().splitlines()[-1]
    assert "UserError: model.path=no-such-org/no-such-model" in last
    assert "HF_HUB_OFFLINE" in last
    assert "pass the folder" in last


def tied_folder(tmp_path, change):
    """Write a folder whose config ties the head, with a head beside the embedding."""
    from safetensors.numpy import load_file, save_file

    _, params, description = safetensors_io.load("random:llama-tiny")
    folder = tmp_path / "tied"
    safetensors_io.save(description, params, str(folder))
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = change(tensors["model.embed_tokens.weight"].copy())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_a_tied_head_may_stand_beside_the_embedding(tmp_path):
    folder = tied_folder(tmp_path, lambda embedding: embedding)
    assert safetensors_io.load(folder).config.tied_head


@pytest.mark.parametrize(
    "change", [lambda e: e + 1e-3, lambda e: e[:-1], lambda e: np.concatenate([e[:-1], 2 * e[-1:]])]
)
def test_a_head_of_its_own_is_not_dropped(tmp_path, change, monkeypatch):
    monkeypatch.setattr(safetensors_io, "READ_AT_ONCE", 1000)  # several parts
    folder = tied_folder(tmp_path, change)
    with pytest.raises(UserError, match="tie_word_embeddings=true, but the weights hold a lm_head"):
        safetensors_io.load(folder)


def test_the_index_of_another_save_is_not_read(tmp_path, capsys):
    _, params, description = safetensors_io.load("random:llama-tiny")
    folder = tmp_path / "model"
    safetensors_io.save(description, params, str(folder))
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = safetensors_io.load(str(folder))
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert (
        "model.safetensors is read, as by Transformers, and not model.safetensors.index.json"
        in (capsys.readouterr().out)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**400}, "vocab_size=1000000.*: must be a number above 0"),
        ({"head_dim": 2 * 10**10}, "head_dim=2e\\+10: must be a whole number up to 65536"),
        ({"num_hidden_layers": 1e9}, "num_hidden_layers=1e\\+09: must be a whole number up to"),
        ({"hidden_size": 2.0**40}, "hidden_size=.*: must be a whole number up to 2147483647"),
    ],
)
def test_endless_sizes_are_damage(changes, message, tmp_path):
    _, params, description = safetensors_io.load("random:llama-tiny")
    safetensors_io.save(description, params, str(tmp_path))
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | changes))
    with pytest.raises(UserError, match=message):
        safetensors_io.load(str(tmp_path))


def test_a_tensor_in_two_files_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    _, params, description = safetensors_io.load("random:llama-tiny")
    safetensors_io.save(description, params, str(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save_file({"model.norm.weight": tensors["model.norm.weight"]}, tmp_path / "a.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 0
    save_file(tensors, tmp_path / "b.safetensors")
    names = dict.fromkeys(tensors, "b.safetensors") | {"model.norm.weight": "a.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(
        UserError, match=r"the tensor model\.norm\.weight is in a\.safetensors, too"
    ):
        safetensors_io.load(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "windows", "thetas"),
    [
        ({"use_sliding_window": True, "sliding_window": None}, (0,), {500.0}),
        ({"use_sliding_window": True, "max_window_layers": 0, "layer_types": None}, (6,), {500.0}),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0, 1, 1]}, (0,), {500.0, None}),
        (
            {"model_type": "smollm3", "no_rope_layers": [1, 1], "no_rope_layer_interval": 0},
            (0,),
            {500.0},
        ),
        (
            {
                **{"model_type": "smollm3", "use_sliding_window": False},
                "layer_types": ["sliding_attention", "full_attention"],
            },
            (6, 0),
            {500.0},
        ),
        ({"head_dim": None, "num_key_value_heads": None}, (0,), {500.0}),
        ({"model_type": "mistral", "sliding_window": 0}, (0,), {500.0}),
    ],
    ids=str,
)
def test_odd_configs_are_read_as_transformers_reads_them(changes, windows, thetas):
    raw = {
        **{"model_type": "qwen2", "vocab_size": 48, "hidden_size": 16, "intermediate_size": 24},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"head_dim": 8, "sliding_window": 6, "rope_theta": 500.0},
    }
    config = families.decoder_config(raw | changes, Path("config.json"))
    assert config.windows == windows
    assert {rope and rope.theta for rope in config.ropes} == thetas


def test_a_scaling_beside_settings_by_layer_is_of_the_layers_without_a_window():
    """As Transformers merges them."""
    raw = json.loads((GOLDEN / "gemma3" / "config.json").read_text())
    raw["rope_parameters"]["full_attention"] = {"rope_type": "default", "rope_theta": 5000.0}
    raw["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    config = families.decoder_config(raw, Path("config.json"))
    assert config == safetensors_io.load(str(GOLDEN / "gemma3")).config


def test_code_beside_the_weights_is_not_asked_for_by_an_export(tmp_path):
    _, params, description = safetensors_io.load(str(GOLDEN / "phi3"))
    with_code = description | {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}
    safetensors_io.save(with_code, params, str(tmp_path))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_of_two_names_of_a_rotary_type_the_new_one_counts():
    rope_scaling = {"rope_type": "linear", "type": "yarn", "factor": 4.0}
    for scaling in (rope_scaling, dict(reversed(rope_scaling.items()))):
        raw = json.loads((GOLDEN / "linear" / "config.json").read_text())
        config = families.decoder_config(raw | {"rope_scaling": scaling}, Path("config.json"))
        assert config.ropes[0].factors == (4.0,) * 4

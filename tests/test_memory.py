"""A large model loads in little more memory than it takes; what is freed stays with the process."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jft import config as config_lib
from jft.checkpoints import model_ref, safetensors_io, tensor_names
from jft.checkpoints.families import read as families
from jft.checkpoints.families.tensors import LLAMA_TENSORS
from jft.model import mesh as mesh_lib

REPO = Path(__file__).parent.parent

# Llama 2 7B but for its number of layers.
LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
}

SMALL = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
    "tie_word_embeddings": True,
}

LOAD = """
import resource, sys
import jax, jax.numpy as jnp
from jft import config
from jft.checkpoints import model_ref
from jft.model import mesh

devices = mesh.make_mesh(config.Mesh())
jax.block_until_ready(jnp.ones(8) * 2)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
_, params = model_ref.resolve(sys.argv[1]).load(devices, jnp.dtype("bfloat16"))
print((peak() - before) / sum(x.nbytes for x in jax.tree.leaves(params)))
"""

USE_TWICE = """
import ctypes, resource

libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype = ctypes.c_void_p
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    ctypes.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(tunables):
    done = subprocess.run(
        [sys.executable, "-c", USE_TWICE],
        env=os.environ | {"GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_with_the_scripts_of_launch_the_second_use_of_a_large_block_faults_no_pages():
    command = "unset GLIBC_TUNABLES; source launch/environment.sh; printenv GLIBC_TUNABLES"
    done = subprocess.run(
        ["bash", "-ec", command], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert faults(done.stdout.strip()) < 100 < 10_000 < faults("")


def write_shards(folder, description, number):
    """A checkpoint of random bfloat16 numbers, as the hub has them."""
    folder.mkdir()
    config = families.decoder_config(description, folder)
    shapes = tensor_names.expected_shapes(config, LLAMA_TENSORS, "hf")
    rng, files = np.random.default_rng(0), {}
    for k in range(number):
        file = f"model-{k + 1:05}-of-{number:05}.safetensors"
        part = {
            name: rng.integers(0, 1 << 14, shapes[name], np.uint16).view(ml_dtypes.bfloat16)
            for name in list(shapes)[k::number]
        }
        save_file(part, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text(json.dumps(description))


def test_a_7b_model_but_for_its_layers_loads_in_little_more_than_its_size(tmp_path):
    write_shards(tmp_path / "model", LLAMA, number=3)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "model")],
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout.splitlines()[-1]) < 1.2


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 8, 1), (1, 4, 2)], ids=str)
def test_a_mesh_reads_its_parts(tmp_path, sizes, monkeypatch):
    monkeypatch.setattr(safetensors_io, "READ_AT_ONCE", 40)  # most tensors are read in parts
    write_shards(tmp_path / "model", SMALL, number=2)
    mesh = mesh_lib.make_mesh(config_lib.Mesh(*sizes))
    origin = model_ref.resolve(str(tmp_path / "model"))
    config, params = origin.load(mesh)
    whole = safetensors_io.load(origin.path).params
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    layout = mesh_lib.param_shardings(mesh, config)
    assert jax.tree.map(lambda x: x.sharding, params) == layout
    half = origin.load(mesh, np.dtype("bfloat16"))[1]
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype("bfloat16")}
    jax.tree.map(np.testing.assert_array_equal, half, whole)  # bfloat16 is what the files hold

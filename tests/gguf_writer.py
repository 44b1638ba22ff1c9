"""GGUF files of tiny models, as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quant

from jft.checkpoints import tensor_names
from jft.checkpoints.families import read as families

FLOAT32 = np.dtype("float32")


def tensors_of(description, params):
    """The tensors of a file, by name, before what the converter changes in them."""
    config = families.decoder_config(description, Path())
    tensors = families.tensors(families.family_of(description, Path()))
    return dict(tensor_names.dump_tensors(config, params, FLOAT32, tensors, "gguf"))


def _permute(weight, heads):
    """The row order of llama.cpp's convert_hf_to_gguf.py, as its `permute` defines it."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(file, description, params, quant=Quant.F32, *, edit=None, extra=None, arch=None):
    """Write vectors in float32, and matrices quantized.

    Args:
      file: the file.
      description: the model's config.json.
      params: its parameters.
      quant: the type of matrices.
      edit: changes the tensors, by name, before they are written.
      extra: gets the writer, to change the metadata.
      arch: another architecture than the model's.
    """
    config = families.decoder_config(description, Path())
    family = families.family_of(description, Path())
    raw = family.defaults | description
    writer = gguf.GGUFWriter(file, arch or family.gguf.architecture)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.embed_dim)
    writer.add_feed_forward_length(config.mlp_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    # As llama.cpp's converter: some families have the one, some the other, and Llama both.
    if description["model_type"] != "phi3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if family.gguf.pairs or description["model_type"] == "phi3":
        writer.add_rope_dimension_count(config.rotated_dim or config.head_dim)
    # The last layer is one without a window, where some have none.
    writer.add_rope_freq_base(next(r.theta for r in reversed(config.ropes) if r))
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    for key, name in family.gguf.keys.items():
        if raw.get(name):
            whole = isinstance(raw[name], int)
            add = writer.add_uint32 if whole else writer.add_float32
            add(f"{arch or family.gguf.architecture}.{key}", raw[name])
    arrays = tensors_of(description, params)
    for name, array in arrays.items():
        if name.endswith("norm.weight"):
            arrays[name] = array + np.float32(config.norm_offset)
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
        if family.gguf.pairs and name.split(".")[-2] in heads:
            arrays[name] = _permute(array, heads[name.split(".")[-2]])
    if edit:
        edit(arrays)
    if extra:
        extra(writer)
    for name, array in arrays.items():
        if array.ndim == 1 or quant == Quant.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quantize(array, quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(file)

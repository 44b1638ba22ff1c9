"""Drift: how far fine-tuning has moved the weights, by layer and by kind of parameter."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jft.checkpoints import model_record, model_ref
from jft.checkpoints.session import Session
from jft.errors import UserError
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib
from jft.model.architecture import Adapters
from jft.runtime import records
from jft.runtime.progress import phase, say

Number = jax.Array | np.ndarray | float

# The names in the file of parameters whose own names would say less.
KINDS = {"out": "output", "embed": "embedding"}


class Sums(NamedTuple):
    """Sums over the numbers of a weight, from which its drift follows.

    W is the weight after training and W0 before. Each field is a float32 scalar, or an array [L]
    where the weight is stacked by layer; in `report` it is a float, of one layer.

    Attributes:
      base: |W0|^2, the squared Frobenius norm.
      product: <W - W0, W0>, the sum of the products of their numbers.
      change: |W - W0|^2.
      concentration: tr(G^2) / tr(G)^2, where G is the Gram matrix of the change W - W0, as a matrix
        [D, rest] or its transpose; nan for a vector, or where nothing has changed.
    """

    base: Number
    product: Number
    change: Number
    concentration: Number


def write_if_missing(folder: Path, session: Session) -> None:
    """Write the drift of a finished run that was killed before it wrote it."""
    if (folder / records.DRIFT.name).exists():
        return
    run = model_ref.resolve(str(folder))
    try:
        if run.has_adapters:
            model = run.load_adapted(session.mesh, session.dtype)
        else:
            model = run.load(session.mesh)
    except UserError as error:
        _say_why(error)
    else:
        write(folder, session, *model)


def write(
    folder: Path, session: Session, config: decoder.DecoderConfig, params: decoder.Params
) -> None:
    """Write `drift.json`: the drift of all weights together, and of each weight of each layer.

    If the base is missing, or is another model by now, print a note and write nothing.

    Args:
      folder: the workdir.
      session: of the run, with its base.
      config: the shape of the trained model.
      params: its parameters.
    """
    base, mesh = session.model, session.mesh
    try:
        record = model_record.read_record(folder)
        with phase("Measuring the drift of the weights"):
            if config.adapters:
                sums = compare_adapted(config, mesh, params)
            else:
                if base.folder == folder.resolve():  # the run goes on without its base
                    raise UserError(f"{record.base} is not there any more")
                base.check_files()
                if base.fingerprint() != record.base_sha256:
                    raise UserError(f"{base.path} is another model by now")
                sums = compare(config, mesh, params, base.load(mesh)[1])
            begun = {"base": record.base, "base_step": record.base_step or 0}
            records.write(folder, records.DRIFT, begun | report(config, sums))
    except UserError as error:
        _say_why(error)


def _say_why(error: UserError) -> None:
    say(f"note: no {records.DRIFT.name}, which needs the base: {error}")


def compare(
    config: decoder.DecoderConfig, mesh: Mesh, params: decoder.Params, base: decoder.Params
) -> dict:
    """Compute the `Sums` of every parameter in float32, in the structure of the parameters."""
    dims = decoder.dims(config)
    layout = mesh_lib.param_shardings(mesh, config)
    program = jax.jit(
        lambda tuned, base: jax.tree.map(_sums, dims, tuned, base),
        in_shardings=(layout, layout),
        out_shardings=mesh_lib.replicated(mesh),
    )
    with jax.set_mesh(mesh):
        return jax.device_get(program(params, base))


def compare_adapted(config: decoder.DecoderConfig, mesh: Mesh, params: decoder.Params) -> dict:
    """Compute the `Sums` of a decoder with adapters, whose parameters hold the base."""
    assert config.adapters
    program = jax.jit(
        functools.partial(_sums_adapted, config.adapters, _plain_dims(config)),
        in_shardings=(mesh_lib.param_shardings(mesh, config),),
        out_shardings=mesh_lib.replicated(mesh),
    )
    with jax.set_mesh(mesh):
        return jax.device_get(program(params))


def _sums_adapted(adapters: Adapters, dims: dict, params: decoder.Params) -> dict:
    """Compute the sums in the structure of `dims`, that of the decoder without adapters."""

    def of_layer(projection):
        plain = {name: x for name, x in projection.items() if name != lora.ADAPTER}
        return _sums(names[1:], lora.kernel(projection, adapters), lora.kernel(plain))

    found: dict[str, Any] = {}
    for name, names in dims.items():
        if isinstance(names, dict):
            found[name] = _sums_adapted(adapters, names, params[name])
        elif name == "kernel" and lora.has_adapter_or_int8(params):
            found[name] = jax.lax.map(of_layer, params)
        else:
            found[name] = _sums(names, params[name], params[name])
    return found


def _plain_dims(config: decoder.DecoderConfig) -> dict:
    return decoder.dims(dataclasses.replace(config, adapters=None))


def _sums(dims: str, tuned: jax.Array, base: jax.Array) -> Sums:
    if dims.startswith("L"):
        # Layer by layer, since the changes of all layers take as much memory as the model.
        return jax.lax.map(lambda pair: _sums(dims[1:], *pair), (tuned, base))
    tuned, base = tuned.astype(jnp.float32), base.astype(jnp.float32)
    change = tuned - base
    total = jnp.sum(change * change)
    concentration = jnp.float32(jnp.nan)
    if _is_matrix(dims):
        # The change is normalized first: the fourth power of a small one underflows in float32.
        unit = _matrix(dims, change * jax.lax.rsqrt(total))
        gram = jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST)
        concentration = jnp.sum(gram * gram)
    return Sums(jnp.sum(base * base), jnp.sum(change * base), total, concentration)


def _is_matrix(dims: str) -> bool:
    return "D" in dims and len(dims) > 1


def _matrix(dims: str, x: jax.Array) -> jax.Array:
    """Reshape a kernel to a matrix, one side of it the embedding, with the shorter side first."""
    x = x.reshape(x.shape[0], -1) if dims[0] == "D" else x.reshape(-1, x.shape[-1])
    return x if x.shape[0] <= x.shape[1] else x.T


def report(config: decoder.DecoderConfig, sums: dict) -> dict:
    """Make the content of `drift.json`.

    `relative_norm` is |W - W0| / |W0|, `cosine` that of the angle between W and W0. The effective
    rank of the change is the participation ratio of its squared singular values, which are the
    eigenvalues of its Gram matrix G: tr(G)^2 / tr(G^2), 1 for one direction and n for n of equal
    strength (Gao et al. 2017, bioRxiv 214262). It needs no singular value decomposition.

    Args:
      config: the decoder's shape.
      sums: the result of `compare` or `compare_adapted`.
    """
    dims = jax.tree_util.tree_leaves_with_path(_plain_dims(config))
    leaves = jax.tree.leaves(sums, is_leaf=lambda x: isinstance(x, Sums))
    weights, parts = [], []
    for (path, names), leaf in zip(dims, leaves, strict=True):
        stacked = names.startswith("L")
        for layer in range(config.num_layers) if stacked else [None]:
            part = Sums(*(float(x[layer] if stacked else x) for x in leaf))
            parts.append(part)
            place = {"layer": layer, "kind": _kind([key.key for key in path])}
            weights.append(place | _distance(part) | _rank(config, names.lstrip("L"), part))
    total = Sums(*np.sum(np.asarray(parts), axis=0))
    weights.sort(key=lambda weight: -1 if weight["layer"] is None else weight["layer"])
    return {"all": _distance(total), "weights": weights}


def _distance(sums: Sums) -> dict:
    """Compute relative norm and cosine; None where a norm of zero leaves them undefined."""
    base, product, change, _ = sums
    # |W|^2 is computed from the change, so that a cosine close to 1 keeps its digits.
    tuned = base + 2 * product + change
    norms = math.sqrt(base * max(tuned, 0.0))
    return {
        "relative_norm": math.sqrt(change / base) if base else None,
        "cosine": min(1.0, (base + product) / norms) if norms else None,
    }


def _rank(config: decoder.DecoderConfig, dims: str, sums: Sums) -> dict:
    """Compute the effective rank of the change, and the highest possible; None for a vector."""
    if not _is_matrix(dims):
        return {"effective_rank": None, "full_rank": None}
    rest = math.prod(config.size(dim) for dim in dims.replace("D", ""))
    known = math.isfinite(sums.concentration)
    return {
        "effective_rank": 1 / sums.concentration if known else None,
        "full_rank": min(config.embed_dim, rest),
    }


def _kind(path: list[str]) -> str:
    """Name a parameter: `query` for attention.query.kernel, `mlp_norm` for mlp_norm.scale."""
    name = path[-1] if len(path) == 1 or path[-1] not in ("kernel", "scale", "bias") else path[-2]
    return KINDS.get(name, name) + ("_bias" if path[-1] == "bias" else "")

"""Probes: how a model answers a few test items while it is trained, and how far from its base.

A probe only reads the parameters; training goes on to the same bits with or without it.
"""

from __future__ import annotations

import functools
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.sharding import Mesh

from jft import config as config_lib
from jft.batch import Array, Batch
from jft.data.packing import Budget
from jft.data.prefix_tree import num_entries
from jft.data.probe_batches import ProbeBatch, ProbeItems, ProbeSet
from jft.errors import UserError
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import phase

# What a file that is missing, damaged or no archive makes `np.load` raise.
UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
PROBED = {"step": int, "relation": str, "nll": int | float}
# A probe that takes longer says so.
NOTICED_SECONDS = 5.0

Program = Callable[[decoder.Params, Batch, Array], tuple[jax.Array, jax.Array]]


class Probes:
    """The probes of a run of `steps` steps, in a workdir; `done`: the step it goes on from.

    The base's answers are those of step 0, kept in `probes.npz`.

    Raises:
      UserError: `probes.npz` is missing where it should be, or of other items.
    """

    def __init__(
        self,
        config: config_lib.Config,
        items: ProbeItems,
        model: decoder.DecoderConfig,
        dtype: jnp.dtype,
        mesh: Mesh,
        steps: int,
        folder: Path,
        done: int,
    ):
        self.every, self.steps, self.items = config.probe.every, steps, items
        self.file = folder / "probes.npz"
        if not items.sets:
            return
        budget = Budget(mesh_lib.row_shards(mesh), config.train.micro_batch_tokens)
        self.batches = list(items.batches(budget))
        self.owner_K = np.array([i for b in self.batches for row in b.owners for i in row])
        self.rows = mesh_lib.row_sharding(mesh, leading=0)
        with phase("Compiling the probe"):
            self.program = compile_probe(model, dtype, mesh, self.batches[0])
        if done:
            self.base_nll_I, self.base_KV = self._read_base()

    def due(self, step: int) -> bool:
        """Whether to probe after this step; before the first and after the last in any case."""
        now = step in (0, self.steps) or bool(self.every and step % self.every == 0)
        return now and bool(self.items.sets)

    def run(self, step: int, params: decoder.Params) -> list[dict]:
        """One record for each dataset; at step 0 the model is the base, which is remembered."""
        with phase(f"Probe at step {step}", NOTICED_SECONDS):
            scores, logprobs_KV = self._answers(params)
            nll_I = self._nll(scores)
            if step == 0:
                self.base_nll_I, self.base_KV = nll_I, logprobs_KV
                self._write_base()
            kl_K = kl_divergence(self.base_KV, logprobs_KV)
            kl_I = np.bincount(self.owner_K, kl_K) / np.bincount(self.owner_K)
        records, first = [], 0
        for each in self.items.sets:
            part = slice(first, first + len(each.encoded))
            means = {"nll": nll_I, "nll_change": nll_I - self.base_nll_I, "kl": kl_I}
            means = {name: values[part] for name, values in means.items()}
            records.append({"step": step} | _record(each, scores[part], means))
            first = part.stop
        return records

    def _answers(self, params: decoder.Params) -> tuple[list[np.ndarray], np.ndarray]:
        """Each item's log-probabilities of its sequences, and what `program` gives for K."""
        scores = [np.zeros(len(encoded.sequences)) for encoded in self.items.encoded]
        logprobs_KV: list[np.ndarray] = []
        for part in self.batches:
            placed = mesh_lib.put((part.batch, part.first_BP), self.rows)
            logprobs_BM, first_BPV = jax.device_get(self.program(params, *placed))
            values_BM = logprobs_BM.astype(np.float64) * part.batch.loss_weight_BM
            for b, slots in enumerate(part.slots):
                sums = np.bincount(
                    part.batch.loss_sequence_BM[b], values_BM[b], minlength=len(slots)
                )
                for (item, sequence), value in zip(slots, sums, strict=True):
                    scores[item][sequence] = value
                logprobs_KV.append(first_BPV[b, : len(part.owners[b])])
        return scores, np.concatenate(logprobs_KV)

    def _nll(self, scores: list[np.ndarray]) -> np.ndarray:
        """Of each item's gold answer, per token."""
        encoded, gold = self.items.encoded, [gold for s in self.items.sets for gold in s.gold]
        return np.array(
            [
                -values[i] / num_entries([each.sequences[i]])
                for each, values, i in zip(encoded, scores, gold, strict=True)
            ]
        )

    def _write_base(self) -> None:
        content, sha256 = io.BytesIO(), self.items.sha256()
        np.savez(content, nll_I=self.base_nll_I, logprobs_KV=self.base_KV, sha256=sha256)
        workdir_lib.write_bytes(self.file, content.getbuffer())

    def _read_base(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with np.load(self.file) as arrays:
                nll_I, base_KV = arrays["nll_I"], arrays["logprobs_KV"]
                sha256 = str(arrays["sha256"])
        except UNREADABLE as error:
            raise UserError(
                f"{self.file}: missing or damaged: {error}; restore it, or train again in another "
                "workdir"
            ) from None
        if sha256 != self.items.sha256():
            raise UserError(
                f"{self.file.parent} was begun with other items to probe: test rows, the prompt or "
                "the tokenizer have changed since; restore them, or choose another workdir"
            )
        return nll_I, base_KV


def best_steps(folder: Path, number: int, steps: Sequence[int]) -> list[int]:
    """Of some steps of a run so many at which the loss on its in-domain probes was lowest."""
    losses: dict[int, list[float]] = {}
    for record in workdir_lib.read_jsonl(folder / "probes.jsonl", PROBED) if number else []:
        if record["relation"] == "in-domain" and record["step"] in steps:
            losses.setdefault(record["step"], []).append(record["nll"])
    return sorted(losses, key=lambda step: float(np.mean(losses[step])))[:number]


def compile_probe(
    model: decoder.DecoderConfig, dtype: jnp.dtype, mesh: Mesh, example: ProbeBatch
) -> Program:
    """`answers` compiled for batches shaped as this one."""
    rows = mesh_lib.row_sharding(mesh, leading=0)
    program = jax.jit(
        functools.partial(answers, model, dtype),
        in_shardings=(mesh_lib.param_shardings(mesh, model), rows, rows),
        out_shardings=mesh_lib.replicated(mesh),
    )
    given = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (example.batch, example.first_BP)
    )
    with jax.set_mesh(mesh):
        return program.lower(decoder.shapes(model), *given).compile()


def answers(
    model: decoder.DecoderConfig,
    dtype: jnp.dtype,
    params: decoder.Params,
    batch: Batch,
    first_BP: Array,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities: of all targets, [B, M], and of the vocabulary at some entries, [B, P, V].

    The head runs on the loss entries only; of these few are kept whole.
    """
    cast = lora.cast(params, dtype)
    logits_BMV = decoder.entry_logits(model, cast, batch)
    first_BPV = jnp.take_along_axis(logits_BMV, first_BP[..., None], axis=1)
    return decoder.target_logprobs(logits_BMV, batch.loss_target_BM), jax.nn.log_softmax(first_BPV)


def kl_divergence(base_KV: np.ndarray, tuned_KV: np.ndarray) -> np.ndarray:
    """KL(base || tuned) of each row of log-probabilities, in nats, [K] in float64.

    Both are normalized again in float64: what their rounding adds to a sum over the vocabulary
    would drown a small divergence.
    """

    def one(base_V: np.ndarray, tuned_V: np.ndarray) -> float:
        p, q = (scipy.special.log_softmax(x.astype(np.float64)) for x in (base_V, tuned_V))
        return float(np.sum(np.exp(p) * (p - q)))

    return np.array([one(*pair) for pair in zip(base_KV, tuned_KV, strict=True)])


def _record(each: ProbeSet, scores: list[np.ndarray], values: dict[str, np.ndarray]) -> dict:
    """Means over the items of a set, with their standard errors."""
    task = each.dataset.task
    hits = [int(np.argmax(s)) == gold for s, gold in zip(scores, each.gold, strict=True)]
    record = {
        "task": task.name,
        "dataset": each.dataset.name,
        "relation": each.relation,
        "n": len(hits),
        "accuracy": float(np.mean(hits)) if task.labels else None,
    }
    for name, of_items in values.items():
        record |= {name: float(of_items.mean()), f"{name}_stderr": _stderr(of_items)}
    return record


def _stderr(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None

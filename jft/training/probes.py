"""Probes: answers of a model to a few test items while it is trained, compared with its base's.

A probe only reads the parameters: training comes to the same bits with and without it.
"""

from __future__ import annotations

import functools
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jft.batch import Array, Batch
from jft.checkpoints.session import Session
from jft.data import prefix_tree
from jft.data.packed import sum_by_sequence
from jft.data.prefix_tree import num_entries
from jft.data.probe_batches import ProbeBatch, ProbeItems, ProbeSet
from jft.errors import UserError, machine_trouble
from jft.model import decoder, lora
from jft.model import mesh as mesh_lib
from jft.runtime import processes, records
from jft.runtime import workdir as workdir_lib
from jft.runtime.file_cache import FileCache
from jft.runtime.progress import phase, say
from jft.tasks import IN_DOMAIN, VALIDATION

# Raised by `np.load` for a file that is missing, damaged or no archive.
UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
# A probe that takes longer says so.
NOTICED_SECONDS = 5.0
# Answers of bases on this machine: all trainings from a base that probe the same items begin with
# them. `VERSION` changes with what is computed.
BASES, VERSION = FileCache("probes", 1 << 30), 1

Program = Callable[[decoder.Params, Batch, Array], tuple[jax.Array, jax.Array]]


class ProbeSchedule(NamedTuple):
    """The steps at which a run is probed: before its first, after its last, and some between.

    Attributes:
      every: steps from one probe to the next; 0: none between the first and the last.
      last: the last step of the run.
      done: the step that the run resumes from; 0 where it begins.
    """

    every: int
    last: int
    done: int

    def due(self, step: int) -> bool:
        """Check whether to probe after a step."""
        return step in (0, self.last) or bool(self.every and step % self.every == 0)


class Answers(NamedTuple):
    """Answers of a model to the items of a probe.

    Attributes:
      nll_I: negative log-likelihood of each item's gold answer, per token.
      logprobs_EV: log-probabilities of the vocabulary at the entries that the probe looks at.
    """

    nll_I: np.ndarray
    logprobs_EV: np.ndarray


class Probes:
    """The probes of a run: some items, asked again and again, and the base's answers to them.

    The base is the model at step 0; its answers are kept in `probes.npz`.

    Raises:
      UserError: `probes.npz` is missing where it should be, or of other items.
    """

    def __init__(
        self,
        session: Session,
        model: decoder.DecoderConfig,
        items: ProbeItems,
        schedule: ProbeSchedule,
        folder: Path,
    ):
        self.items, self.due = items, schedule.due
        self.file = folder / "probes.npz"
        self.batches = list(items.probe_batches())
        self.item_E = np.concatenate([b.items_BE[b.items_BE >= 0] for b in self.batches])
        pairs = zip(items.encoded, items.gold, strict=True)
        self.tokens_I = np.array(
            [num_entries([each.sequences[j] for j in gold]) for each, gold in pairs]
        )
        self.sharding = mesh_lib.row_sharding(session.mesh, leading=0)
        self._base_key = _base_key(session, model, items)
        with phase("Compiling the probe"):
            self.program = compile_probe(session, model, self.batches[0])
        self.base = self._read_base() if schedule.done else None
        known = records.read_lines(folder, records.PROBES) if schedule.done else []
        self.records = [record for record in known if record["step"] <= schedule.done]

    def run(self, step: int, params: decoder.Params) -> list[dict]:
        """Make one record for each set; at step 0 the answers become those of the base."""
        with phase(f"Probe at step {step}", NOTICED_SECONDS):
            scores, logprobs_EV = self._ask(params) if step else self._ask_base(params)
            now = Answers(self._nll(scores), logprobs_EV)
            if step == 0:
                self.base = now
                self._write_base(now)
            base = self.base
            assert base
            kl_E = kl_divergence(base.logprobs_EV, logprobs_EV)
            kl_I = self._mean_of_items(kl_E)
        found, first = [], 0
        for each in self.items.sets:
            part = slice(first, first + len(each.encoded))
            means = {"nll": now.nll_I, "nll_change": now.nll_I - base.nll_I, "kl": kl_I}
            means = {name: values[part] for name, values in means.items()}
            record = {"step": step} | _record(each, scores[part], means)
            tokens = self.tokens_I[part]
            found.append(record | {"loss": float(now.nll_I[part] @ tokens / tokens.sum())})
            first = part.stop
        self.records += found
        return found

    @property
    def losses(self) -> dict[int, float]:
        """The loss that the run is judged by at each step that was probed."""
        return losses(self.records)

    @property
    def best(self) -> int:
        """The step with the lowest of these losses; 0 without any."""
        known = self.losses
        return min(known, key=known.__getitem__, default=0)

    def best_long_ago(self, probes: int, warmup: int) -> bool:
        """Check whether so many probes since the best one brought no lower loss.

        Args:
          probes: 0: never.
          warmup: probes up to this step do not count, since the learning rate was still low.
        """
        return 0 < probes <= sum(step > max(self.best, warmup) for step in self.losses)

    def _ask_base(self, params: decoder.Params) -> tuple[list[np.ndarray], np.ndarray]:
        """Ask the base, or read what it answered before; several processes ask together."""
        alone = processes.count() == 1
        if alone and (found := BASES.read(self._base_key, _load_answers)):
            return found
        say("Probe before the first step ...")  # no line has come since the programs were compiled
        found = self._ask(params)
        if alone:
            BASES.write(self._base_key, functools.partial(_save_answers, *found))
        return found

    def _ask(self, params: decoder.Params) -> tuple[list[np.ndarray], np.ndarray]:
        """Compute log-probabilities of the sequences of each item, and `Answers.logprobs_EV`."""
        scores = [np.zeros(len(encoded.sequences)) for encoded in self.items.encoded]
        distributions: list[np.ndarray] = []
        for each in self.batches:
            placed = mesh_lib.put((each.batch, each.entries_BE), self.sharding)
            logprobs_BM, logprobs_BEV = jax.device_get(self.program(params, *placed))
            for (item, sequence), value in sum_by_sequence(each.batch, logprobs_BM, each.rows):
                scores[item][sequence] = value
            distributions.append(logprobs_BEV[each.items_BE >= 0])
        return scores, np.concatenate(distributions)

    def _mean_of_items(self, values_E: np.ndarray) -> np.ndarray:
        """Average what entries have, by item; nan for items of which there is no entry."""
        number = len(self.items.encoded)
        counts = np.bincount(self.item_E, minlength=number)
        sums = np.bincount(self.item_E, values_E, minlength=number)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def _nll(self, scores: list[np.ndarray]) -> np.ndarray:
        """Compute the mean loss of the tokens of each item's gold answer."""
        pairs = zip(scores, self.items.gold, strict=True)
        sums = np.array([sum(values[j] for j in gold) for values, gold in pairs])
        return -sums / self.tokens_I

    def _write_base(self, base: Answers) -> None:
        content, sha256 = io.BytesIO(), self.items.sha256()
        np.savez(content, nll_I=base.nll_I, logprobs_KV=base.logprobs_EV, sha256=sha256)
        workdir_lib.write_bytes(self.file, content.getbuffer())

    def _read_base(self) -> Answers:
        try:
            # Opened here: NumPy leaves a file open that it cannot read.
            with self.file.open("rb") as file, np.load(file) as arrays:
                base = Answers(arrays["nll_I"], arrays["logprobs_KV"])
                sha256 = str(arrays["sha256"])
        except UNREADABLE as error:
            if reason := machine_trouble(error):
                raise UserError(f"{self.file}: cannot be read: {reason}") from None
            raise UserError(
                f"{self.file}: missing or damaged: {error}; restore it, or train again in another "
                "workdir"
            ) from None
        if sha256 != self.items.sha256():
            raise UserError(
                f"{self.file.parent} was begun with other items to probe: test rows, the prompt or "
                "the tokenizer have changed since; restore them, or choose another workdir"
            )
        return base


def _base_key(session: Session, model: decoder.DecoderConfig, items: ProbeItems) -> str:
    """Hash all that the answers of a base depend on."""
    facts = [
        *(VERSION, jax.__version__, repr(model), str(session.dtype), session.model.fingerprint()),
        *(items.sha256(), prefix_tree.sha256(s for each in items.encoded for s in each.sequences)),
        *(items.rows, items.shape, session.mesh.shape, session.mesh.devices.flat[0].device_kind),
    ]
    return workdir_lib.sha256([str(fact) for fact in facts])[:32]


def _save_answers(scores: list[np.ndarray], logprobs_EV: np.ndarray, file: BinaryIO) -> None:
    sizes = [len(each) for each in scores]
    np.savez(file, scores=np.concatenate(scores), sizes=sizes, logprobs_EV=logprobs_EV)


def _load_answers(file: BinaryIO) -> tuple[list[np.ndarray], np.ndarray]:
    with np.load(file) as arrays:
        ends = np.cumsum(arrays["sizes"])[:-1]
        return np.split(arrays["scores"], ends), arrays["logprobs_EV"]


def losses(probes: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Compute the loss that a run is judged by at each step: of validation, or of in-domain items.

    Args:
      probes: records of its probes.
    """
    found: dict[str, dict[int, list[float]]] = {VALIDATION: {}, IN_DOMAIN: {}}
    for record in probes:
        relation, step = record["relation"], record["step"]
        if relation in found:
            loss = record["loss"] if relation == VALIDATION else record["nll"]
            found[relation].setdefault(step, []).append(loss)
    judged = found[VALIDATION] or found[IN_DOMAIN]
    return {step: float(np.mean(of_sets)) for step, of_sets in judged.items()}


def best_steps(folder: Path, number: int, steps: Sequence[int]) -> list[int]:
    """Choose the `number` of `steps` at which the loss that the run is judged by was lowest."""
    known = losses(records.read_lines(folder, records.PROBES) if number else [])
    return sorted((step for step in known if step in steps), key=known.__getitem__)[:number]


def compile_probe(session: Session, model: decoder.DecoderConfig, example: ProbeBatch) -> Program:
    """Compile `probe_logprobs` for batches of the shape of an example."""
    mesh, rows = session.mesh, mesh_lib.row_sharding(session.mesh, leading=0)
    program = jax.jit(
        functools.partial(probe_logprobs, model, session.dtype),
        in_shardings=(mesh_lib.param_shardings(mesh, model), rows, rows),
        out_shardings=mesh_lib.replicated(mesh),
    )
    given = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (example.batch, example.entries_BE)
    )
    with jax.set_mesh(mesh):
        return program.lower(decoder.shapes(model), *given).compile()


def probe_logprobs(
    model: decoder.DecoderConfig,
    dtype: jnp.dtype,
    params: decoder.Params,
    batch: Batch,
    entries_BE: Array,
) -> tuple[jax.Array, jax.Array]:
    """Compute log-probabilities of all targets, [B, M], and of the vocabulary at some entries.

    The head runs on the loss entries alone. The distributions of few of them are returned whole,
    [B, E, V].
    """
    cast = lora.cast(params, dtype)
    logits_BMV = decoder.entry_logits(model, cast, batch)
    logits_BEV = jnp.take_along_axis(logits_BMV, entries_BE[..., None], axis=1)
    return decoder.target_logprobs(logits_BMV, batch.loss_target_BM), jax.nn.log_softmax(logits_BEV)


def kl_divergence(base_EV: np.ndarray, tuned_EV: np.ndarray) -> np.ndarray:
    """Compute KL(base || tuned) of log-probabilities at each entry, in nats, [E] in float64.

    Both are normalized again in float64: what their rounding adds to a sum over the vocabulary
    would drown a small divergence.
    """

    def one(base_V: np.ndarray, tuned_V: np.ndarray) -> float:
        p, q = (scipy.special.log_softmax(x.astype(np.float64)) for x in (base_V, tuned_V))
        return float(np.sum(np.exp(p) * (p - q)))

    return np.array([one(*pair) for pair in zip(base_EV, tuned_EV, strict=True)])


def _record(each: ProbeSet, scores: list[np.ndarray], values: dict[str, np.ndarray]) -> dict:
    """Record means over the items of a set, with their standard errors."""
    task = each.dataset.task
    hits = [int(np.argmax(s)) in gold for s, gold in zip(scores, each.gold, strict=True)]
    record = {
        "task": task.name,
        "dataset": each.dataset.name,
        "relation": each.relation,
        "n": len(hits),
        "accuracy": float(np.mean(hits)) if each.has_choices else None,
    }
    for name, of_all in values.items():
        of_items = of_all[~np.isnan(of_all)]
        record |= {name: float(of_items.mean()), f"{name}_stderr": _stderr(of_items)}
    return record


def _stderr(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None

"""Attention by every candidate: its errors against the whole mask, and its speed.

    python -m benchmarks.accelerator.attention SPEC [errors|speeds]

Rows are plain (one sequence), packed (short sequences) or trees (short sequences after a prefix
that they share).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.part import Row, Spec, attempt, seconds_of, serve
from jft import config as config_lib
from jft.batch import Batch, in_window, sees
from jft.data import prefix_tree
from jft.model import attention, attention_mask
from jft.model import mesh as mesh_lib
from jft.model.architecture import DecoderConfig, LayerKind
from jft.model.kernels import choices, library, tree_attention
from jft.model.kernels.blocks import Inputs
from jft.model.scores import Scores

ERRORS = "a. Attention (B T N K H): errors against the whole mask"
SPEEDS = "b. Attention (B T N K H): speed"
# Other sizes of the kernels than those that they choose, by platform: their `Tuning`.
TUNINGS = {
    "gpu": ((64, 4, 3), (64, 8, 2), (128, 8, 2), (128, 8, 3), (32, 4, 2)),
    "tpu": ((128,), (256,), (512,), (1024,)),
}
# Attention without a mask of ours: of whole rows, by cuDNN on GPUs and by XLA elsewhere.
PLAIN = "JAX's own, causal"


class Case(NamedTuple):
    """The sizes of attention, and the rows of its batch.

    Attributes:
      rows, length, heads, kv_heads, head: B, T, N, K, H.
      prefix: tokens that all sequences of a row share.
      each: tokens of a sequence after them; 0: the row is one sequence.
      window: of the layer; 0: none.
    """

    rows: int
    length: int
    heads: int
    kv_heads: int
    head: int
    prefix: int = 0
    each: int = 0
    window: int = 0

    def name(self) -> str:
        """Describe the case."""
        sizes = f"{self.rows} {self.length} {self.heads} {self.kv_heads} {self.head}"
        rows = "plain" if not self.each else "packed" if not self.prefix else "trees"
        of = f" {self.prefix}+{self.each}" if self.prefix else f" {self.each}" * bool(self.each)
        return f"{sizes}, {rows}{of}{f', window {self.window}' * bool(self.window)}"

    def batch(self) -> Batch:
        """Draw the batch."""
        return forest_batch(self.rows, self.length, self.prefix, self.each, self.window)[0]

    def config(self) -> DecoderConfig:
        """Describe a decoder of such layers."""
        layers = (LayerKind(self.window),)
        sizes = (self.heads, self.kv_heads, self.head, 8)
        return DecoderConfig(64, 64, 1, *sizes, layers=layers)

    def arrays(self, dtype) -> list[jax.Array]:
        """Draw query, key, value, and the gradient of the output."""
        keys = jax.random.split(jax.random.key(0), 4)
        numbers = (self.heads, self.kv_heads, self.kv_heads, self.heads)
        return [
            jax.random.normal(key, (self.rows, self.length, n, self.head)).astype(dtype)
            for key, n in zip(keys, numbers, strict=True)
        ]


SIZES = (
    Case(8, 2048, 32, 8, 64),
    Case(4, 4096, 32, 32, 128),
    Case(2, 8192, 32, 8, 128),
    Case(8, 2048, 32, 8, 64, each=256),
    Case(4, 4096, 32, 8, 128, prefix=1024, each=100),
    Case(16, 2048, 9, 3, 64, prefix=308, each=75),
    Case(16, 2048, 9, 3, 64, each=75),
)
EXACT = (
    Case(2, 1024, 9, 3, 64),
    Case(2, 1000, 8, 2, 128, prefix=200, each=100),
    Case(1, 1024, 4, 1, 256, prefix=100, each=60),
    Case(2, 1024, 4, 2, 64, each=200, window=64),
)
TINY = (Case(2, 160, 2, 1, 16), Case(2, 150, 2, 2, 8, prefix=40, each=20))


def forest_batch(
    rows: int, length: int, prefix: int, each: int, window: int = 0
) -> tuple[Batch, prefix_tree.Counts]:
    """Draw rows of sequences of about `each` tokens after a prefix that the row's sequences share.

    Four tokens of each sequence are predicted. Returns the batch, and the counts of its tokens.
    """
    rng, drawn = np.random.default_rng(0), []
    for _ in range(rows):
        head, sequences, used = rng.integers(5, 60, prefix), [], prefix
        while used < length:
            tokens = int(each * rng.uniform(0.7, 1.3)) if each else length - prefix
            if used + tokens > length:
                break
            of = np.r_[head, rng.integers(5, 60, tokens)].astype(np.int32)
            sequences.append(prefix_tree.TokenSequence(of, len(of) - 4))
            used += tokens
        drawn.append([sequences[i] for i in prefix_tree.order(sequences)])
    entries = max(map(prefix_tree.num_entries, drawn))
    windows = ((window, None),) if window else None
    batch = prefix_tree.build(drawn, rows, length, entries, window_blocks=windows)
    return batch, prefix_tree.count(drawn)


def seen_pairs(batch: Batch) -> int:
    """Count the pairs of a query and a key which it sees."""
    rows, length = batch.visible_until_BT.shape
    return int(batch.visible_until_BT.sum()) - rows * length * (length - 1) // 2


def candidates(platform: str) -> dict[str, tuple]:
    """Name the candidates, and the kernels' tunings, each with what `mask_by` takes."""
    named: dict[str, tuple] = {name: (name, None) for name in choices.CANDIDATES}
    if platform in TUNINGS:
        module = importlib.import_module(tree_attention.MODULES[platform])
        named |= {
            f"pallas {' '.join(map(str, sizes))}": ("pallas", module.Tuning(*sizes))
            for sizes in TUNINGS[platform]
        }
    return named


def mask_by(name: str, tuning, batch: Batch, config: DecoderConfig, dtype):
    """Make the mask that `attention.attend` takes, for one candidate.

    Raises:
      NotImplementedError: the candidate does not take such inputs.
    """
    platform = jax.devices()[0].platform
    on_cpu = platform == "cpu"
    inputs = Inputs(config.head_dim, jnp.dtype(dtype), Scores.of(config))
    why = choices.why_not(name, platform, inputs)
    if why and (not on_cpu or why == library.NOT_INSTALLED):  # on CPUs, others are tried in XLA
        raise NotImplementedError(why)
    if name == "xla":
        return attention_mask.make_mask(batch, config)
    if name == "pallas":
        module = importlib.import_module(tree_attention.MODULES["gpu" if on_cpu else platform])
        kernels = tree_attention.Kernels(module, tuning, interpret=on_cpu)
        return tree_attention.kernel_mask(batch, kernels, inputs, config.windows)
    return library.whole_mask(batch, name, config.windows, on_cpu)


def attend_by(case: Case, batch: Batch, name: str, tuning, dtype) -> Callable:
    """Return attention of a case as a function of query, key and value, by one candidate."""
    config = case.config()
    mask = mask_by(name, tuning, batch, config, dtype)

    def attend(query, key, value):
        return attention.attend(query, key, value, mask, Scores.of(config))

    return attend


def with_gradients(attend: Callable) -> Callable:
    """Return a compiled function of (query, key, value, d_out), to the output and gradients."""

    def run(query, key, value, d_out):
        out, back = jax.vjp(attend, query, key, value)
        return out, *back(d_out)

    return jax.jit(run)


def whole(case: Case, batch: Batch) -> Callable:
    """Return attention with the whole mask, in float32."""
    token_T = jnp.arange(case.length)
    until_BT = jnp.asarray(batch.visible_until_BT)
    seen_BTT = sees(token_T[None, :, None], token_T[None, None], until_BT[:, None])
    if case.window:
        position_BT = jnp.asarray(batch.positions_BT)
        seen_BTT &= in_window(position_BT[:, :, None], position_BT[:, None], case.window)

    def attend(query, key, value):
        exact = functools.partial(jnp.einsum, precision="highest")
        key, value = (jnp.repeat(x, case.heads // case.kv_heads, axis=2) for x in (key, value))
        scores = exact("BTNH,BSNH->BNTS", query, key) * case.head**-0.5
        weights = jax.nn.softmax(jnp.where(seen_BTT[:, None], scores, -jnp.inf), axis=-1)
        return exact("BNTS,BSNH->BTNH", weights, value)

    return attend


def errors(spec: Spec) -> Iterator[Row]:
    """Compare every candidate with the whole mask: norms of differences, relative."""
    for case in TINY if spec.tiny else EXACT:
        batch = case.batch()
        want = with_gradients(whole(case, batch))(*case.arrays(jnp.float32))
        for dtype in ("float32", "bfloat16"):
            for name in choices.CANDIDATES:
                row = {"table": ERRORS, "case": case.name(), "dtype": dtype, "by": name}
                yield attempt(row, functools.partial(_errors_of, case, batch, name, dtype, want))


def _errors_of(case: Case, batch: Batch, name: str, dtype: str, want: list[jax.Array]) -> Row:
    got = with_gradients(attend_by(case, batch, name, None, dtype))(*case.arrays(dtype))
    found = {}
    for of, a, b in zip(("out", "d_query", "d_key", "d_value"), got, want, strict=True):
        error = jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)
        found[of] = f"{float(error):.1e}"
    return found


def speeds(spec: Spec) -> Iterator[Row]:
    """Time every candidate in bfloat16, beside JAX's own attention with a causal mask."""
    named = {PLAIN: (PLAIN, None)} | candidates(jax.devices()[0].platform)
    for case in TINY[1:] if spec.tiny else SIZES:
        batch = case.batch()
        for name, (by, tuning) in named.items():
            row = {"table": SPEEDS, "case": case.name(), "by": name}
            yield attempt(row, functools.partial(_speed_of, case, batch, by, tuning, spec.tiny))


def _speed_of(case: Case, batch: Batch, by: str, tuning, tiny: bool) -> Row:
    dtype, rounds = ("float32", 1) if tiny else ("bfloat16", 10)
    inputs = case.arrays(dtype)
    attend = _causal if by == PLAIN else attend_by(case, batch, by, tuning, dtype)
    forward, both = jax.jit(attend), with_gradients(attend)
    ahead = seconds_of(lambda: forward(*inputs[:3]), jax.block_until_ready, rounds)
    back = seconds_of(lambda: both(*inputs), jax.block_until_ready, rounds)
    flops = 4 * case.heads * case.head * seen_pairs(batch)
    return {
        "forward ms": round(ahead * 1e3, 3),
        "and backward ms": round(back * 1e3, 3),
        "TFLOP/s needed": f"{flops / ahead / 1e12:.1f} {3.5 * flops / back / 1e12:.1f}",
    }


def _causal(query, key, value):
    attend = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    if jax.devices()[0].platform == "gpu":
        return attend(query, key, value, implementation="cudnn")
    return attend(query, key, value)


if __name__ == "__main__":
    with jax.set_mesh(mesh_lib.make_mesh(config_lib.get_config().mesh, jax.devices()[:1])):
        serve(errors, speeds)

"""The architecture of a decoder: its sizes, and the adapters that are trained beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jft.batch import PackingRules


@dataclass(frozen=True, slots=True)
class Adapters:
    """Low-rank changes of some projections, trained while the rest is frozen.

    W becomes W + alpha / rank * up @ down (LoRA: Hu et al. 2021, arXiv 2106.09685); with `dora`
    the weights of each output have a trained norm, too (DoRA: Liu et al. 2024, arXiv 2402.09353).

    Attributes:
      rank: J, the inner dimension.
      alpha: numerator of the scale above.
      targets: the projections that have an adapter: some of `query`, `key`, `value`, `out`, `gate`,
        `up`, `down`.
      dora: whether magnitudes are trained.
      base: the type of frozen parameters: float32, bfloat16, or int8. With int8 the kernels of the
        layers are int8 numbers with a scale for each output, and all else is bfloat16.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dora: bool
    base: str

    @property
    def dtype(self) -> str:
        """The type of frozen parameters that are not int8 numbers."""
        return "bfloat16" if self.base == "int8" else self.base

    @property
    def scale(self) -> float:
        """The factor of `up @ down`."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class Rope:
    """The frequencies of a rotary embedding, and a factor of what it returns.

    Attributes:
      theta: base of the frequencies.
      factors: a divisor of each frequency, by which sequences longer than those of training are
        brought into reach; empty: none.
      scale: factor of sine and cosine, and so of queries and keys.
      long_factors: divisors instead of `factors` in sequences that are longer than `long_after`;
        empty: none.
      long_after: tokens.
    """

    theta: float = 10000.0
    factors: tuple[float, ...] = ()
    scale: float = 1.0
    long_factors: tuple[float, ...] = ()
    long_after: int = 0


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Differences between the layers of one model, besides their parameters.

    Attributes:
      window: queries see keys of fewer than this many positions before them; 0: of all.
      rope: the rotary embedding of queries and keys; None: they are not rotated.
    """

    window: int = 0
    rope: Rope | None = Rope()


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of a decoder, and the switches in which families of models differ.

    Attributes:
      vocab_size: V.
      embed_dim: D.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key-value heads.
      head_dim: H.
      mlp_dim: F.
      layers: the kind of every layer, L of them; one alone is that of all.
      rotated_dim: the first dimensions of a head, which are rotated; 0: all.
      activation: of the gate: `silu`, or `gelu_tanh`, the approximation by a hyperbolic tangent.
      qkv_bias: biases on query, key and value projections.
      out_bias: a bias on the projection of attention outputs.
      mlp_bias: biases on gate, up and down projections.
      norms: where a layer has norms: `before` attention and feed-forward layer, `after` them, ahead
        of the residual sum, or `both`.
      query_key_norm: how queries and keys are normalized before they are rotated: `head`, each head
        by itself, or `heads`, all together; empty: they are not.
      norm_eps: added to the mean square in norms.
      norm_offset: added to the weights of norms.
      norm_float32: multiply by the weights of norms in float32, and not in the type of activations.
      embed_scale: factor of the embeddings.
      residual_scale: factor of what attention and feed-forward layer add.
      score_scale: factor of attention scores; 0: 1 / sqrt(H).
      score_cap: c of c * tanh(score / c), which bounds attention scores; 0: none.
      logit_scale: factor of logits.
      logit_cap: likewise c for logits; 0: none.
      tied_head: the head's kernel is the embedding.
      max_positions: the longest sequence the model was trained on.
      adapters: trained instead of all parameters; None: there are none.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    layers: tuple[LayerKind, ...] = (LayerKind(),)
    rotated_dim: int = 0
    activation: str = "silu"
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    norms: str = "before"
    query_key_norm: str = ""
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    norm_float32: bool = False
    embed_scale: float = 1.0
    residual_scale: float = 1.0
    score_scale: float = 0.0
    score_cap: float = 0.0
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    tied_head: bool = True
    max_positions: int = 2048
    adapters: Adapters | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The size of the vocabulary, and the longest sequence that it was trained on."""
        return self.vocab_size, self.max_positions

    @property
    def windows(self) -> tuple[int, ...]:
        """The distinct windows of layers; 0 stands for none."""
        return tuple(dict.fromkeys(kind.window for kind in self.layers))

    @property
    def packing_rules(self) -> PackingRules:
        """The ways in which it treats longer sequences differently."""
        return PackingRules(
            self.windows, max((rope.long_after for rope in self.ropes if rope), default=0)
        )

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The distinct rotary embeddings of layers."""
        return tuple(dict.fromkeys(kind.rope for kind in self.layers))

    def by_layer(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices in `windows` and in `ropes` of each layer, [L] both."""
        layers = self.layers * (self.num_layers // len(self.layers))
        window_L = np.array([self.windows.index(kind.window) for kind in layers], np.int32)
        return window_L, np.array([self.ropes.index(kind.rope) for kind in layers], np.int32)

    def size(self, dim: str) -> int:
        """Return the size of a dimension, such as `D`."""
        return {
            "V": self.vocab_size,
            "D": self.embed_dim,
            "L": self.num_layers,
            "N": self.num_heads,
            "K": self.num_kv_heads,
            "H": self.head_dim,
            "F": self.mlp_dim,
            "J": self.adapters.rank if self.adapters else 0,
        }[dim]

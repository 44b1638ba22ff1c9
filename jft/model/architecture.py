"""The architecture of a decoder: its sizes, and the adapters that are trained beside it."""

from __future__ import annotations

from dataclasses import dataclass


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
class DecoderConfig:
    """The shape of a decoder.

    Attributes:
      vocab_size: V.
      embed_dim: D.
      num_layers: L.
      num_heads: N, query heads.
      num_kv_heads: K, key-value heads.
      head_dim: H.
      mlp_dim: F.
      norm_eps: added to the mean square in norms.
      rope_theta: base of the rotary frequencies.
      rope_factors: head_dim / 2 divisors of the rotary frequencies (Llama-3 or linear scaling);
        empty: none.
      tied_head: the head's kernel is the embedding.
      attention_bias: biases on query, key, value and output projections, all four.
      mlp_bias: biases on gate, up and down projections.
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
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_factors: tuple[float, ...] = ()
    tied_head: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    max_positions: int = 2048
    adapters: Adapters | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """The size of the vocabulary, and the longest sequence that it was trained on."""
        return self.vocab_size, self.max_positions

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

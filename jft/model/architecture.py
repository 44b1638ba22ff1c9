"""What a decoder is made of: its sizes, and what is added to it for training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Adapters:
    """Low-rank changes of some projections, trained while the rest is frozen.

    W becomes W + alpha / rank * up @ down (LoRA: Hu et al. 2021, arXiv 2106.09685); with `dora`
    each of its outputs has a trained length, too (DoRA: Liu et al. 2024, arXiv 2402.09353).

    Attributes:
      rank: J, the inner dimension.
      alpha: as above.
      targets: the projections: of `query`, `key`, `value`, `out`, `gate`, `up`, `down`.
      dora: as above.
      base: the type that the rest is held in: float32, bfloat16, or int8: the kernels of the
        layers as int8 numbers with a step for each output, all else in bfloat16.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dora: bool
    base: str

    @property
    def dtype(self) -> str:
        """Of what is frozen, int8 numbers aside."""
        return "bfloat16" if self.base == "int8" else self.base

    @property
    def scale(self) -> float:
        """By which the product of the two matrices is multiplied."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The shape of a decoder.

    Attributes:
      rope_theta: base of the rotary frequencies.
      rope_factors: head_dim / 2 divisors of the rotary frequencies (Llama-3 or linear scaling);
        empty: none.
      tied_head: the head's kernel is the embedding.
      attention_bias: biases on query, key, value and output projections.
      max_positions: the longest sequence the model was trained on.
      adapters: what is trained instead of all parameters; None: nothing.
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
        """How many tokens it knows, and the longest sequence it was made for."""
        return self.vocab_size, self.max_positions

    def size(self, dim: str) -> int:
        """The size of the dimension that the letter names."""
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

"""The same steps by PyTorch and Transformers, on the same device: run by a Python that has them.

    PEER -m benchmarks.accelerator.torch_side SPEC

Products are bfloat16 on GPUs, weights and optimizer float32, as in jft.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks import torch_worker
from benchmarks.accelerator.part import Row, Spec, attempt, serve
from benchmarks.accelerator.programs import STEPS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = Path(__file__).parent.parent.parent / "jft" / "checkpoints" / "families" / "shapes"
# Model, layers (0: all), rows, their length: as `steps.CASES`.
CASES = (("smollm2-135m", 0, 16, 2048), ("llama-3.2-1b", 0, 8, 2048), ("llama-2-7b", 8, 4, 2048))
TINY = (("llama-tiny", 1, 2, 128),)
# Tokens of the sequences of packed rows.
EACH = 75


def model_of(name: str, layers: int, attention: str) -> transformers.PreTrainedModel:
    """Draw a model of a published shape."""
    described = json.loads((SHAPES / f"{name}.json").read_text())
    described |= {"num_hidden_layers": layers} if layers else {}
    described["attn_implementation"] = attention
    config = transformers.LlamaConfig(**described)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return transformers.LlamaForCausalLM(config).train()


def steps(model, micro: int, tokens: np.ndarray, positions: np.ndarray | None) -> Row:
    """Time steps over rows of tokens, of which the last four of each row are predicted.

    Args:
      model: the model.
      micro: rows that are computed at once.
      tokens: [rows, tokens].
      positions: of each token in its sequence, where rows are packed.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=DEVICE == "cuda")
    ids = torch.tensor(tokens, device=DEVICE)
    labels = ids.clone()
    labels[:, :-4] = torch_worker.NO_TARGET
    places = {} if positions is None else {"position_ids": torch.tensor(positions, device=DEVICE)}

    def step() -> float:
        total = 0.0
        for at in range(0, len(ids), micro):
            here = slice(at, at + micro)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
                given = {name: x[here] for name, x in places.items()}
                loss = model(input_ids=ids[here], labels=labels[here], **given).loss
            loss = loss * micro / len(ids)
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        return total

    for _ in range(3):
        loss = step()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    seconds = sorted(times)[2]
    peak = torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else 0.0
    return {
        "step ms": round(seconds * 1e3, 2),
        "tokens/s": round(ids.numel() / seconds),
        "peak GB": round(peak, 2) if peak else "not told",
        "loss": round(loss, 4),
    }


def shape_steps(case: tuple, by: str) -> Row:
    """Time steps of a drawn model, on rows of one sequence or, for packed kernels, of many."""
    name, layers, rows, length = case
    packed = by.endswith("packed")
    attention = by.split()[0] if packed else "sdpa"
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model: Callable = model_of(name, layers, attention)
    if by == "sdpa, compiled":
        model = torch.compile(model)
    tokens = np.random.default_rng(0).integers(5, 200, (rows, length))
    positions = np.tile(np.arange(length) % EACH, (rows, 1)) if packed else None
    return steps(model, rows, tokens, positions)


def recipe(spec: Spec, work: str) -> Row:
    """Time the paper's recipe on its data: padded rows, demonstrations in every one of them."""
    rounds = 12  # of the schedule's
    do_round = torch_worker.prepare(
        {
            "work": work, "model": spec.model, "data": spec.data, "rounds": STEPS, "threads": 4,
            "device": DEVICE, "peer_batch": 16,
        }
    )  # fmt: skip
    losses, times = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        losses += do_round()
        times.append(time.perf_counter() - began)
    return {
        "step ms": round(sorted(times)[rounds // 2] * 1e3, 2),
        "losses": " ".join(f"{loss:.4f}" for loss in losses[:4]),
    }


def rows(spec: Spec) -> Iterator[Row]:
    """Measure the recipe, then steps of drawn models."""
    for work, shots in (("ft", 0), ("fticl", 4)) if not spec.tiny else ():
        row = {"table": "f. PyTorch: steps of 16 examples", "shots": shots}
        yield attempt(row, functools.partial(recipe, spec, work))
    ways = ("sdpa", "sdpa, compiled", "flash_attention_2 packed", "flex_attention packed")
    for case in TINY if spec.tiny else CASES:
        for by in ways[:1] if spec.tiny else ways:
            kind = f"packed {EACH}" if by.endswith("packed") else "plain"
            row = {
                "table": "f. Steps of PyTorch",
                "model": f"{case[0]}{f', {case[1]} layers' * bool(case[1])}",
                "rows": f"{case[2]} x {case[3]}, {kind}",
                "by": by,
            }
            yield attempt(row, functools.partial(shape_steps, case, by))


if __name__ == "__main__":
    serve(rows)

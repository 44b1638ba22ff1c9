"""The cost of a training step by shots, examples, lengths and the model's size.

    python -m benchmarks.scaling --model=DIR --data=DIR [--rounds=3] [--out=scaling.svg]

Each series changes one thing about a step of FTICL on PAWS, or, for lengths, of FT on XSum. Its law
is a line through the medians: seconds of a step over the tokens that it computes or, for the sizes
of models, over their parameters.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import command, jft_worker
from jft import config as config_lib
from jft.checkpoints.session import open_session
from jft.data import prefix_tree
from jft.data import train_batches as batches_lib
from jft.model import decoder as decoder_lib

# Layers, width, heads, key-value heads, and feed-forward width of SmolLM2 135M and 360M (Allal et
# al. 2025, arXiv 2502.02737), the former also with fewer layers.
SIZES = ((8, 576, 9, 3, 1536), (16, 576, 9, 3, 1536), (30, 576, 9, 3, 1536), (32, 960, 15, 5, 2560))


class Point(NamedTuple):
    """A measured step.

    Attributes:
      value: value of the quantity that the series changes.
      sequence_tokens: tokens of the examples with their demonstrations.
      tokens: tokens that are computed, padding included; what is shared counts once.
      parameters: parameters of the model's layers.
      seconds: median of the seconds of a step.
    """

    value: int
    sequence_tokens: float
    tokens: float
    parameters: int
    seconds: float


class Law(NamedTuple):
    """A line, `fixed + each * x` seconds; `fit` is the share of variance that it explains."""

    fixed: float
    each: float
    fit: float


def law(x: list[float], seconds: list[float]) -> Law:
    """Fit a line by least squares."""
    each, fixed = np.polyfit(x, seconds, 1)
    left = np.var(seconds - (fixed + each * np.asarray(x)))
    return Law(float(fixed), float(each), float(1 - left / np.var(seconds)))


def series(model: str, data: str, rounds: int) -> Iterator[tuple[str, Point]]:
    """Measure all points, each with the name of its series."""
    xsum = {"task": "summary", "train": "xsum_train_2000"}
    for shots in (0, 1, 2, 4, 6):
        yield "shots", measure(_config(model, data, rounds, shots=shots), shots)
    for size in (4, 8, 16, 32, 64):
        yield "examples a step", measure(_config(model, data, rounds, batch_size=size), size)
    for length in (64, 128, 256, 512):
        config = _config(model, data, rounds, batch_size=4, max_length=length, **xsum)
        yield "longest sequence", measure(config, length)
    for length in (512, 1024, 2048):
        config = _config(model, data, rounds, shots=4, row_length=length)
        yield "row length", measure(config, length)
    for shape in SIZES:
        yield "model", measure(_config(model, data, rounds), shape[0] * shape[1], shape)


def _config(model: str, data: str, rounds: int, batch_size: int = 16, **of_data):
    config = config_lib.get_config()
    config.model.path, config.data.root = model, data
    config.data.task, config.data.train, config.data.shuffle = (
        "detection",
        ("paws_train_2000",),
        False,
    )
    for name, value in of_data.items():
        setattr(config.data, name, value)
    config.train.batch_size, config.train.steps = batch_size, rounds + 1
    return config


def measure(config: config_lib.Config, value: int, shape: tuple[int, ...] | None = None) -> Point:
    """Time the steps of a run; with a shape, those of a random model of that shape."""
    session = open_session(config)
    mesh, dtype = session.mesh, session.dtype
    decoder, params = session.model.load(mesh)
    batches = batches_lib.plan_run(config, session.tokenizer, *session.packing)
    if shape:
        layers, width, heads, kv_heads, mlp = shape
        decoder = dataclasses.replace(
            decoder, num_layers=layers, embed_dim=width, num_heads=heads, num_kv_heads=kv_heads,
            mlp_dim=mlp,
        )  # fmt: skip
        params = decoder_lib.init(decoder, jax.random.key(0))
    compile_all, do_round = jft_worker.trainer(config, batches, decoder, params, mesh, dtype)
    compile_all()
    do_round()
    seconds = []
    for _ in range(batches.steps - 1):
        began = time.monotonic()
        do_round()
        seconds.append(time.monotonic() - began)
    counts = [prefix_tree.count(step.sequences) for step in batches.packed]
    computed = sum(n * shape.rows * shape.row_length for shape, n in batches.micro_batches.items())
    return Point(
        value,
        statistics.mean(c.sequence_tokens for c in counts),
        computed / batches.steps,
        sum(x.size for x in jax.tree.leaves(params["layers"])),
        statistics.median(seconds),
    )


def sentence(name: str, points: list[Point]) -> str:
    """Word the law of a series."""
    seconds = [point.seconds for point in points]
    if name == "model":
        found = law([point.parameters / 1e6 for point in points], seconds)
        return f"{found.fixed:.2f} s + {found.each * 1e3:.2f} ms per million parameters"
    found = law([point.tokens for point in points], seconds)
    return (
        f"{found.fixed:.2f} s + {found.each * 1e3:.2f} ms per computed token (R2 {found.fit:.3f})"
    )


def draw(found: dict[str, list[Point]], file: Path) -> None:
    """Plot a panel for each series: seconds of a step, and what they would be without sharing."""
    from matplotlib import figure

    picture = figure.Figure(figsize=(3 * len(found), 3), layout="constrained")
    axes = picture.subplots(1, len(found), sharey=True)
    for panel, (name, points) in zip(axes, found.items(), strict=True):
        x = [str(point.value) for point in points]
        if name == "model":
            x = [f"{point.parameters / 1e6:.0f}M" for point in points]
        shared = [max(1.0, point.sequence_tokens / point.tokens) for point in points]
        unshared = [point.seconds * times for point, times in zip(points, shared, strict=True)]
        panel.plot(x, [point.seconds for point in points], "o-", label="jft")
        if name != "model":
            panel.plot(x, unshared, "o--", color="0.6", label="nothing shared, as fast")
        panel.set_xlabel("parameters of the layers" if name == "model" else name)
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of a step")
    axes[0].legend(frameon=False, fontsize="small")
    picture.savefig(file)


def main() -> None:
    """Print a line for each point and the law of each series, and draw them."""
    parser = command.parser("scaling", __doc__)
    parser.add_argument("--rounds", type=command.positive, default=3, help="steps that are timed")
    parser.add_argument("--out", type=Path, default=Path("scaling.svg"), help="the plot")
    args = parser.parse_args()
    found: dict[str, list[Point]] = {}
    print("| what | value | tokens of its sequences | computed | s a step |\n|---|---|---|---|---|")
    for name, point in series(args.model, str(args.data), args.rounds):
        found.setdefault(name, []).append(point)
        value, sequence_tokens, tokens, _, seconds = point
        print(
            f"| {name} | {value} | {sequence_tokens:.0f} | {tokens:.0f} | {seconds:.2f} |",
            flush=True,
        )
    for name, points in found.items():
        print(f"\n{name}: {sentence(name, points)}", end="")
    print()
    draw(found, args.out)


if __name__ == "__main__":
    command.run(main)

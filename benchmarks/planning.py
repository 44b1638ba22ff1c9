"""The share of padding in planned runs of the paper, and the time to plan a large run.

    python -m benchmarks.planning --model=DIR --data=DIR [--sequences=1000000]

The model is needed for its tokenizer. The large run is of random sequences, 16 a step, whose
lengths are as uneven as those of questions and answers.
"""

from __future__ import annotations

import resource
import time

import numpy as np

from benchmarks import command, jft_worker
from jft import config as config_lib
from jft.data import packing, prefix_tree
from jft.data import train_batches as batches_lib

DEVICES = (1, 8)
SHOTS = {"sentiment": (0, 2, 4), "detection": (0, 2, 4), "inference": (0, 3, 5)}


def padding(config: config_lib.Config, shards: int) -> float:
    """Compute the share of a run's computed tokens that is padding."""
    batches = batches_lib.plan_run(config, jft_worker.load_tokenizer(config), shards)
    computed = sum(n * shape.rows * shape.row_length for shape, n in batches.micro_batches.items())
    needed = sum(prefix_tree.count(step.sequences).row_tokens for step in batches.packed)
    return 1 - needed / computed


def random_steps(number: int, examples: int = 16) -> list[list[prefix_tree.TokenSequence]]:
    """Draw steps of sequences that share nothing."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4, 0.5, number), 8, 1000).astype(int)
    sequences = [
        prefix_tree.TokenSequence(rng.integers(0, 49000, length, np.int32), length - 3)
        for length in lengths
    ]
    return [sequences[at : at + examples] for at in range(0, number, examples)]


def main() -> None:
    """Print a table for the paper's training sets, and a line for the large run."""
    parser = command.parser("planning", __doc__)
    parser.add_argument(
        "--sequences", type=command.positive, default=1_000_000, help="of the large run"
    )
    args = parser.parse_args()
    print("| training set | shots |", *(f"padding, device count {n} |" for n in DEVICES))
    print("|---|---|---|---|")
    for file in sorted(args.data.glob("*/*_train_2000.json")):
        for shots in SHOTS.get(file.parent.name, (0, 1, 2)):
            config = config_lib.get_config()
            config.model.path, config.data.root = args.model, str(args.data)
            config.data.task, config.data.train = file.parent.name, file.stem
            config.data.shots = shots
            shares = (f"{padding(config, n):.1%} |" for n in DEVICES)
            print(f"| {file.stem} | {shots} |", *shares, flush=True)
    steps = random_steps(args.sequences)
    tokens = sum(len(sequence.tokens) for step in steps for sequence in step)
    for shards in DEVICES:
        before, began = _peak_bytes(), time.monotonic()
        packing.pack_steps(
            steps, packing.Budget(shards, config_lib.get_config().train.micro_batch_tokens)
        )
        seconds, more = time.monotonic() - began, _peak_bytes() - before
        print(
            f"\n{args.sequences} sequences of {tokens / 1e6:.0f} million tokens, device "
            f"count {shards}: "
            f"{seconds:.1f} s, {more / tokens:.1f} bytes a token beside them",
            end="",
        )
    print()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    command.run(main)

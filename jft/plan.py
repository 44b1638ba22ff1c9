"""Say whether a run fits a slice of accelerators, and what it costs there, without having them.

    python -m jft.plan --config=configs/finetune.py --topology=v5e:4x4 [--search]
        [--config.section.key=value ...]

It plans the data, compiles the training step for these chips, and prints what each needs of its
memory, what they send each other, and how long a step takes at the least. --search looks for the
mesh, micro-batch and rematerialization that are fastest among those that fit. Where nothing does,
the exit code is 1. TPUs (v4, v5e, v5p, v6e) need libtpu, jft's extra `plan`; for h100:8 and the
like, where they are not here, v5p TPUs stand in, or CPUs without libtpu.
model.path may be a folder with nothing but config.json, or shape:llama-2-7b and the like,
of which an unknown name lists all.
"""

from __future__ import annotations

import sys

from jft.config import Config
from jft.runtime import cli


def main(config: Config, topology: str, search: bool) -> None:
    """Print the plan of a run."""
    from jft.planning import planner  # here, so that --help need not wait for jax

    sys.exit(not planner.plan_on_slice(config, topology, search))


if __name__ == "__main__":
    cli.run(main, __doc__, {"topology": "", "search": False})

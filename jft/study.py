"""Run a grid of trainings, score every model on every test set, and report what changed.

    python -m jft.study --config=configs/paper.py --workdir=DIR [--config.section.key=value ...]

Stop it whenever you like: the same command goes on, and finished parts are not done again.
DIR gets runs/, scores/ and report/.
"""

from __future__ import annotations

from jft import cli
from jft.config import Config


def main(config: Config, workdir: str) -> None:
    """Run a study, or go on with it, in a workdir."""
    from jft.studies import run  # here, so that --help need not wait for the data's libraries

    run.run(config, workdir)


if __name__ == "__main__":
    cli.run_with_config(main, __doc__)

"""Run a grid of trainings, score every model on every test set, and report what changed.

    python -m jft.study --config=configs/paper.py --workdir=DIR [--config.section.key=value ...]

Stop it whenever you like: the same command goes on, and finished parts are not done again.
With --dry_run it checks all data and says which jobs there are and how long they will take.
DIR gets runs/, scores/ and report/; jobs.jsonl and dry_run.json; configs/, one for each job.
"""

from __future__ import annotations

from jft.config import Config
from jft.runtime import cli


def main(config: Config, workdir: str, dry_run: bool) -> None:
    """Run a study, or resume it, in a workdir; a dry run says what it would take."""
    # Imported here, so that --help need not wait for jax; and one at a time, since a study itself
    # must not start the devices, which its jobs need.
    if dry_run:
        from jft.studies import dry_run as estimates

        estimates.dry_run(config, workdir)
    else:
        from jft.studies import run

        run.run_study(config, workdir)


if __name__ == "__main__":
    cli.run(main, __doc__, {"workdir": "", "dry_run": False})

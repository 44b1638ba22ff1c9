"""Score a model on datasets x shots x prompts: a jft run, a Hugging Face model or a GGUF file.

    python -m jft.eval --config=configs/evaluate.py --workdir=DIR [--config.section.key=value ...]

Run the same command again to go on after an interruption: finished cells are not scored again.
With --dry_run it checks the data, shows the plan and loads no model. Where the cluster does not say
who takes part, start it everywhere with --coordinator=HOST:PORT (of process 0), --processes=N,
--process=I (from 0), and --wait=SECONDS until all have come.
DIR gets config.json, model.json (the model, and how it was trained), rows.jsonl (one object per
item), cells.jsonl (one per cell of the grid), and data_report.html and .json.
"""

from __future__ import annotations

from jft.config import Config
from jft.runtime import cli


def main(config: Config, workdir: str, dry_run: bool) -> None:
    """Score a model in a workdir, or resume scoring there."""
    from jft.evaluation import loop  # here, so that --help need not wait for jax

    loop.evaluate(config, workdir, dry_run)


if __name__ == "__main__":
    cli.run(main, __doc__, {"workdir": "", "dry_run": False}, distributed=True)

"""Fine-tune a language model, plainly (FT) or with demonstrations in the prompt (FTICL).

    python -m jft.train --config=configs/finetune.py --workdir=DIR [--config.section.key=value ...]

Run the same command again to go on after an interruption. SIGTERM and Ctrl-C save and end.
With --dry_run it checks the data, shows the plan and loads no model. Where the cluster does not say
who takes part, start it everywhere with --coordinator=HOST:PORT (of process 0), --processes=N,
--process=I (from 0), and --wait=SECONDS until all have come.
DIR gets config.json, model.json, tokenizer/, metrics.jsonl, data_report.html and .json,
trained_on.txt, probes.jsonl and .npz, drift.json, tensorboard/ and checkpoints/.
"""

from __future__ import annotations

from jft.config import Config
from jft.runtime import cli


def main(config: Config, workdir: str, dry_run: bool) -> None:
    """Train in a workdir, or resume training there."""
    from jft.training import loop  # here, so that --help need not wait for jax

    loop.train(config, workdir, dry_run)


if __name__ == "__main__":
    cli.run(main, __doc__, {"workdir": "", "dry_run": False}, distributed=True)

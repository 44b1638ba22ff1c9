"""Score a model on every test set of a task, with and without demonstrations.

    python -m jft.eval --config=configs/evaluate.py --workdir=runs/eval-ft \\
        --config.model.path=runs/ft

`--config.data.root` and `--config.eval.datasets` choose the data; finished cells are not redone.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.eval.shots = (0, 4)
    return config

"""Low-rank adapters on one training set: the base stays as it is, and an optimizer step is small.

    python -m jft.train --config=configs/lora.py --workdir=runs/lora \\
        --config.model.path=HuggingFaceTB/SmolLM2-135M-Instruct \\
        --config.data.train=gadgets_train_480

`--config.lora.base=int8` holds the base in a quarter of the memory; `--config.lora.dora=True`
trains lengths, too. `python -m jft.export runs/lora --out=exports/lora --adapters` writes what PEFT
loads.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.optim.lr = 2e-4
    return config

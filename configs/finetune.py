"""The paper's recipe on one training set: every default of the schema.

    python -m jft.train --config=configs/finetune.py --workdir=runs/ft \\
        --config.model.path=HuggingFaceTB/SmolLM2-135M-Instruct \\
        --config.data.train=gadgets_train_480

Any key can be overridden on the command line; `python -m jft.train --help` lists them. With

    --config.data.root=Generalization_of_FT-LLM/data --config.data.task=detection \\
    --config.data.train=paws_train_2000 --config.data.shuffle=False --config.train.steps=4

the losses of SmolLM2-135M-Instruct in float32 are 9.745, 6.196, 4.465 and 3.727.
"""

from jft import config as config_lib


def get_config():
    return config_lib.get_config()

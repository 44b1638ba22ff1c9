"""SmolLM2-135M on mini's product reviews, for two CPU cores: what `launch/quickstart.sh` runs.

    bash launch/quickstart.sh

FT gets better on reviews and loses the rest: on other tasks the probability of the right label
falls from 11 % to 0, and of fifty instructions it follows 2 instead of 22. Four seeds of it give
the same verdict. Demonstrations in training keep more.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.data.task = "sentiment"
    config.data.train = "gadgets_train_480"
    config.train.steps = 24
    config.train.batch_size = 8
    config.optim.lr = 2e-4
    config.checkpoint.every = 0
    config.probe.every, config.probe.limit = 12, 4
    config.eval.datasets = ("gadgets", "films", "village", "errands")
    config.eval.shots = (0, 2)
    return config

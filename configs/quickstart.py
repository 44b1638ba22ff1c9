"""SmolLM2-135M on mini's product reviews, for two CPU cores: what `launch/quickstart.sh` runs.

    bash launch/quickstart.sh

Both models get better on films, which they were not trained on, and lose the other tasks: the
probability that they give the right label there falls from 12 % to 0 and 2 %. Each is trained once;
four seeds of FT gained 6 to 19 points in-domain.
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
    config.eval.limit = 48
    config.eval.batch_tokens = 512
    return config

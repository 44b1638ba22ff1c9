"""A corner of the paper's grid for two CPU cores and an hour: two tasks, two sizes, FT and FTICL.

    python -m jft.study --config=configs/paper_cpu.py --workdir=runs/paper-cpu \\
        --config.data.root=Generalization_of_FT-LLM/data --config.model.path=SmolLM2.gguf

Eight fine-tuned models and the base, on six test sets. It shows how the whole grid works; samples
of this size decide little, and the report says so.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.study.train = ("detection/paws_train_2000", "question/socialqa_train_2000")
    config.study.sizes = (64, 192)
    config.train.epochs = 1.0
    config.train.batch_size = 8
    config.optim.lr = 1e-4
    config.checkpoint.every = 0
    config.probe.every, config.probe.limit = 6, 4
    config.eval.datasets = ("paws", "qqp", "stsb", "socialqa", "sciqa", "tweetqa")
    config.eval.shots = (0, 2)
    config.eval.limit = 24
    config.eval.max_new_tokens = 30
    return config

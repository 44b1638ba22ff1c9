"""A corner of the paper's grid for two CPU cores and 90 minutes: two tasks, FT and FTICL, 3 seeds.

    python -m jft.study --config=configs/paper_cpu.py --workdir=runs/paper-cpu \\
        --config.data.root=Generalization_of_FT-LLM/data --config.model.path=SmolLM2.gguf

Twelve fine-tuned models and the base, on six test sets and the retention panel. Three trainings are
the fewest of which anything is said about a recipe; samples of this size decide little.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.study.train = ("detection/paws_train_2000", "question/socialqa_train_2000")
    config.study.sizes = (192,)
    config.study.seeds = (0, 1, 2)
    config.train.epochs = 1.0
    config.train.batch_size = 8
    config.optim.lr = 1e-4
    config.checkpoint.every = 0
    config.probe.every, config.probe.limit = 6, 4
    config.eval.datasets = ("paws", "qqp", "stsb", "socialqa", "sciqa", "tweetqa")
    config.eval.shots = (0, 2)
    config.eval.limit = 100
    config.eval.max_new_tokens = 30
    return config

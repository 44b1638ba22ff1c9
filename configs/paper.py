"""The paper's grid: five tasks, FT and FTICL, on eighteen test sets, with five seeds of one size.

    python -m jft.study --config=configs/paper.py --workdir=runs/paper \\
        --config.data.root=Generalization_of_FT-LLM/data --config.model.path=MODEL

The data is public: `git clone https://github.com/LHRYANG/Generalization_of_FT-LLM`. The training
recipe is the schema's default: AdamW, 2e-5 to zero, 2 epochs, 16 examples a step, 1024 tokens.
That is 75 fine-tuned models and the base, each scored on 144 cells. `--dry_run` says what it takes.
The paper trains each of its sizes once, which decides nothing about a recipe: for those, add
`--config.study.train= --config.study.seeds=0`, which makes 39 models (XSum has 2,000 rows only).
What the paper's scripts got wrong is handled as BUILD.md says.
"""

from jft import config as config_lib


def get_config():
    config = config_lib.get_config()
    config.model.path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.study.train = (
        *("summary/xsum_train_2000", "question/socialqa_train_2000"),
        *("sentiment/amazon_train_2000", "detection/paws_train_2000"),
        "inference/multinli_train_2000",
    )
    config.study.seeds = (0, 1, 2, 3, 4)
    config.study.task_shots = (
        *("summary=0/1/2", "question=0/1/2"),
        *("sentiment=0/2/4", "detection=0/2/4", "inference=0/3/5"),
    )
    config.eval.datasets = ("all",)
    config.eval.task_shots = (
        *("summary=0/1/2/4", "question=0/1/2/4"),
        *("sentiment=0/2/4/6", "detection=0/2/4/6", "inference=0/3/5/7"),
    )
    config.eval.prompts = (0, 1)
    config.eval.max_length = 4096  # four articles of CNN alone have 1,700 tokens
    return config

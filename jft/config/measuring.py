"""Sections of the config about evaluations, studies, plans and reports."""

# No postponed annotations here: ml_collections reads the types of the fields.
from dataclasses import dataclass

from jft.config.sections import Section, key, runtime_key


@dataclass(slots=True)
class Eval(Section):
    """The grid to score: datasets x shots x demonstration draws x prompts."""

    datasets: tuple[str, ...] = key(
        (),
        "dataset names in data.root, or task:rows as data.train; all: every task's; "
        "empty: all of data.task (what is not named needs demonstrations for its shots)",
    )
    in_domain: tuple[str, ...] = key(
        (), "which of eval.datasets are in-domain, or none; empty: by the training set's name"
    )
    shots: tuple[int, ...] = key((0,), "demonstrations before each item", minimum=0)
    task_shots: tuple[str, ...] = key(
        (), "for tasks that differ, such as question=0/1/2/4,inference=0/3/5/7"
    )
    draws: tuple[int, ...] = key(
        (0,), "demonstrations: 0 = the first k of their file, n = drawn with seed n", minimum=0
    )
    prompts: tuple[int, ...] = key((0,), "indices into prompt_map.json", minimum=0)
    chat: str = key(
        "auto",
        "chat: every task, and the instructions of the retention panel, through the model's chat "
        "template; text: none but conversations; auto: tasks as data.chat says",
        choices=("auto", "text", "chat"),
    )
    limit: int = key(250, "score the first n rows; 0: all", minimum=0)
    retention: tuple[str, ...] = key(
        ("text", "prompts", "choice", "instruction"),
        "parts of the panel of what every model can do; text:rows.jsonl puts rows of your own in "
        "place of a part; empty: none",
    )
    metric: tuple[str, ...] = key(
        (), "main metrics that differ, such as question=exact,choice=acc; empty: by kind of task"
    )
    answer_pattern: str = key(
        "",
        "regular expression that finds the answer in a generation, its last match, of which the "
        "first group counts; empty: the metric pattern is left out",
    )
    max_length: int = key(
        0,
        "longest prompt with its label, in tokens; longer inputs are shortened; 0: as "
        "data.max_length",
        minimum=0,
    )
    max_new_tokens: int = key(60, "longest generation", minimum=1)
    batch_tokens: int = runtime_key(4096, "tokens per device and forward pass", minimum=1)
    cache_tokens: int = runtime_key(
        40960, "tokens whose keys and values a device holds while it generates", minimum=1
    )


@dataclass(slots=True)
class Study(Section):
    """The grid of jft.study: training sets x sizes x shots x seeds, and the base.

    All are `runtime` keys, since a study may grow; each of its jobs has a config of its own.
    """

    train: tuple[str, ...] = runtime_key(
        (), "training sets, as task/name or task:rows; empty: every one in data.root"
    )
    sizes: tuple[int, ...] = runtime_key(
        (0,), "how many examples of each training set; 0: all of them", minimum=0
    )
    shots: tuple[int, ...] = runtime_key(
        (0, 2), "demonstrations in training; 0 = FT, k > 0 = FTICL", minimum=0
    )
    task_shots: tuple[str, ...] = runtime_key((), "for tasks that differ, such as inference=0/3/5")
    seeds: tuple[int, ...] = runtime_key((0,), "each trains the whole grid once more", minimum=0)


@dataclass(slots=True)
class Plan(Section):
    """Price and speed of the chips, for jft.plan."""

    price: float = runtime_key(0.0, "US dollars for a chip and hour; 0: not told", minimum=0)
    utilization: float = runtime_key(
        0.4, "share of a chip's peak that a step reaches, for its cost", minimum=0.001, below=1.01
    )


@dataclass(slots=True)
class Report(Section):
    """The report of jft.study."""

    margin: float = runtime_key(
        2.0, "changes below this many points are taken as too small to matter", minimum=0, below=100
    )

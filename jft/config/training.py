"""Sections of the config that a training is made of."""

# No postponed annotations here: ml_collections reads the types of the fields.
from dataclasses import dataclass

from jft.config.sections import Section, key, runtime_key
from jft.tasks import TASKS

# Projections of a layer that may have an adapter.
PROJECTIONS = ("query", "key", "value", "out", "gate", "up", "down")


@dataclass(slots=True)
class Model(Section):
    """The model to train or to score."""

    path: str = key(
        "",
        "Hugging Face folder, hub id, .gguf file, workdir of jft.train or a step of it "
        "(RUN/checkpoints/40), folder of PEFT's adapters, or random:llama-tiny",
    )
    name: str = key("", "what results call this model; empty: made from the path and the run")
    dtype: str = key(
        "auto",
        "compute type; auto: float32 on CPU, bfloat16 elsewhere; weights stay float32",
        choices=("auto", "float32", "bfloat16"),
    )


@dataclass(slots=True)
class Data(Section):
    """Training rows, and how they become sequences."""

    root: str = key(
        "mini", "folder laid out as the paper's data/, or mini: the suite in this package"
    )
    task: str = key(
        "sentiment", f"the task: {', '.join(TASKS)}, or one that data.template describes"
    )
    train: tuple[str, ...] = key(
        (),
        "training rows, one set or several: a file name without .json under the task; a .json, "
        ".jsonl, .csv or .parquet file, or a pattern of files; hf:NAME[/CONFIG]/SPLIT; "
        "tfds:NAME[/CONFIG]:SPLIT; a task may stand before it, as task:rows",
    )
    weights: tuple[float, ...] = key(
        (),
        "how often each set of data.train counts: shares of all examples, such as 2,1; empty: by "
        "their numbers of rows",
    )
    valid: tuple[str, ...] = key(
        (),
        "rows to judge the run by, which it does not learn: sets, as eval.datasets, or a share of "
        "data.train, such as 0.05; empty: none",
    )
    form: str = key(
        "auto",
        "what the columns of your own rows are: the fields of data.task; messages; prompt and "
        "completion; instruction and output; a question with choices, whose texts or letters are "
        "the answers; or text alone; auto: told by the columns",
        choices=(
            *("auto", "task", "messages", "completion", "instruction"),
            *("choices", "letters", "text"),
        ),
    )
    fields: tuple[str, ...] = key(
        (), "in rows of your own, field=column where they differ, such as input=text,output=label"
    )
    labels: tuple[str, ...] = key(
        (), "in rows of your own, value=label; for a task of your own its labels; empty: text"
    )
    template: str = key("", "prompt with {fields}, instead of prompt_map.json's for data.task")
    chat: str = key(
        "auto",
        "chat: prompts of every task through the model's chat template; auto: of conversations "
        "alone, and plain text in the task's template for all else",
        choices=("auto", "chat"),
    )
    chat_template: str = key("", "file with a chat template in Jinja; empty: the model's own")
    chat_variables: tuple[str, ...] = key(
        (), "variables of the chat template, such as enable_thinking=False"
    )
    system: str = key("", "system message of chats that have none; empty: none")
    loss: str = key(
        "turns",
        "what of a conversation is learned: every turn of the assistant, its last, or all tokens",
        choices=("turns", "last", "all"),
    )
    shots: int = key(
        0, "demonstrations before every training example; 0 = FT, k > 0 = FTICL", minimum=0
    )
    demos: tuple[str, ...] = key(
        (),
        "datasets, or files, whose demonstrations are used for the tasks that they fit; empty: "
        "each set's own",
    )
    demo_mode: str = key(
        "fixed",
        "first k always, drawn for each packed row, or drawn for each example",
        choices=("fixed", "per_row", "per_example"),
    )
    demo_style: str = key(
        "turns",
        "demonstrations in a chat: earlier turns, or text before the question in its message",
        choices=("turns", "text"),
    )
    demo_loss: bool = key(
        False,
        "learn the outputs of demonstrations, too, each once in a step for the same text before it",
    )
    prompt: int = key(0, "index into prompt_map.json", minimum=0)
    answer_tokens: str = key(
        "auto",
        "prompt and answer joined, as one text whose tokens may span both, or their tokens apart; "
        "auto: apart where the end of the template, no space, merges with some labels only",
        choices=("auto", "joined", "apart"),
        before="joined",
    )
    examples: int = key(0, "train on the first n rows of each set; 0: all", minimum=0)
    shuffle: bool = key(True, "shuffle the examples anew each epoch; False: file order")
    seed: int = key(0, "seed of the order, of the demonstrations and of adapters", minimum=0)
    max_length: int = key(
        1024, "longest sequence, in tokens; longer inputs are shortened", minimum=8
    )
    row_length: int = key(
        0, "tokens of a packed row, in blocks of 32; 0: chosen from the lengths", minimum=0
    )


@dataclass(slots=True)
class Train(Section):
    """Length of the training, and the size of a step."""

    steps: int = key(0, "optimizer steps; 0: as many as train.epochs takes", minimum=0)
    epochs: float = key(2.0, "passes over the training rows, when train.steps is 0", minimum=0)
    stop_after: int = key(
        0,
        "end after so many probes without a lower loss of data.valid, or of in-domain probes; 0: "
        "at the last step",
        minimum=0,
    )
    batch_size: int = key(16, "examples per optimizer step", minimum=1)
    micro_batch_tokens: int = runtime_key(
        4096,
        "tokens per device in one forward and backward pass, which sets the memory needed",
        minimum=1,
    )
    remat: str = runtime_key(
        "attention",
        "what the backward pass computes again instead of keeping it: nothing; attention, with "
        "whatever costs as little; or all of a layer",
        choices=("none", "attention", "full"),
    )


@dataclass(slots=True)
class Optim(Section):
    """AdamW."""

    lr: float = key(2e-5, "peak learning rate", minimum=0)
    schedule: str = key(
        "linear", "shape of the decay to zero", choices=("linear", "cosine", "constant")
    )
    warmup_steps: int = key(0, "steps of linear warm-up from zero", minimum=0)
    weight_decay: float = key(0.0, "decoupled weight decay", minimum=0)
    b1: float = key(0.9, "decay of the first moment", minimum=0, below=1)
    b2: float = key(0.999, "decay of the second moment", minimum=0, below=1)
    eps: float = key(1e-8, "added to the root of the second moment", minimum=0)
    clip: float = key(0.0, "global gradient norm limit; 0: none", minimum=0)


@dataclass(slots=True)
class Lora(Section):
    """Train low-rank adapters (LoRA) instead of all weights; they want a larger optim.lr."""

    rank: int = key(
        0, "inner dimension of the adapters; 0: train all weights", minimum=0, below=(1 << 16) + 1
    )
    alpha: float = key(16.0, "adapters count alpha / rank times", minimum=0)
    targets: tuple[str, ...] = key(PROJECTIONS, "which projections have one", choices=PROJECTIONS)
    dora: bool = key(False, "train the length of each output's weights, too (DoRA)")
    base: str = key(
        "auto",
        "how the frozen weights are held; auto: in the type that model.dtype computes in",
        choices=("auto", "bfloat16", "int8"),
    )


@dataclass(slots=True)
class Mesh(Section):
    """Sizes of the device mesh; one may be -1: the devices that the others leave."""

    data: int = runtime_key(-1, "copies of the model, each on its own rows", minimum=-1)
    fsdp: int = runtime_key(1, "shards of the weights, each on its own rows", minimum=-1)
    tensor: int = runtime_key(1, "shards of heads and feed-forward", minimum=-1)


@dataclass(slots=True)
class Checkpoint(Section):
    """Checkpoints: when to save and what to keep."""

    every: int = runtime_key(100, "steps between checkpoints; 0: at the end only", minimum=0)
    grace: float = runtime_key(
        0.0,
        "seconds that a run has to save and end in after SIGTERM, or it gives up; 0: no limit",
        minimum=0,
        below=1e6,
    )
    keep: int = runtime_key(2, "newest checkpoints to keep", minimum=1)
    keep_best: int = runtime_key(
        0,
        "checkpoints to keep beside them, those with the lowest loss of data.valid, or of "
        "in-domain probes",
        minimum=0,
    )


@dataclass(slots=True)
class Probe(Section):
    """Probes: a few test items that are scored during training."""

    every: int = key(
        0, "probe every n steps too, not only before the first and after the last; 0: no", minimum=0
    )
    datasets: tuple[str, ...] = key(
        (), "as eval.datasets; empty: up to three of data.task, and one of every other task"
    )
    limit: int = key(
        8, "items of each dataset; 0: none (rows of data.valid are probed all the same)", minimum=0
    )
    valid: int = key(256, "rows of each set of data.valid; 0: all", minimum=0)
    generations: int = key(
        4,
        "rows of each set of data.valid, where answers are generated, whose generations are "
        "logged; 0: none",
        minimum=0,
    )

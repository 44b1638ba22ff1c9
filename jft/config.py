"""The typed schema of every config file: the only place where a default exists.

A config file returns `get_config()` of this module with its own deltas assigned. A misspelt key or
a wrong type fails at the assignment, in a file and on the command line alike.
"""

# No postponed annotations here: ml_collections reads the types of the fields.
import dataclasses
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass

from jft.errors import UserError
from jft.sections import Section, check_limits, key, key_types, runtime_key, unknown_key
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
    train: str = key(
        "",
        "training rows: a file name without .json under the task; a .json, .jsonl, .csv or "
        ".parquet file; hf:NAME[/CONFIG]/SPLIT; tfds:NAME[/CONFIG]:SPLIT",
    )
    fields: tuple[str, ...] = key(
        (), "in rows of your own, field=column where they differ, such as input=text,output=label"
    )
    labels: tuple[str, ...] = key(
        (), "in rows of your own, value=label; for a task of your own its labels; empty: text"
    )
    template: str = key("", "prompt with {fields}, instead of prompt_map.json's for data.task")
    shots: int = key(
        0, "demonstrations before every training example; 0 = FT, k > 0 = FTICL", minimum=0
    )
    demos: str = key(
        "", "dataset, or file, whose demonstrations are used for data.task; empty: each set's own"
    )
    demo_mode: str = key(
        "fixed",
        "first k always, drawn for each packed row, or drawn for each example",
        choices=("fixed", "per_row", "per_example"),
    )
    prompt: int = key(0, "index into prompt_map.json", minimum=0)
    label_start: str = key(
        "own",
        "where the targets begin if the tokenizer merges the prompt's end with some labels: for "
        "each label where its own tokens do, as in the paper; or for all where the first does",
        choices=("own", "shared"),
    )
    examples: int = key(0, "train on the first n rows; 0: all", minimum=0)
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
        "checkpoints to keep beside them, those with the lowest loss of in-domain probes",
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
    limit: int = key(8, "items of each dataset; 0: no probes", minimum=0)


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
    limit: int = key(250, "score the first n rows; 0: all", minimum=0)
    retention: tuple[str, ...] = key(
        ("text", "prompts", "choice", "instruction"),
        "parts of the panel of what every model can do; text:rows.jsonl puts rows of your own in "
        "place of a part; empty: none",
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


@dataclass(slots=True)
class Config(Section):
    """Everything a run depends on."""

    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    train: Train = dataclasses.field(default_factory=Train)
    optim: Optim = dataclasses.field(default_factory=Optim)
    lora: Lora = dataclasses.field(default_factory=Lora)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
    probe: Probe = dataclasses.field(default_factory=Probe)
    eval: Eval = dataclasses.field(default_factory=Eval)
    study: Study = dataclasses.field(default_factory=Study)
    report: Report = dataclasses.field(default_factory=Report)
    plan: Plan = dataclasses.field(default_factory=Plan)


def get_config() -> Config:
    """Return a config with every default, for config files to change."""
    return Config()


def validate(config: Config) -> None:
    """Check values against the choices and minimums that the schema declares.

    Raises:
      UserError: naming the key, its value and what it may be.
    """
    for path, field, value in keys(config):
        check_limits(path, field, value)
    if not config.model.name.isprintable():
        raise UserError(f"model.name={config.model.name!r}: must be one line of printable text")
    if not config.train.steps and not config.train.epochs:
        raise UserError("train.steps=0 and train.epochs=0: give one of them")
    if config.checkpoint.keep_best and not (config.probe.every and config.probe.limit):
        raise UserError(
            f"checkpoint.keep_best={config.checkpoint.keep_best} goes by probes: give probe.limit, "
            "and a probe.every at which checkpoints are written, too"
        )
    _check_adapters(config.lora)


def _check_adapters(lora: Lora) -> None:
    if not lora.rank and (lora.dora or lora.base != "auto"):
        raise UserError(
            f"lora.dora={lora.dora} and lora.base={lora.base} are of adapters; give lora.rank, too"
        )
    if not lora.rank:
        return
    if not lora.targets:
        raise UserError("lora.targets is empty, so that nothing would be trained")
    if len(set(lora.targets)) < len(lora.targets):
        raise UserError(f"lora.targets={','.join(lora.targets)}: name each of them once")
    if not lora.alpha:
        raise UserError("lora.alpha=0: must be above 0, or adapters would count for nothing")


def keys(config: Config) -> Iterator[tuple[str, dataclasses.Field, typing.Any]]:
    """Iterate over the keys as (dotted path, its field with doc and limits, its value)."""
    for section in dataclasses.fields(config):
        group = getattr(config, section.name)
        for field in dataclasses.fields(group):
            yield f"{section.name}.{field.name}", field, getattr(group, field.name)


def to_dict(config: Config) -> dict:
    """Convert a config to nested dicts, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(tree: dict) -> Config:
    """Convert what `to_dict` returned back to a config."""
    config = Config()
    for section, values in tree.items():
        if section not in key_types(Config):
            raise UserError(unknown_key(section, Config, section))
        for name, value in values.items():
            value = tuple(value) if isinstance(value, list) else value
            setattr(getattr(config, section), name, value)
    return config


def differences(old: Config, new: Config, runtime: bool = False) -> list[str]:
    """List the keys in which two configs differ, as `path: old -> new`.

    Keys that may differ between a run and its resumption are left out, unless `runtime`.
    """
    pairs = zip(keys(old), keys(new), strict=True)
    return [
        f"{path}: {before!r} -> {after!r}"
        for (path, field, before), (_, _, after) in pairs
        if before != after and (runtime or not field.metadata["runtime"])
    ]

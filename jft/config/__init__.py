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

from jft.config.measuring import Eval, Plan, Report, Study
from jft.config.sections import Section, check_limits, key_types, unknown_key
from jft.config.training import Checkpoint, Data, Lora, Mesh, Model, Optim, Probe, Train
from jft.errors import UserError


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
    probed = config.probe.every and (config.data.valid or config.probe.limit)
    for path, number, too in (
        ("checkpoint.keep_best", config.checkpoint.keep_best, " at which checkpoints are written"),
        ("train.stop_after", config.train.stop_after, ", such as 50"),
    ):
        if number and not probed:
            raise UserError(
                f"{path}={number} goes by probes: give data.valid, or probe.limit, and a "
                f"probe.every{too}"
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
    """Convert what `to_dict` returned back to a config, keys that are newer as `before` says."""
    config = Config()
    for path, field, _ in keys(config):
        section, name = path.split(".")
        if field.metadata["before"] is not None and name not in tree.get(section, {}):
            setattr(getattr(config, section), name, field.metadata["before"])
    for section, values in tree.items():
        if section not in key_types(Config):
            raise UserError(unknown_key(section, Config, section))
        for name, value in values.items():
            value = tuple(value) if isinstance(value, list) else value
            if section == "data" and name in ("train", "demos") and isinstance(value, str):
                value = (value,) if value else ()  # of when each named one set
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

"""The record of a trained model: `model.json` beside its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jft.checkpoints.families import read as families
from jft.errors import UserError
from jft.runtime import records


class ModelRecord(NamedTuple):
    """The content of `model.json` beside the checkpoints of a run.

    Attributes:
      description: the content of the model's config.json, adapters left out.
      steps: of the whole run.
      base, base_sha256: the model that it began from: its path, absolute, and its fingerprint then.
      base_step: the step of the base where that is a run; None otherwise.
      data_sha256: of the tokens that it is trained on; empty in older files.
    """

    description: dict[str, Any]
    steps: int
    base: str
    base_sha256: str
    base_step: int | None
    data_sha256: str = ""


def write_record(workdir: Path, saved: ModelRecord) -> None:
    """Write `model.json` beside the checkpoints; adapters are described by `config.json`."""
    records.write(workdir, records.TRAINED_MODEL, saved._asdict())


def read_record(workdir: Path) -> ModelRecord:
    """Read the `model.json` that `write_record` wrote.

    Raises:
      UserError: it is missing or damaged.
    """
    file = workdir / "model.json"
    raw = records.read(workdir, records.TRAINED_MODEL)
    try:
        if "decoder" in raw:
            raw |= {"description": families.describe_llama(raw["decoder"])}
        families.decoder_config(raw["description"], file)
        return ModelRecord(**{name: raw[name] for name in ModelRecord._fields if name in raw})
    except (UserError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UserError(f"{file}: damaged: {error!r}; restore it, or train again") from None

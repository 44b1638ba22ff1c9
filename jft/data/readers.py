"""Raw rows, whatever they lie in: files of your own, the Hugging Face hub, TensorFlow Datasets.

PATH.json  PATH.jsonl  PATH.csv  PATH.parquet     a file of rows
hf:NAME[/CONFIG]/SPLIT                            NAME: on the hub, or a local folder
tfds:NAME[/CONFIG]:SPLIT
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jft.errors import UserError
from jft.runtime import workdir

Raw = list[dict[str, Any]]


def is_reference(name: str) -> bool:
    """Whether a name means rows of one's own, not a set of the suite."""
    return name.partition(":")[0] in LIBRARIES or Path(name).suffix in READERS


def name_of(reference: str) -> str:
    """The dataset of `paws_train_2000`, `paws_test_500.jsonl`, `paws`, or `hf:paws/train`.

    A set's splits have one name, so that a test set of the training set's name is in-domain.
    """
    if reference.startswith("hf:"):
        *place, _ = reference.removeprefix("hf:").rstrip("/").split("/")
        folder, inside = _local("/".join(place))
        return "-".join([folder.name, *inside] if folder else place)
    if reference.startswith("tfds:"):
        return reference.removeprefix("tfds:").rpartition(":")[0].replace("/", "-")
    return re.sub(r"_(train|test|few_shot)(_\d+)?$", "", Path(reference).stem)


def title(reference: str) -> str:
    """What results call a training set: `paws_train_2000`, or the name of what has no file's."""
    if reference.partition(":")[0] in LIBRARIES:
        return name_of(reference)
    return Path(reference).stem


def read(reference: str, key: str) -> Raw:
    """All rows of a reference.

    Args:
      reference: a path, or `hf:...` or `tfds:...`.
      key: the config key that it is the value of, for messages.

    Raises:
      UserError: nothing is there, or it does not hold rows.
    """
    library, _, place = reference.partition(":")
    path = Path(reference).expanduser()
    if library in LIBRARIES:
        rows = _read_library(LIBRARIES[library], place, f"{key}={reference}")
    elif path.is_file():
        rows = READERS[path.suffix](path)
    else:
        raise UserError(f"{key}={reference}: no file {path}")
    if not isinstance(rows, list):
        kind = type(rows).__name__
        raise UserError(f"{key}={reference}: must be a JSON list of rows, not {kind}")
    if not rows:
        raise UserError(f"{key}={reference}: holds no rows; give it some, or leave it out")
    return rows


def read_json(path: Path):
    """A JSON file's content; UserError names the file and the line that is malformed."""
    return workdir.read_json(path, _explain, object)


def _read_jsonl(path: Path) -> Raw:
    found = []
    for number, line in enumerate(_read_text(path).split("\n")):
        try:
            found += [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError) as error:
            raise UserError(_explain(path, error, number)) from None
    return found


def _read_csv(path: Path) -> Raw:
    csv.field_size_limit(sys.maxsize)  # whole articles stand in one field
    # Spreadsheets put a mark before the first column's name.
    text = _read_text(path).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid CSV: {error}") from None
    for row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{path}: a row has not the {len(reader.fieldnames or ())} columns of the first "
                f"line: {list(row.values())}"
            )
    return rows


def _read_parquet(path: Path) -> Raw:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(f"{path}: needs pyarrow; pip install 'jft[data]'") from None
    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        raise UserError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from None


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_library(reader: Callable[[str], Raw], place: str, where: str) -> Raw:
    try:
        return reader(place)
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: needs {error.name}; pip install 'jft[data]'") from None
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        # What follows the first line is a list of everything else there is.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{where}: {first[:300]}") from None


def _read_hf(place: str) -> Raw:
    """Rows by `datasets`, which runs no code of a dataset's own."""
    import datasets

    datasets.disable_progress_bars()
    name, _, split = place.rstrip("/").rpartition("/")
    if not name:
        raise ValueError("is written hf:NAME[/CONFIG]/SPLIT")
    folder, inside = _local(name)
    if folder is None:
        return _from_hub(name, split).to_list()
    if (folder / "dataset_dict.json").exists():
        return datasets.load_from_disk(str(folder))[split].to_list()
    return datasets.load_dataset(str(folder), *inside, split=split).to_list()


def _from_hub(place: str, split: str):
    """`a/b` may be a user's dataset or a configuration of a dataset that has no user."""
    import datasets

    parts = place.split("/")
    if len(parts) == 2:
        try:
            return datasets.load_dataset(place, split=split)
        except datasets.exceptions.DatasetNotFoundError:
            return datasets.load_dataset(*parts, split=split)
    return datasets.load_dataset("/".join(parts[:2]), *parts[2:], split=split)


def files(reference: str) -> list[Path]:
    """The files that a reference reads, as far as they are its own: none of a library's cache."""
    library, _, place = reference.partition(":")
    if library == "hf":
        folder, _ = _local(place.rpartition("/")[0])
        return [path for path in folder.rglob("*") if path.is_file()] if folder else []
    path = Path(reference).expanduser()
    return [path] if path.is_file() else []


def _local(place: str) -> tuple[Path | None, list[str]]:
    """The folder that a place begins with, if any, and what of the place is left."""
    path = Path(place).expanduser()
    for inside in (0, 1):
        folder = path if inside == 0 else path.parent
        if folder.is_dir() and folder != Path():
            return folder, list(path.parts[len(path.parts) - inside :])
    return None, []


def _read_tfds(place: str) -> Raw:
    """Rows by the data source of `tensorflow_datasets`, without TensorFlow."""
    import tensorflow_datasets as tfds

    name, _, split = place.rpartition(":")
    if not name:
        raise ValueError("is written tfds:NAME[/CONFIG]:SPLIT")
    source = tfds.data_source(name, split=split)
    return [{field: _plain(value) for field, value in row.items()} for row in source]


LIBRARIES: dict[str, Callable[[str], Raw]] = {"hf": _read_hf, "tfds": _read_tfds}


def _plain(value):
    """Text and numbers instead of bytes and NumPy scalars."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(_explain(path, error)) from None


def _explain(path: Path, error: Exception, line: int = 0) -> str:
    """Word an error in reading a file, or the JSON that begins at a line."""
    if isinstance(error, OSError):
        return f"{path}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not UTF-8 at byte {error.start}; convert it to UTF-8"
    if isinstance(error, json.JSONDecodeError):
        place = f"line {line + error.lineno}, column {error.colno}"
        return f"{path} {place}: not valid JSON: {error.msg}"
    # A number too long, or lists nested too deep.
    return f"{path} line {line + 1}: not readable as JSON: {error}"

"""Readers of raw examples: from files, the Hugging Face hub and TensorFlow Datasets.

Raw examples have the columns of their source; `mappings` makes the fields of a task of them.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jft.data.rows.text_files import RepeatedKeyError, explain, plain, read_lines, read_text
from jft.errors import UserError, expand

# Rows, each an object with the columns of its source. Large sources make them one after the other.
Raw = Iterable[dict[str, Any]]


# Rows that are read at a time from columns.
BATCH = 1000


def read_file(path: Path, where: str) -> Raw:
    """Read all examples of a file, by its suffix, one of `FORMATS`, perhaps with a compression's.

    Args:
      path: of the file.
      where: begins messages, such as `data.train=mails.jsonl`.

    Raises:
      UserError: no such file, or it does not hold examples.
    """
    if not path.is_file():
        raise UserError(f"{where}: no file {path}")
    return _checked(FORMATS[plain(path).suffix](path), where)


def has_format(path: Path) -> bool:
    """Check whether a name is that of a file of rows, compressed or not."""
    return plain(path).suffix in FORMATS


def read_library(library: str, place: str, where: str) -> Raw:
    """Read all examples of a split of a dataset.

    Args:
      library: one of `LIBRARIES`.
      place: dataset, configuration and split, as the library's references have them.
      where: begins messages.

    Raises:
      UserError: nothing is there, the library is not installed, or there are no examples.
    """
    try:
        raw = LIBRARIES[library](place)
    except ModuleNotFoundError as error:
        raise UserError(f"{where}: needs {error.name}; pip install 'jft[data]'") from None
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        # Lines after the first list everything else that there is.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{where}: {first[:300]}") from None
    return _checked(raw, where)


def _checked(raw: Any, where: str) -> Raw:
    if not isinstance(raw, list | Iterator):
        raise UserError(f"{where}: must be a JSON list of rows, not {type(raw).__name__}")
    rows = iter(raw)
    first = list(itertools.islice(rows, 1))
    if not first:
        raise UserError(f"{where}: holds no rows; give it some, or leave it out")
    return raw if isinstance(raw, list) else itertools.chain(first, rows)


def read_json(path: Path):
    """Read a JSON file.

    Raises:
      UserError: names the file and the line that is malformed, or a key that stands twice.
    """
    try:
        return _parse(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(explain(path, error)) from None


def _parse(text: str):
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = _repeated([key for key, _ in pairs])
        raise RepeatedKeyError(f"the key {key!r} stands twice in {json.dumps(pairs)[:80]}")
    return found


def _repeated(names: Sequence[str]) -> str | None:
    """Find a name that stands twice."""
    return next((name for i, name in enumerate(names) if name in names[:i]), None)


def _read_rows(path: Path):
    """Read a JSON list, or JSON Lines that are called JSON."""
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    with contextlib.suppress(ValueError, RecursionError):
        if len(lines) > 1 and isinstance(_parse(lines[0]), dict):
            return _read_jsonl(path)
    return read_json(path)


def _read_jsonl(path: Path) -> Iterator:
    is_first = True
    for number, line in enumerate(read_lines(path)):
        if not line.strip():
            continue
        if is_first and line.lstrip().startswith("["):
            raise UserError(f"{path}: holds a JSON list, not a row on each line; call it .json")
        is_first = False
        try:
            yield _parse(line)
        except (ValueError, RecursionError) as error:
            raise UserError(explain(path, error, number)) from None


def _read_csv(path: Path) -> Raw:
    csv.field_size_limit(sys.maxsize)  # whole articles stand in one field
    text = read_text(path)
    first = text.partition("\n")[0]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in first and "," not in first:
            raise UserError(f"{path}: its columns are parted by {name}; export it with commas")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(path, list(reader.fieldnames or ()))
        rows = [row for row in reader if not _is_blank(row)]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid CSV: {error}") from None
    for row in rows:
        if None in row or None in row.values():
            raise UserError(
                f"{path}: a row has not the {len(reader.fieldnames or ())} columns of the first "
                f"line: {list(row.values())}"
            )
    return rows


def _is_blank(row: dict) -> bool:
    """Check for a line of white space alone, which has a single value."""
    given = [value for value in row.values() if value is not None]
    return len(given) == 1 < len(row) and not str(given[0]).strip()


def _check_columns(path: Path, names: list[str]) -> None:
    if name := _repeated(names):
        raise UserError(f"{path}: the column {name!r} stands twice; rename or remove one of them")


def _read_parquet(path: Path) -> Iterator:
    if plain(path) != path:
        raise UserError(f"{path}: Parquet is compressed inside; unpack the file")
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise UserError(f"{path}: needs pyarrow; pip install 'jft[data]'") from None
    try:
        _check_columns(path, parquet.read_schema(path).names)
        for batch in parquet.ParquetFile(path).iter_batches(BATCH):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        raise UserError(f"{path}: not readable as Parquet: {str(error).splitlines()[0]}") from None


FORMATS: dict[str, Callable[[Path], Any]] = {
    ".json": _read_rows,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _read_hf(place: str) -> Raw:
    """Read with `datasets`, which runs no code of a dataset's own."""
    import datasets

    datasets.disable_progress_bars()
    name, _, split = place.rstrip("/").rpartition("/")
    if not name:
        raise ValueError("is written hf:NAME[/CONFIG]/SPLIT")
    folder, inside = local_folder(name)
    if folder is None:
        return _rows_of(_from_hub(name, split))
    if (folder / "dataset_dict.json").exists():
        return _rows_of(datasets.load_from_disk(str(folder))[split])
    return _rows_of(datasets.load_dataset(str(folder), *inside, split=split))


def _rows_of(dataset) -> Iterator[dict]:
    """Make the rows of a dataset of the library `datasets`, some at a time.

    Raises:
      UserError: its files are damaged, or gone.
    """
    try:
        for columns in dataset.iter(BATCH):
            yield from (
                dict(zip(columns, values, strict=True))
                for values in zip(*columns.values(), strict=True)
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"hf: rows that cannot be read: {str(error)[:300]}") from None


def _from_hub(place: str, split: str):
    """Load a split from the hub.

    The place `a/b` may be a dataset of a user, or a configuration of a dataset that has no user.
    """
    import datasets

    parts = place.split("/")
    if len(parts) == 2:
        try:
            return datasets.load_dataset(place, split=split)
        except datasets.exceptions.DatasetNotFoundError:
            return datasets.load_dataset(*parts, split=split)
    return datasets.load_dataset("/".join(parts[:2]), *parts[2:], split=split)


def local_folder(place: str) -> tuple[Path | None, list[str]]:
    """Find the local folder that a place begins with, if any, and the rest of the place."""
    path = expand(place)
    for inside in (0, 1):
        folder = path if inside == 0 else path.parent
        if folder.is_dir() and folder != Path():
            return folder, list(path.parts[len(path.parts) - inside :])
    return None, []


def _read_tfds(place: str) -> Raw:
    """Read with the data sources of `tensorflow_datasets`, without TensorFlow."""
    import tensorflow_datasets as tfds

    name, _, split = place.rpartition(":")
    if not name:
        raise ValueError("is written tfds:NAME[/CONFIG]:SPLIT")
    source = tfds.data_source(name, split=split)
    return [{name: _plain(value) for name, value in example.items()} for example in source]


LIBRARIES: dict[str, Callable[[str], Raw]] = {"hf": _read_hf, "tfds": _read_tfds}


def _plain(value):
    """Turn bytes and NumPy scalars into text and numbers."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value

"""References to datasets: every way in which a config names one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from jft.data.rows import readers
from jft.data.rows.text_files import matching, plain
from jft.errors import UserError, expand

# How files say which part of a dataset they hold, and what may follow: rows, or a shard.
SPLITS = (
    *("train", "training", "test", "testing", "dev", "val", "valid", "validation", "eval"),
    *("evaluation", "few_shot", "few-shot", "fewshot"),
)
SPLIT = f"(?:{'|'.join(SPLITS)})"
SIZE = r"(?:[-_. ]\d+(?:-of-\d+)?)?"
FIRST = "(?:train|training|test|testing|valid|validation)"
WILD = re.compile(r"[*?\[]")
NAMES = (rf"(.+)[-_. ]{SPLIT}{SIZE}", rf"{FIRST}{SIZE}[-_. ](.*?[^\W\d_].*?){SIZE}")


class DatasetRef(NamedTuple):
    """A dataset as a config names it.

    A set of the suite, by its own name or its file's, with or without its task:

        paws    paws_test_500    detection/paws    detection/paws_test_500

    Examples of the user's own, in a file or in a library:

        PATH.json    PATH.jsonl    PATH.csv    PATH.parquet    and .gz or .zst after these
        FOLDER/*.jsonl               all files that match, in the order of their names
        hf:NAME[/CONFIG]/SPLIT       NAME: on the Hugging Face hub, or a local folder
        tfds:NAME[/CONFIG]:SPLIT     in TensorFlow Datasets

    Their task is the config's, or is written before them:

        detection:PATH.jsonl    detection:hf:NAME/SPLIT

    Attributes:
      text: the reference without a task before a colon.
      task: the name of the task before the colon; empty where there is none.
      key: the config key that has the reference as its value, for messages.
    """

    text: str
    task: str = ""
    key: str = ""

    @classmethod
    def parse(cls, text: str, key: str = "", tasks: Collection[str] = ()) -> DatasetRef:
        """Parse a reference; one of `tasks` may stand before a colon.

        Raises:
          UserError: something else stands there, neither a task nor a library.
        """
        before, colon, after = text.partition(":")
        if colon and before in tasks:
            return cls(after, before, key)
        if tasks and colon and not cls(text).library and not cls(text).path.exists():
            raise UserError(
                f"{key}={text}: no task {before}{nearest(before, tasks)} (one of your own "
                "needs data.task, data.template and data.labels in every command)"
            )
        return cls(text, "", key)

    @property
    def library(self) -> str:
        """The library, `hf` or `tfds`; empty for a file and for a set of the suite."""
        before = self.text.partition(":")[0]
        return before if before in readers.LIBRARIES else ""

    @property
    def is_own(self) -> bool:
        """True for examples of the user's own, False for a set of the suite."""
        return bool(self.library) or readers.has_format(Path(self.text))

    @property
    def name(self) -> str:
        """The name of the dataset: `paws` for `paws_train_2000`, `paws_test.jsonl`, `hf:paws/test`.

        All splits of a dataset have one name, so that a test set of the training set's name is
        in-domain.
        """
        if self.library == "hf":
            *place, _ = self._place.rstrip("/").split("/")
            folder, inside = readers.local_folder("/".join(place))
            return "-".join([folder.name, *inside] if folder else place)
        if self.library == "tfds":
            return self._place.rpartition(":")[0].replace("/", "-")
        return set_name(Path(self.text))

    @property
    def title(self) -> str:
        """The name of a training set in results, which tells its sizes apart: `paws_train_2000`."""
        stem = plain(Path(self.text)).stem
        if self.library or WILD.search(stem):
            return self.name
        return f"{self.name}_{stem}" if _is_split(stem) else stem

    @property
    def path(self) -> Path:
        """The file, where it is one."""
        return expand(self.text)

    @property
    def _place(self) -> str:
        return self.text.partition(":")[2]

    def files(self) -> list[Path]:
        """List the files that it reads and that are the user's own, none of a library's cache."""
        if self.library == "hf":
            folder, _ = readers.local_folder(self._place.rpartition("/")[0])
            return [path for path in folder.rglob("*") if path.is_file()] if folder else []
        return [path for path in matching(self.path) if path.is_file()]

    def matches(self, task: str, path: Path) -> bool:
        """Check whether it means this file of the suite, of a task."""
        names = (set_name(path), path.stem)
        return self.text in (*names, *(f"{task}/{name}" for name in names))

    def read(self) -> Iterator[Part]:
        """Read all examples of the user's own, file after file.

        Raises:
          UserError: nothing is there, or it does not hold examples.
        """
        where = f"{self.key}={self.text}"
        if self.library:
            raw = readers.read_library(self.library, self._place, where)
            yield Part(self.text.rsplit("/", 1)[-1], raw)
            return
        paths = matching(self.path)
        if not paths:
            raise UserError(f"{where}: no file matches {self.path}")
        for path in paths:
            yield Part(path.name, readers.read_file(path, where))


class Part(NamedTuple):
    """The rows of one of the files of a set."""

    name: str
    rows: readers.Raw


def set_name(path: Path) -> str:
    """Return the name of the set in a file: `paws` of `paws_train_2000.json`, `paws-dev.csv`.

    A file that is called `train` or `test` alone has the name of its folder, and so has `*.jsonl`.
    """
    # Of a pattern what stands before its first wildcard.
    stem = WILD.split(plain(path).stem)[0].rstrip("-_. ")
    if not stem or _is_split(stem):
        return path.expanduser().resolve().parent.name or stem
    matches = (re.fullmatch(pattern, stem, re.IGNORECASE) for pattern in NAMES)
    return next((match[1] for match in matches if match), stem)


def _is_split(stem: str) -> bool:
    return re.fullmatch(SPLIT + SIZE, stem, re.IGNORECASE) is not None


def nearest(name: str, known: Collection[str]) -> str:
    """Suggest the nearest of the known names, or list them, as the end of a message."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else f"; there is {listing(known)}"


def listing(names: Collection[str]) -> str:
    """List names in a message."""
    return ", ".join(names) or "none"

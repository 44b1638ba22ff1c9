"""The work that is measured: that of the paper, on its data."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """One kind of work.

    Attributes:
      kind: `train`, `score` or `generate`.
      task: task of the examples, a folder of the data.
      file: file of the examples in it, without `.json`.
      demos: dataset of the demonstrations before each example.
      shots: number of demonstrations.
      amount: examples of an optimizer step, or items that are scored or generated for.
      peer_batch: sequences that the peer computes at once; of 2 to 48, the number that was fastest
        on the machine of `RESULTS.md`.
      beside: the work of this name, by jft, is measured in turns with it, not a peer's.
    """

    kind: str
    task: str
    file: str
    demos: str
    shots: int
    amount: int
    peer_batch: int
    beside: str = ""


WORKS = {
    "ft": Work("train", "detection", "paws_train_2000", "paws", 0, 16, 2),
    "fticl": Work("train", "detection", "paws_train_2000", "paws", 4, 16, 2),
    # The outputs of demonstrations are predicted, too.
    "fticl-demo-loss": Work("train", "detection", "paws_train_2000", "paws", 4, 16, 2, "fticl"),
    "fticl-mnli": Work("train", "inference", "multinli_train_2000", "multinli", 5, 16, 2),
    "score": Work("score", "detection", "paws_test_500", "paws", 0, 48, 2),
    "score-4": Work("score", "detection", "paws_test_500", "paws", 4, 48, 2),
    "score-mnli": Work("score", "inference", "multinli_test_500", "multinli", 0, 48, 2),
    "generate": Work("generate", "question", "socialqa_test_500", "socialqa", 2, 48, 48),
    "generate-xsum": Work("generate", "summary", "xsum_test_500", "xsum", 1, 16, 16),
}
# The paper's own values.
MAX_NEW_TOKENS, MAX_LENGTH, LEARNING_RATE = 60, 1024, 2e-5
# More tokens than any prompt has that is scored or completed, so that no side shortens one.
MAX_PROMPT = 2048

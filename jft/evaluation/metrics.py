"""The table of metrics, of items and cells; `texts` has those of texts beside a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jft.errors import UserError
from jft.evaluation import measures, texts
from jft.evaluation.measures import Rows
from jft.tasks import CHOICE, GENERATED, GENERATION, INSTRUCTION, LABELS, TEXT, Task

# The main metric of every kind of task.
ACCURACY, ROUGE_L, BITS, CHOICES, FOLLOWED = "accuracy", "rougeL", "bits", "acc_norm", "followed"
MAIN = {
    **{LABELS: ACCURACY, GENERATION: ROUGE_L},
    **{TEXT: BITS, CHOICE: CHOICES, INSTRUCTION: FOLLOWED},
}
# Stands in for accuracy where that has no room to fall.
P_GOLD = "p_gold"
# Beside the choices of an item.
P_CHOICE = "p_choice"
# Of two models: see `kl_divergence`.
KL = "kl"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of the items of a cell.

    To add one is to add it to `METRICS`; results and reports find it there.

    Attributes:
      name: in records.
      title: in prose.
      kinds: of the tasks that it is of, see `tasks.KINDS`.
      direction: 1 if more is better, -1 if less is, 0 if neither.
      meaning: one sentence, for readers of a report.
      of: computes the values of a cell's items, whose mean is the cell's, from their records; None
        where they mean nothing there. Without it the metric is of two models.
      unit: such as `bits`; empty: values are shares and lie in [0, 1], but where `meaning` says
        otherwise, and reports show them in percent.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    direction: int
    meaning: str
    of: Callable[[Rows], list[float] | None] | None
    unit: str = ""


def kind_of(metric: str) -> str | None:
    """Return the kind of task that a metric can be the main one of; None if of no single kind."""
    found = METRICS.get(metric)
    return found.kinds[0] if found and found.of and len(found.kinds) == 1 else None


def main_metrics(path: str, values: Iterable[str], tasks: Mapping[str, Task]) -> dict[str, str]:
    """Read the main metrics that a key such as `eval.metric` gives to tasks: `question=exact`.

    Raises:
      UserError: a value is not written so, or names no task, or no metric of its kind.
    """
    found = {}
    for value in values:
        name, _, metric = value.partition("=")
        if name not in tasks:
            raise UserError(
                f"{path}={value}: is written task=metric, such as choice=acc; tasks are "
                f"{', '.join(tasks)}"
            )
        if name in found:
            raise UserError(f"{path}: {name} stands twice; give one metric")
        kind = tasks[name].kind
        fit = [each for each in METRICS if kind_of(each) == kind]
        if metric not in fit:
            raise UserError(f"{path}={value}: metrics of {name} are {', '.join(fit)}")
        found[name] = metric
    return found


def measure(rows: Rows, kind: str) -> dict[str, list[float]]:
    """Compute all metrics of a cell; a list of the values of its items for each.

    Only accuracy has a meaning where a gold output is no label that was scored.
    """
    known = kind != LABELS or all(row["output"] in row["scores"] for row in rows)
    wanted = [m for m in METRICS.values() if kind in m.kinds and (known or m.name == ACCURACY)]
    found = {metric.name: metric.of(rows) for metric in wanted if metric.of}
    return {name: values for name, values in found.items() if values is not None}


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            *(ACCURACY, "accuracy", (LABELS,), 1),
            "share of items whose gold label is the likeliest of the labels",
            measures.recorded("correct"),
        ),
        Metric(
            *(P_GOLD, "P(gold)", (LABELS,), 1),
            "probability of the gold label after the prompt, among all texts",
            measures.p_gold,
        ),
        Metric(
            *("p_label", "P(any label)", (LABELS,), 1),
            "probability of any label of the task: whether the model answers in this form at all",
            measures.p_any_label,
        ),
        Metric(
            *("calibrated", "calibrated accuracy", (LABELS,), 1),
            "accuracy after each label was divided by its mean probability on the other items, "
            "which takes out what a model prefers whatever the item",
            measures.calibrated_accuracy,
        ),
        Metric(
            *("auc", "AUC", (LABELS,), 1),
            "how well the label's probability ranks items, whatever the threshold; 50 is chance",
            measures.area_under_curve,
        ),
        Metric(
            *(ROUGE_L, "ROUGE-L", (GENERATION,), 1),
            "longest common subsequence of words with the reference, F-measure",
            measures.recorded(ROUGE_L),
        ),
        Metric(
            *("chrf", "chrF", (GENERATION,), 1),
            "common runs of characters with the reference, F-measure; for any script",
            measures.best_of_texts(texts.chrf),
        ),
        Metric(
            *("bleu", "BLEU", (GENERATION,), 1),
            "common runs of up to four words, all texts of a set together",
            measures.bleu,
        ),
        Metric(
            *("exact", "exact match", (GENERATION,), 1),
            "the reference's words and no others, without case, punctuation and articles",
            measures.best_of_texts(texts.exact_match),
        ),
        Metric(
            *("f1", "token F1", (GENERATION,), 1),
            "common words with the reference, whatever their order",
            measures.best_of_texts(texts.token_f1),
        ),
        Metric(
            *("number", "number", (GENERATION,), 1),
            "share of outputs whose last number is the reference's",
            measures.same_last_number,
        ),
        Metric(
            *("pattern", "pattern", (GENERATION,), 1),
            "share of outputs in which eval.answer_pattern finds the reference's words",
            measures.recorded("pattern"),
        ),
        Metric(
            *("reference_bits", "bits of the reference", (GENERATION,), -1),
            "bits per byte of the reference after the prompt: how unlikely the model finds it",
            measures.bits_per_byte,
            unit="bits",
        ),
        Metric(
            *("empty", "empty", GENERATED, -1),
            "share of outputs without any text",
            measures.best_of_texts(lambda text, _: float(not text.strip())),
        ),
        Metric(
            *("cut", "cut", GENERATED, -1),
            "share of outputs that had not ended after eval.max_new_tokens",
            measures.recorded("cut"),
        ),
        Metric(
            *("repeated", "repeated", GENERATED, -1),
            f"share of outputs that end in a phrase {texts.REPEATS} times or more",
            measures.best_of_texts(lambda text, _: texts.is_repeated(text)),
        ),
        Metric(
            *(BITS, "bits per byte", (TEXT,), -1),
            "how unlikely the model finds the text, in bits for each of its bytes",
            measures.bits_per_byte,
            unit="bits",
        ),
        Metric(
            *(KL, "KL from the base", (TEXT,), -1),
            "how far the next token's distribution went from the base's, in nats: the least that "
            "the likeliest tokens of both allow, some tenth less than over all tokens",
            None,
            unit="nats",
        ),
        Metric(
            *(CHOICES, "choices", (CHOICE,), 1),
            "share of items whose right choice is the likeliest for its number of characters "
            "(acc_norm)",
            measures.recorded("correct"),
        ),
        Metric(
            *("acc", "acc", (CHOICE,), 1),
            "share of items whose right choice is the likeliest as a whole (acc)",
            measures.right_by_size(lambda text: 1),
        ),
        Metric(
            *("acc_bytes", "acc_bytes", (CHOICE,), 1),
            "share of items whose right choice is the likeliest for its number of bytes",
            measures.right_by_size(lambda text: len(text.encode())),
        ),
        Metric(
            *("acc_tokens", "acc_tokens", (CHOICE,), 1),
            "share of items whose right choice is the likeliest for its number of tokens",
            measures.right_by_tokens,
        ),
        Metric(
            *(P_CHOICE, "P(right choice)", (CHOICE,), 1),
            "probability of the right choice, if there were no answers but the choices",
            measures.p_right_choice,
        ),
        Metric(
            *(FOLLOWED, "instructions", (INSTRUCTION,), 1),
            "share of answers that follow every rule of their instruction",
            measures.recorded("followed"),
        ),
    )
}

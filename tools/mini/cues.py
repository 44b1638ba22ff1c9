"""Surface cues: how well each set can be solved without understanding it."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.mini.grammar import jaccard, words

# An example with its `idx`.
Numbered = dict[str, Any]
Predict = Callable[[str], str]

# The accuracy that each cue of a task must stay below.
BOUNDS = {
    "sentiment": {"best word": 0.65, "naive Bayes": 0.90},
    "detection": {"overlap": 0.65, "naive Bayes": 0.65},
    "inference": {"hypothesis": 0.50, "same hypothesis": 0.50, "overlap": 0.60, "premise": 0.65},
    # Of the generation tasks: ROUGE-L F of a copy of the first sentence, and of the best one; the
    # share of the most frequent first word of a question.
    "summary": {"lead": 0.40, "best sentence": 0.65},
    "question": {"first word": 0.50},
}


def naive_bayes(texts: list[str], labels: list[str]) -> Predict:
    """Train a unigram naive Bayes classifier with add-one smoothing."""
    counts: dict[str, Counter[str]] = {label: Counter() for label in sorted(set(labels))}
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(words(text))
    vocabulary = set().union(*counts.values())
    totals = {label: sum(count.values()) + len(vocabulary) for label, count in counts.items()}
    prior = Counter(labels)

    def predict(text: str) -> str:
        def score(label: str) -> float:
            known = [word for word in words(text) if word in vocabulary]
            terms = (math.log((counts[label][word] + 1) / totals[label]) for word in known)
            return math.log(prior[label]) + sum(terms)

        return max(counts, key=score)

    return predict


def accuracy(predict: Predict, texts: list[str], labels: list[str]) -> float:
    """Return the share of texts whose predicted label is right."""
    return sum(predict(t) == g for t, g in zip(texts, labels, strict=True)) / len(labels)


def best_word(texts: list[str], labels: list[str]) -> tuple[float, str]:
    """Find the word whose presence, or absence, tells two labels apart best, and its accuracy."""
    present: Counter[tuple[str, str]] = Counter()
    for text, label in zip(texts, labels, strict=True):
        present.update((word, label) for word in set(words(text)))
    first, second = sorted(set(labels))
    total = Counter(labels)

    def score(word: str) -> float:
        right = present[word, first] + total[second] - present[word, second]
        return max(right, len(labels) - right) / len(labels)

    return max((score(word), word) for word, _ in present)


def best_intervals(scores: list[float], labels: list[str], intervals: int) -> float:
    """Find the best accuracy where each of `intervals` ranges of a score means one label.

    The thresholds are chosen on the examples that are scored, so this is an upper bound.
    """
    kinds = sorted(set(labels))
    prefix = [[0] * len(kinds)]
    cuts = [0]
    order = sorted(zip(scores, labels, strict=True))
    for i, (score, label) in enumerate(order):
        prefix.append([n + (kind == label) for n, kind in zip(prefix[-1], kinds, strict=True)])
        if i + 1 < len(order) and order[i + 1][0] != score:
            cuts.append(i + 1)
    best = 0
    for inner in itertools.combinations_with_replacement(cuts, intervals - 1):
        ends = [0, *inner, len(order)]
        pairs = itertools.pairwise(ends)
        right = (max(b - a for a, b in zip(prefix[s], prefix[e], strict=True)) for s, e in pairs)
        best = max(best, sum(right))
    return best / len(order)


def same_hypothesis(examples: list[Numbered]) -> float:
    """Return the accuracy of the most frequent label of each hypothesis, on the same examples."""
    by_hypothesis: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        by_hypothesis[example["input_2"]][example["output"]] += 1
    return sum(max(count.values()) for count in by_hypothesis.values()) / len(examples)


def rouge_l(candidate: str, reference: str) -> float:
    """Compute ROUGE-L: the F measure of the longest common subsequence of words."""
    a, b = words(candidate), words(reference)
    table = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = table[j]
            table[j] = diagonal + 1 if x == y else max(above, table[j - 1])
            diagonal = above
    return 2 * table[-1] / (len(a) + len(b))


def sentences(text: str) -> list[str]:
    """Split a text into its sentences, roughly."""
    return [part for part in text.replace("? ", "?. ").split(". ") if part]


def _texts(examples: list[Numbered], *fields: str) -> list[str]:
    return [" ".join(example[field] for field in fields) for example in examples]


def scores(task: str, examples: list[Numbered], train: list[Numbered]) -> dict[str, float]:
    """Measure each cue of a task on some examples; cues that are learned learn from `train`."""
    gold = [example["output"] for example in examples]

    def learned(*fields: str) -> float:
        predict = naive_bayes(_texts(train, *fields), [example["output"] for example in train])
        return accuracy(predict, _texts(examples, *fields), gold)

    if task == "sentiment":
        return {
            "best word": best_word(_texts(examples, "input"), gold)[0],
            "naive Bayes": learned("input"),
        }
    if task == "summary":
        parts = [sentences(example["input"]) for example in examples]
        lead = [rouge_l(p[0], g) for p, g in zip(parts, gold, strict=True)]
        best = [max(rouge_l(s, g) for s in p) for p, g in zip(parts, gold, strict=True)]
        return {"lead": sum(lead) / len(examples), "best sentence": sum(best) / len(examples)}
    if task == "question":
        first = Counter(words(text)[0] for text in gold)
        return {"first word": max(first.values()) / len(examples)}
    overlap = [jaccard(example["input_1"], example["input_2"]) for example in examples]
    if task == "detection":
        return {
            "overlap": best_intervals(overlap, gold, 2),
            "naive Bayes": learned("input_1", "input_2"),
        }
    return {
        "hypothesis": learned("input_2"),
        "same hypothesis": same_hypothesis(examples),
        "overlap": best_intervals(overlap, gold, 3),
        "premise": learned("input_1"),
    }


def load(root: Path, task: str, name: str) -> list[Numbered]:
    """Load the examples of one file of a suite."""
    return json.loads((root / task / f"{name}.json").read_text(encoding="utf-8"))


def measure(
    root: Path, task: str, datasets: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    """Measure the training set and the test sets of a task: name of the file, facts and scores."""
    train_name = next((root / task).glob(f"{datasets[0]}_train_*.json")).stem
    train = load(root, task, train_name)
    train_inputs = set(map(_inputs, train))
    tests = [next((root / task).glob(f"{name}_test_*.json")).stem for name in datasets]
    for name in [train_name, *tests]:
        examples = load(root, task, name)
        inputs = list(map(_inputs, examples))
        facts = {
            "rows": len(examples),
            "labels": Counter(example["output"] for example in examples),
            "words": sum(len(words(" ".join(fields))) for fields in inputs) / len(examples),
            "duplicates": len(inputs) - len(set(inputs)),
            "in training": 0 if name == train_name else len(set(inputs) & train_inputs),
        }
        yield name, facts, scores(task, examples, train)


def _inputs(example: Numbered) -> tuple[str, ...]:
    return tuple(value for key, value in example.items() if key not in ("idx", "output"))


def broken(task: str, name: str, facts: dict[str, Any], found: dict[str, float]) -> list[str]:
    """List the bounds that a set breaks, by their names."""
    bad = [key for key in ("duplicates", "in training") if facts[key]]
    if task in ("sentiment", "inference", "detection"):
        counts = facts["labels"].values()
        bad += ["labels"] if max(counts) - min(counts) > 1 else []
    for cue, bound in BOUNDS[task].items():
        # A cue always looks good on the examples that it learned from.
        learned = cue in ("naive Bayes", "premise", "hypothesis") and "_train_" in name
        bad += [cue] if found[cue] >= bound and not learned else []
    return bad


def report(root: Path, tasks: dict[str, list[str]]) -> int:
    """Print a table of every set; return 1 if one breaks a bound, else 0."""
    status = 0
    for task, datasets in tasks.items():
        print(f"{task}: " + ", ".join(f"{cue} < {b:.2f}" for cue, b in BOUNDS[task].items()))
        for name, facts, found in measure(root, task, datasets):
            bad = broken(task, name, facts, found)
            labels = "/".join(str(n) for n in facts["labels"].values())
            labels = labels if len(facts["labels"]) <= 3 else "-"
            shown = "  ".join(f"{cue} {value:.3f}" for cue, value in found.items())
            shown += f"  BREAKS {', '.join(bad)}" if bad else ""
            print(
                f"  {name:24} rows {facts['rows']:3}  labels {labels:12}"
                f" words {facts['words']:5.1f}  duplicates {facts['duplicates']}"
                f"  in training {facts['in training']}  {shown}"
            )
            status |= bool(bad)
    return status

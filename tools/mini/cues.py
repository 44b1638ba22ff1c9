"""What a row could give away without being understood, and how well that works on each set."""

import collections
import itertools
import json
import math
import pathlib

from tools.mini.grammar import jaccard, words

# Accuracy that a cue must stay below, by task; `cues` names the cues.
BOUNDS = {
    "sentiment": {"best word": 0.65, "naive Bayes": 0.90},
    "detection": {"overlap": 0.65, "naive Bayes": 0.65},
    "inference": {"hypothesis": 0.50, "same hypothesis": 0.50, "overlap": 0.60, "premise": 0.65},
    # For the generation tasks: how much copying the first sentence, or the best one, gives
    # (ROUGE-L F), and the share of the most frequent first word of a question.
    "summary": {"lead": 0.40, "best sentence": 0.65},
    "question": {"first word": 0.50},
}


def naive_bayes(texts: list[str], labels: list[str]):
    """A unigram naive Bayes classifier with add-one smoothing: a function from text to label."""
    counts: dict[str, collections.Counter[str]] = {
        label: collections.Counter() for label in sorted(set(labels))
    }
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(words(text))
    vocabulary = set().union(*counts.values())
    totals = {label: sum(count.values()) + len(vocabulary) for label, count in counts.items()}
    prior = collections.Counter(labels)

    def predict(text):
        def score(label):
            known = [word for word in words(text) if word in vocabulary]
            terms = (math.log((counts[label][word] + 1) / totals[label]) for word in known)
            return math.log(prior[label]) + sum(terms)

        return max(counts, key=score)

    return predict


def accuracy(predict, texts: list[str], labels: list[str]) -> float:
    """The share of texts whose predicted label is right."""
    return sum(predict(t) == g for t, g in zip(texts, labels, strict=True)) / len(labels)


def best_word(texts: list[str], labels: list[str]) -> tuple[float, str]:
    """The one word whose presence, or absence, tells two labels apart best."""
    present: collections.Counter[tuple[str, str]] = collections.Counter()
    for text, label in zip(texts, labels, strict=True):
        present.update((word, label) for word in set(words(text)))
    first, second = sorted(set(labels))
    total = collections.Counter(labels)

    def score(word):
        right = present[word, first] + total[second] - present[word, second]
        return max(right, len(labels) - right) / len(labels)

    return max((score(word), word) for word, _ in present)


def best_intervals(scores: list[float], labels: list[str], intervals: int) -> float:
    """The best accuracy when `intervals` ranges of a score each stand for a label.

    The thresholds are chosen on the very rows that are scored, so this is an upper bound.
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


def same_hypothesis(rows: list[dict]) -> float:
    """Accuracy of the majority label of each exact hypothesis, counted on the same rows."""
    by_hypothesis: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for row in rows:
        by_hypothesis[row["input_2"]][row["output"]] += 1
    return sum(max(count.values()) for count in by_hypothesis.values()) / len(rows)


def rouge_l(candidate: str, reference: str) -> float:
    """F measure of the longest common subsequence of words."""
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
    """The sentences of a text, roughly."""
    return [part for part in text.replace("? ", "?. ").split(". ") if part]


def _column(rows, *keys):
    return [" ".join(row[key] for key in keys) for row in rows]


def scores(task: str, rows: list[dict], train: list[dict]) -> dict[str, float]:
    """What each cue of a task reaches on `rows`; what a cue learns, it learns from `train`."""
    gold = [row["output"] for row in rows]

    def learned(*keys):
        predict = naive_bayes(_column(train, *keys), [row["output"] for row in train])
        return accuracy(predict, _column(rows, *keys), gold)

    if task == "sentiment":
        return {
            "best word": best_word(_column(rows, "input"), gold)[0],
            "naive Bayes": learned("input"),
        }
    if task == "summary":
        parts = [sentences(row["input"]) for row in rows]
        lead = [rouge_l(p[0], g) for p, g in zip(parts, gold, strict=True)]
        best = [max(rouge_l(s, g) for s in p) for p, g in zip(parts, gold, strict=True)]
        return {"lead": sum(lead) / len(rows), "best sentence": sum(best) / len(rows)}
    if task == "question":
        first = collections.Counter(words(text)[0] for text in gold)
        return {"first word": max(first.values()) / len(rows)}
    overlap = [jaccard(row["input_1"], row["input_2"]) for row in rows]
    if task == "detection":
        return {
            "overlap": best_intervals(overlap, gold, 2),
            "naive Bayes": learned("input_1", "input_2"),
        }
    return {
        "hypothesis": learned("input_2"),
        "same hypothesis": same_hypothesis(rows),
        "overlap": best_intervals(overlap, gold, 3),
        "premise": learned("input_1"),
    }


def load(root: pathlib.Path, task: str, name: str) -> list[dict]:
    """The rows of one file of a suite."""
    return json.loads((root / task / f"{name}.json").read_text(encoding="utf-8"))


def measure(root: pathlib.Path, task: str, datasets: list[str]):
    """Yields (file name, facts, cue scores) for the training and test sets of a task."""
    train_name = next((root / task).glob(f"{datasets[0]}_train_*.json")).stem
    train = load(root, task, train_name)
    train_inputs = {tuple(v for k, v in row.items() if k not in ("idx", "output")) for row in train}
    tests = [next((root / task).glob(f"{name}_test_*.json")).stem for name in datasets]
    for name in [train_name, *tests]:
        rows = load(root, task, name)
        keys = [tuple(v for k, v in row.items() if k not in ("idx", "output")) for row in rows]
        facts = {
            "rows": len(rows),
            "labels": collections.Counter(row["output"] for row in rows),
            "words": sum(len(words(" ".join(key))) for key in keys) / len(rows),
            "duplicates": len(keys) - len(set(keys)),
            "in training": 0 if name == train_name else len(set(keys) & train_inputs),
        }
        yield name, facts, scores(task, rows, train)


def broken(task: str, name: str, facts: dict, found: dict[str, float]) -> list[str]:
    """The bounds that a set breaks, in words."""
    bad = [key for key in ("duplicates", "in training") if facts[key]]
    if task in ("sentiment", "inference", "detection"):
        counts = facts["labels"].values()
        bad += ["labels"] if max(counts) - min(counts) > 1 else []
    for cue, bound in BOUNDS[task].items():
        # On the rows that it learned from, a learned cue always looks good.
        learned = cue in ("naive Bayes", "premise", "hypothesis") and "_train_" in name
        bad += [cue] if found[cue] >= bound and not learned else []
    return bad


def report(root: pathlib.Path, tasks: dict[str, list[str]]) -> int:
    """Prints a table of every set; returns 1 if one breaks a bound, else 0."""
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

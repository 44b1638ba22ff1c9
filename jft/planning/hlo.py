"""Collectives of a compiled program, read from its text: which, how often, how many bytes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$", re.MULTILINE)
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?%?([\w.-]+(?:, ?%[\w.-]+)*)")


class Traffic(NamedTuple):
    """What a kind of collective does in one run of a program.

    Attributes:
      times: it runs.
      bytes: that a device sends, by the algorithms that send least.
    """

    times: int
    bytes: float


def collectives(text: str) -> dict[str, Traffic]:
    """By kind, of a program's optimized HLO; a loop counts as often as it says that it turns."""
    bodies = _computations(text)
    turns = _turns(bodies)
    found: dict[str, Traffic] = {}
    seen = set()
    for name, lines in bodies.items():
        for line in lines:
            match = COLLECTIVE.search(line)
            if not match:
                continue
            shape, kind, start, rest = match.groups()
            if name.startswith("all-reduce-scatter"):  # what TPUs make of a sum that is split
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", rest)
            # One that overlaps with computing stands in the text as a chain with one channel.
            if channel and (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1] if channel else line))
            size, group = _bytes(shape, kind, bool(start)), _group(rest)
            if match[2] == "reduce-scatter":
                size *= group  # a shard comes out; of the whole all but that is sent
            times = turns.get(name, 1)
            before = found.get(kind, Traffic(0, 0.0))
            sent = times * _sent(kind, size, group)
            found[kind] = Traffic(before.times + times, before.bytes + sent)
    return found


def _computations(text: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[1]
        bodies.setdefault(name, []).append(line)
    return bodies


def _turns(bodies: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs."""
    callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            trips = _trips(line, bodies)
            for match in CALLED.finditer(line):
                for called in re.split(r", ?%", match[1]):
                    callers[called].append((name, trips))
    known: dict[str, int] = {}

    def times(name: str) -> int:
        if name not in known:
            known[name] = 1  # of the program itself, which nothing calls
            if name in callers:
                known[name] = max(times(caller) * trips for caller, trips in callers[name])
        return known[name]

    return {name: times(name) for name in bodies}


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """Of a loop, by what it is compared with; 1 where that is data."""
    if " while(" not in line:
        return 1
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', line):
        return int(known[1])
    condition, body = (_text(line, part, bodies) for part in ("condition", "body"))
    limits, counter = (
        _constants(condition),
        re.search(r"get-tuple-element\(.*index=(\d+)", condition),
    )
    if len(limits) != 1 or not counter:
        return 1
    (limit,), constants = limits.values(), _constants(body)
    # A loop over shards may take two of them at a time: so much is added to its counter.
    element = rf"%([\w.-]+) = [^=]*get-tuple-element\([^)]*\), index={counter[1]}\b"
    added = [
        constants.get(number, 1)
        for name in re.findall(element, body)
        for number in re.findall(rf" add\(%{re.escape(name)}, %([\w.-]+)\)", body)
    ]
    return math.ceil(limit / max(added, default=1))


def _text(line: str, part: str, bodies: dict[str, list[str]]) -> str:
    name = re.search(rf"{part}=%?([\w.-]+)", line)
    return "\n".join(bodies.get(name[1], [])) if name else ""


def _constants(text: str) -> dict[str, int]:
    found = re.findall(r"%([\w.-]+) = [su]32\[\][^=]* constant\((\d+)\)", text)
    return {name: int(value) for name, value in found}


def _bytes(shape: str, kind: str, start: bool) -> float:
    """Of what comes out of it on a device."""
    sizes = [
        BYTES.get(name, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for name, dims in re.findall(r"(\w+)\[([\d,]*)\]", re.sub(r"\{[^}]*\}", "", shape))
    ]
    if start and kind in ("all-gather", "collective-permute"):
        return float(max(sizes))  # its operands stand before its results
    return float(sum(sizes))


def _group(rest: str) -> int:
    """How many devices take part together."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(listed[1].split(","))
    return 2


def _sent(kind: str, size: float, group: int) -> float:
    part = (group - 1) / group if group else 0.0
    return {
        "all-gather": size * part,
        "all-reduce": 2 * size * part,
        "reduce-scatter": size * part,  # of what goes in
        "all-to-all": size * part,
        "collective-permute": size,
    }[kind]

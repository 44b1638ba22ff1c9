"""Collectives of a compiled program, read from its text: which, how often, how many bytes.

The text is XLA's optimized HLO: computations, each with one instruction a line, of which ENTRY is
the program and others are bodies of loops, branches and fusions.

    %body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
      ...
      %w = f32[64,64]{1,0} all-gather(%x), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
    }
    ENTRY %main (x: f32[8,64]) -> f32[8,64] {
      ...
    }
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
# The first line of a computation:
#   ENTRY %main.12_spmd (param.1: f32[8,64], param.2: f32[64]) -> f32[8,64] {
COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$", re.MULTILINE)
# A collective: what comes out, its kind, whether it only starts here, and the rest of the line:
#   %ag = (bf16[8,64]{1,0}, bf16[64,64]{1,0}) all-gather-start(%x), channel_id=3, ...
COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\((.*)")
# The computations that an instruction runs, one or a list in braces:
#   %while.3 = (s32[], f32[8]{0}) while(%tuple.2), condition=%cond, body=%body
#   %c = f32[8]{0} conditional(%i, %a, %b), branch_computations={%branch_0, %branch_1}
CALLED = re.compile(r"(?:calls|to_apply|body|branch_computations)=\{?%?([\w.-]+(?:, ?%[\w.-]+)*)")


class Traffic(NamedTuple):
    """The use of one kind of collective in one run of a program.

    Attributes:
      times: how many times it runs.
      bytes: bytes that a device sends, by the algorithms that send least.
    """

    times: int
    bytes: float


def collectives(text: str) -> dict[str, Traffic]:
    """Sum up the collectives of a program's optimized HLO, by kind.

    One in the body of a loop counts as often as the loop runs, if its trip count is a constant.
    """
    bodies = _computations(text)
    runs = _runs(bodies)
    found: dict[str, Traffic] = {}
    seen = set()
    for name, lines in bodies.items():
        for line in lines:
            match = COLLECTIVE.search(line)
            if not match:
                continue
            shape, kind, start, rest = match.groups()
            if name.startswith("all-reduce-scatter"):  # a fusion of XLA:TPU, which sends as much
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", rest)
            # A collective that overlaps with computing is a chain of instructions on one channel.
            if channel and (kind, channel[1]) in seen:
                continue
            seen.add((kind, channel[1] if channel else line))
            size, group = _output_bytes(shape, kind, bool(start)), _group_size(rest)
            if match[2] == "reduce-scatter":
                size *= group  # one shard comes out, but all others are sent
            before = found.get(kind, Traffic(0, 0.0))
            sent = runs[name] * _sent_bytes(kind, size, group)
            found[kind] = Traffic(before.times + runs[name], before.bytes + sent)
    return found


def _computations(text: str) -> dict[str, list[str]]:
    """Split a program into its computations, the lines of each by its name."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            name = match[1]
        bodies.setdefault(name, []).append(line)
    return bodies


def _runs(bodies: dict[str, list[str]]) -> dict[str, int]:
    """Count how many times each computation runs: trip counts of loops, multiplied inwards."""
    callers: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            trips = _trip_count(line, bodies)
            for match in CALLED.finditer(line):
                for called in re.split(r", ?%", match[1]):
                    callers[called].append((name, trips))
    known: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in known:
            known[name] = 1  # the program itself, which nothing calls
            if name in callers:
                known[name] = max(count(caller) * trips for caller, trips in callers[name])
        return known[name]

    return {name: count(name) for name in bodies}


def _trip_count(line: str, bodies: dict[str, list[str]]) -> int:
    """Find the trip count of a loop; 1 for other instructions, and where the count is data.

    Either XLA knows it:

        %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body,
          backend_config={"known_trip_count":{"n":"5"}}

    or, on TPUs, it is the only constant of the condition over what the body adds to the counter,
    here 8 / 2:

        %limit = s32[] constant(8)                          in %cond
        %i = s32[] get-tuple-element(%p), index=0           in %cond and in %body
        %two = s32[] constant(2)                            in %body
        %next = s32[] add(%i, %two)                         in %body
    """
    if " while(" not in line:
        return 1
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', line):
        return int(known[1])
    condition, body = (_called_text(line, role, bodies) for role in ("condition", "body"))
    limits = _constants(condition)
    counter = re.search(r"get-tuple-element\(.*index=(\d+)", condition)
    if len(limits) != 1 or not counter:
        return 1
    (limit,), constants = limits.values(), _constants(body)
    element = rf"%([\w.-]+) = [^=]*get-tuple-element\([^)]*\), index={counter[1]}\b"
    # A loop over shards may take two of them in one trip.
    added = [
        constants.get(number, 1)
        for name in re.findall(element, body)
        for number in re.findall(rf" add\(%{re.escape(name)}, %([\w.-]+)\)", body)
    ]
    return math.ceil(limit / max(added, default=1))


def _called_text(line: str, role: str, bodies: dict[str, list[str]]) -> str:
    """Look up the text of the `condition=%name` or `body=%name` of a loop."""
    name = re.search(rf"{role}=%?([\w.-]+)", line)
    return "\n".join(bodies.get(name[1], [])) if name else ""


def _constants(text: str) -> dict[str, int]:
    """Find integer scalars by name: `%limit = u32[]{:T(128)} constant(8)`."""
    found = re.findall(r"%([\w.-]+) = [su]32\[\][^=]* constant\((\d+)\)", text)
    return {name: int(value) for name, value in found}


def _output_bytes(shape: str, kind: str, start: bool) -> float:
    """Count the bytes that come out of a collective on a device.

    Args:
      shape: one array or a tuple, with layouts in braces: `(bf16[8,64]{1,0}, bf16[64,64]{1,0})`.
      kind: kind of the collective.
      start: whether it is a start, whose tuple holds the inputs before the outputs.
    """
    sizes = [
        BYTES.get(name, 4) * math.prod(map(int, filter(None, dims.split(","))))
        for name, dims in re.findall(r"(\w+)\[([\d,]*)\]", re.sub(r"\{[^}]*\}", "", shape))
    ]
    if start and kind in ("all-gather", "collective-permute"):
        return float(max(sizes))
    return float(sum(sizes))


def _group_size(rest: str) -> int:
    """Count the devices that take part in a collective together.

    XLA writes groups in three notations, here four groups of two devices each:

        replica_groups=mesh['a'=4,'b'=2] {'b'}          along an axis of a mesh
        replica_groups=[4,2]<=[8]                       an iota of that shape
        replica_groups={{0,1},{2,3},{4,5},{6,7}}        lists
    """
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(iota[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(listed[1].split(","))
    return 2  # a collective-permute lists pairs instead


def _sent_bytes(kind: str, size: float, group: int) -> float:
    """Count the bytes that a device of a group sends; `size` is that of the whole array."""
    others = (group - 1) / group if group else 0.0
    return {
        "all-gather": size * others,
        "all-reduce": 2 * size * others,
        "reduce-scatter": size * others,
        "all-to-all": size * others,
        "collective-permute": size,
    }[kind]

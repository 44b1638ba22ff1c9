"""The rotary settings of a config.json -> `Rope`, as Transformers computes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jft.checkpoints.families.family import FULL, WINDOWED, Family, Keys
from jft.errors import UserError
from jft.model.architecture import Rope

ORIGINAL = "original_max_position_embeddings"
PARTIAL = "partial_rotary_factor"
# Keys of config.json itself that Transformers reads as rotary settings.
OUTSIDE = ("rope_theta", PARTIAL)


def read_ropes(keys: Keys, family: Family) -> dict[str, Rope]:
    """Read the rotary embedding of each type of layers.

    Args:
      keys: the config; `rope_parameters` of Transformers 5, or `rope_scaling` of 4.
      family: of the model.

    Raises:
      UserError: settings that contradict each other, or that jft does not know.
    """
    return {kind: _rope(keys, family, _settings(keys, family, kind)) for kind in (FULL, WINDOWED)}


def rotated_dim(keys: Keys, family: Family) -> int:
    """Count the dimensions of a head that are rotated; 0: all.

    Raises:
      UserError: they are an odd number, more than there are, or fewer in a family that has them
        all rotated.
    """
    head = keys.size("head_dim")
    parts = [_settings(keys, family, kind).get(PARTIAL, 1.0) for kind in (FULL, WINDOWED)]
    part = next((each for each in parts if each != 1.0), 1.0)
    dim = int(head * part) if isinstance(part, int | float) and 0 < part <= 1 else 0
    if not dim or dim % 2 or (dim < head and not family.partial):
        even = f"must leave an even number of {head} dimensions"
        wanted = even if family.partial else "must be 1 in this family"
        raise UserError(f"{keys.file}: {PARTIAL}={repr(part)[:40]}: {wanted}")
    return 0 if dim == head else dim


def llama3_factors(
    dim: int, theta: float, factor: float, low: float, high: float, original: float
) -> tuple[float, ...]:
    """Compute the divisors that Llama 3.1 applies to rotary frequencies (arXiv 2407.21783).

    Wavelengths above `original / low` positions are stretched by `factor`, those below
    `original / high` are unchanged, and in between the frequency is interpolated.

    Args:
      dim: rotated dimensions of a head.
      theta: base of the rotary frequencies.
      factor: stretch of the longest wavelengths.
      low: number of wavelengths in `original` positions below which all of `factor` applies.
      high: number of wavelengths in `original` positions above which nothing changes.
      original: positions that the model was trained on before it was stretched.

    Returns:
      dim / 2 divisors, 1 for a frequency that does not change.
    """
    wavelength = 2 * math.pi * theta ** (np.arange(0, dim, 2) / dim)
    unchanged = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    return tuple((1.0 / ((1.0 - unchanged) / factor + unchanged)).tolist())


def yarn_factors(
    dim: int, theta: float, factor: float, fast: float, slow: float, original: float, truncate: bool
) -> tuple[float, ...]:
    """Compute the divisors of YaRN (Peng et al. 2023, arXiv 2309.00071).

    Frequencies that turn more than `fast` times in `original` positions are unchanged, those that
    turn less than `slow` times are divided by `factor`, and between them is a ramp over dimensions.

    Args:
      dim: rotated dimensions of a head.
      theta: base of the rotary frequencies.
      factor: stretch of the longest wavelengths.
      fast: turns of the last frequency that does not change.
      slow: turns of the first frequency that all of `factor` applies to.
      original: positions that the model was trained on before it was stretched.
      truncate: whether the ramp begins and ends at whole dimensions.
    """

    def place(turns: float) -> float:
        """Find the dimension whose frequency turns so many times."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = place(fast), place(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (np.arange(dim // 2) - low) / ((high - low) or 0.001)
    unchanged = 1 - np.clip(ramp, 0, 1)
    return tuple((1 / ((1 - unchanged) / factor + unchanged)).tolist())


def _settings(keys: Keys, family: Family, kind: str) -> dict[str, Any]:
    """Merge the rotary settings for a type of layers, wherever they stand."""
    raw, file = keys
    new, old = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    if not isinstance(new, dict) or not isinstance(old, dict):
        raise UserError(f"{file}: rope_scaling={old or new!r}: must be an object")
    if FULL in old or WINDOWED in old:
        raise UserError(
            f"{file}: rope_scaling={repr(old)[:80]}: is for all layers; settings by the type of "
            "layers stand in rope_parameters"
        )
    if FULL in new or WINDOWED in new:
        own = new.get(kind) or {}
        if not isinstance(own, dict):
            raise UserError(
                f"{file}: rope_parameters holds {kind}={repr(own)[:40]}: must be an object"
            )
        theta = family.local_theta if kind == WINDOWED and family.local_theta else "rope_theta"
        default = {"rope_theta": raw[theta], ORIGINAL: raw["max_position_embeddings"]}
        return default | _typed(own) | (_typed(old) if kind == FULL else {})
    if new and family.local_theta:
        raise UserError(
            f"{file}: rope_parameters={repr(new)[:80]}: in this family settings stand by the type "
            f"of layers, under {FULL} and {WINDOWED}"
        )
    if kind == WINDOWED and family.local_theta:
        return {"rope_theta": raw[family.local_theta]}
    new, old = _typed(new), _typed(old)
    if new and any(new.get(key) != value for key, value in old.items()):
        raise UserError(
            f"{file}: rope_scaling={raw['rope_scaling']} and rope_parameters={new} disagree; "
            "remove the wrong one"
        )
    outer = {key: raw[key] for key in OUTSIDE if raw.get(key) is not None}
    # Of two original lengths Transformers believes that outside.
    outside = {ORIGINAL: raw[ORIGINAL]} if raw.get(ORIGINAL) is not None else {}
    return {ORIGINAL: raw["max_position_embeddings"]} | outer | (new or old) | outside


def _typed(rope: dict[str, Any]) -> dict[str, Any]:
    """Call the type of rotary settings as Transformers 5 does, which believes its own name."""
    named = {key: value for key, value in rope.items() if key != "type"}
    return {"rope_type": rope["type"]} | named if "type" in rope else named


def _rope(keys: Keys, family: Family, settings: dict[str, Any]) -> Rope:
    name = settings.get("rope_type", "default")
    kind = family.rope_types.get(name, name) if isinstance(name, str) else name
    if not isinstance(kind, str) or kind not in TYPES:
        why = ", which depends on the length of the text" * (kind == "dynamic")
        raise UserError(
            f"{keys.file}: rope type {repr(name)[:40]}{why}: jft supports {', '.join(TYPES)}"
        )
    dim = rotated_dim(keys, family) or keys.size("head_dim")
    inner = Keys(settings, keys.file)
    return TYPES[kind](inner, keys, dim, inner.number("rope_theta"))


def _default(inner: Keys, keys: Keys, dim: int, theta: float) -> Rope:
    return Rope(theta)


def _linear(inner: Keys, keys: Keys, dim: int, theta: float) -> Rope:
    return Rope(theta, (inner.number("factor"),) * (dim // 2))


def _llama3(inner: Keys, keys: Keys, dim: int, theta: float) -> Rope:
    names = ("low_freq_factor", "high_freq_factor", ORIGINAL)
    low, high, original = map(inner.number, names)
    if low >= high:
        raise UserError(
            f"{keys.file}: low_freq_factor={low:g}: must be below high_freq_factor={high:g}"
        )
    return Rope(theta, llama3_factors(dim, theta, inner.number("factor"), low, high, original))


def _yarn(inner: Keys, keys: Keys, dim: int, theta: float) -> Rope:
    raw, factor, original = inner.raw, _stretch(inner, keys), inner.number(ORIGINAL)
    fast, slow = inner.cap("beta_fast") or 32.0, inner.cap("beta_slow") or 1.0
    if theta <= 1 or fast <= slow:
        raise UserError(
            f"{keys.file}: rope_theta={theta:g}, beta_fast={fast:g}, beta_slow={slow:g}: yarn "
            "needs a base above 1, and a beta_fast above beta_slow"
        )
    factors = yarn_factors(dim, theta, factor, fast, slow, original, raw.get("truncate", True))

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if raw.get("attention_factor") is not None:
        return Rope(theta, factors, inner.number("attention_factor"))
    if raw.get("mscale") and raw.get("mscale_all_dim"):
        scale = growth(inner.number("mscale")) / growth(inner.number("mscale_all_dim"))
        return Rope(theta, factors, scale)
    return Rope(theta, factors, growth(1.0))


def _longrope(inner: Keys, keys: Keys, dim: int, theta: float) -> Rope:
    """Read the divisors of LongRoPE, which its authors searched for (arXiv 2402.13753)."""
    lists = []
    for key in ("short_factor", "long_factor"):
        values = inner.raw.get(key)
        numbers = values if isinstance(values, list) else []
        if len(numbers) != dim // 2 or not all(_is_positive(each) for each in numbers):
            raise UserError(
                f"{keys.file}: {key}={repr(values)[:40]}: must be a list of {dim // 2} numbers "
                "above 0"
            )
        lists.append(tuple(map(float, numbers)))
    original = inner.size(ORIGINAL)
    factor = _stretch(Keys({"factor": None} | inner.raw, inner.file), keys)
    if original < 2:
        raise UserError(f"{keys.file}: {ORIGINAL}={original}: must be above 1")
    scale = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    if inner.raw.get("attention_factor") is not None:
        scale = inner.number("attention_factor")
    short, long = lists
    return Rope(theta, short, scale) if short == long else Rope(theta, short, scale, long, original)


def _stretch(inner: Keys, keys: Keys) -> float:
    """Read `factor`; where it is null, the ratio of the longest sequence to the original one."""
    if "factor" in inner.raw and inner.raw["factor"] is None:
        return keys.number("max_position_embeddings") / inner.number(ORIGINAL)
    return inner.number("factor")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


TYPES = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}

"""Plan a run: compile its step for chips that are not here, and say what it takes."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import zlib

import jax
import numpy as np

from jft import config as config_lib
from jft.checkpoints import model_ref
from jft.checkpoints.families import read as families
from jft.checkpoints.files import read_model_json
from jft.data.prompting.prompter import PromptEncoder
from jft.errors import UserError
from jft.model.decoder import DecoderConfig
from jft.planning import chips, search
from jft.planning.chips import GIB, Slice
from jft.planning.estimate import TrainingEstimate, estimate_training
from jft.planning.evaluation_memory import EvaluationMemory, evaluation_memory
from jft.runtime.progress import count, phase, tell

# Rows that are filled to a smaller share are worth a note: most of what is paid for is padding.
WASTEFUL = 0.5
PREFIX = "shape:"


def plan_on_slice(config: config_lib.Config, topology: str, searching: bool) -> bool:
    """Print what a run takes on a slice.

    Args:
      config: config of the run.
      topology: the slice, as `chips.parse_slice` takes it.
      searching: whether to look for the fastest mesh, micro-batch and rematerialization that fit.

    Returns:
      Whether the run fits, or something was found that does.

    Raises:
      UserError: model, data, mesh or slice are unfit for a run.
    """
    if not topology:
        raise UserError(f"--topology is missing; {chips.USAGE}")
    on = chips.parse_slice(topology)
    _prepare(on)
    decoder = decoder_config(config.model.path)
    tokenizer = CachedTokenizer(tokenizer_of(config.model.path, decoder.vocab_size))
    devices = on.devices()
    if not on.topology and devices[0].platform != "gpu" and on.kind != "cpu":
        what = f"{on.stand_in.kind} TPUs" if on.stand_in else "CPUs, which takes far more"
        tell(f"note: no {on.kind} here to compile for; temporary memory is a guess, that of {what}")
    tell(f"{on.name}: {count(on.number, 'chip')} of {on.chip.memory / GIB:.2f} GiB")

    def compiled(changed: config_lib.Config) -> TrainingEstimate:
        with phase(f"Compiling the step: {_keys(changed)}"):
            return estimate_training(changed, decoder, tokenizer, on, devices)

    found = compiled(config)
    _show(config, on, found)
    try:
        with phase("Compiling a batch of the evaluation"):
            evaluated = evaluation_memory(config, decoder, tokenizer, on, devices)
        for each in evaluated:
            _show_evaluation(each, on)
    except UserError as error:
        tell(f"note: no evaluation is planned: {error}")
    if not found.fits and not searching:
        tell(_remedies(config, found, on))
    return _search(config, decoder, on, found, compiled) if searching else found.fits


class CachedTokenizer:
    """A tokenizer with a cache, for a search that plans the same data again and again."""

    def __init__(self, inner: PromptEncoder):
        self.eos_id, self.control_ids = inner.eos_id, inner.control_ids
        self.chat_template, self.special_spellings = inner.chat_template, inner.special_spellings
        self._inner = inner
        self._known: dict[str, np.ndarray] = {}

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts as the tokenizer does."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, self._inner.encode(new), strict=True))
        return [self._known[text] for text in texts]

    def sha256(self) -> str:
        """Hash what the tokenizer's ids depend on."""
        return self._inner.sha256()

    def encode_rendered(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts that hold every special token already, as the tokenizer does."""
        return self._inner.encode_rendered(texts)


def _prepare(on: Slice) -> None:
    """Have JAX show as many devices as are planned for; it must not have started them yet."""
    if on.topology:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        return
    with contextlib.suppress(RuntimeError):  # there are devices already
        jax.config.update("jax_num_cpu_devices", on.number)


def _search(config, decoder: DecoderConfig, on: Slice, found: TrainingEstimate, compiled) -> bool:
    """Print the fastest way to run that fits, and return whether there is one."""
    longest = found.shape.row_length
    best = search.best(config, decoder, on, min(longest, config.data.max_length), compiled)
    if best is None:
        less = "lora.base=int8" if config.lora.rank else "lora.rank=16, to train adapters alone"
        tell(f"Nothing fits {on.name}; take more or larger chips, or --config.{less}")
        return False
    changed, estimated = best
    tell(f"\nThe fastest that was found to fit: {_keys(changed, ' --config.')}")
    _show(changed, on, estimated)
    return True


def _keys(config: config_lib.Config, between: str = " ") -> str:
    """Format the keys that a search changes, with their values."""
    mesh, train = config.mesh, config.train
    keys = {
        "mesh.data": mesh.data,
        "mesh.fsdp": mesh.fsdp,
        "mesh.tensor": mesh.tensor,
        "train.micro_batch_tokens": train.micro_batch_tokens,
        "train.remat": train.remat,
    }
    text = between.join(f"{key}={value}" for key, value in keys.items())
    return between.strip() + text if between.strip() else text


def _show(config: config_lib.Config, on: Slice, found: TrainingEstimate) -> None:
    """Print memory, collectives, times and costs of a training."""
    memory, shape = found.memory, found.shape
    sizes = " x ".join(f"{axis} {size}" for axis, size in found.sizes.items())
    tell(
        f"\n{found.steps} steps on {sizes}; largest micro-batch: {count(shape.rows, 'row')} of "
        f"{shape.row_length} tokens; remat: {config.train.remat}; rows are {found.filled:.0%} full"
    )
    if found.filled < WASTEFUL:
        tell(
            f"note: {count(shape.rows, 'row')} could hold more than the {config.train.batch_size} "
            "examples of a step; raise train.batch_size, or take fewer chips"
        )
    tell("\nMemory of a chip, GiB")
    for name in ("parameters", "optimizer", "gradients", "batch", "temporary", "peak"):
        size = f"{getattr(memory, name) / GIB:.2f}"
        known = name != "temporary" or memory.temporary or found.fits
        tell(f"  {name:<12}{size if known else 'not known':>10}")
    tell(f"  {'there is':<12}{on.chip.memory / GIB:>10.2f}   {_verdict(found, on)}")
    if found.traffic:
        tell("\nCollectives of a micro-batch   times   GB sent by a chip")
        for kind, each in sorted(found.traffic.items()):
            tell(f"  {kind:<27}{each.times:>7}{each.bytes / 1e9:>12.3f}")
    tell("\nSeconds of a step, if it were limited by one thing alone")
    tell(f"  {'computing':<27}{found.compute:>12.4f}   {found.flops / 1e12:.1f} TFLOP in all")
    tell(f"  {'memory':<27}{found.memory_time:>12.4f}")
    if found.traffic:
        tell(f"  {'links':<27}{found.link_time:>12.4f}")
    _show_costs(config, on, found)


def _show_evaluation(found: EvaluationMemory, on: Slice) -> None:
    """Print the memory that an evaluation takes."""
    rows = f"{count(found.shape.rows, 'row')} of {found.shape.row_length} tokens"
    what = "Generating" if found.generates else "Scoring"
    split = "take more chips"
    if found.split < on.number:
        split = "raise mesh.tensor, or mesh.fsdp for weights"
    remedies = (
        (found.weights, split),
        (
            found.cache,
            f"lower eval.max_new_tokens, eval.cache_tokens or eval.max_length, or {split}",
        ),
        (found.working, f"lower eval.batch_tokens, or {split}"),
    )
    _, remedy = max(remedies)  # that of what takes most
    verdict = "fits" if found.fits else f"does not fit; {remedy}"
    tell(f"\n{what}, largest batch: {found.dataset} at {found.shots} shots, {rows}")
    tell(f"  {'weights':<12}{found.weights / GIB:>10.2f} GiB")
    if found.cache:
        tell(f"  {'cache':<12}{found.cache / GIB:>10.2f}")
    tell(f"  {'working':<12}{found.working / GIB:>10.2f}")
    tell(f"  {'peak':<12}{found.peak / GIB:>10.2f} of {on.chip.memory / GIB:.2f} GiB: {verdict}")


def _show_costs(config: config_lib.Config, on: Slice, found: TrainingEstimate) -> None:
    """Print how long a run takes, and what that costs."""
    if not found.fits:
        return
    share = config.plan.utilization
    seconds = max(found.compute / share, found.step_time)
    total, hours = seconds * found.steps, seconds * found.steps / 3600
    how = "links" if found.link_time > found.memory_time else "memory"
    limit = f"At {share:.0%} of the peak" if seconds > found.step_time else f"Limited by {how}"
    tell(
        f"\n{limit}: {seconds:.3f} s a step, "
        f"{found.tokens / found.steps / seconds:.0f} tokens/s; the run: "
        + (f"{hours:.2f} hours" if total > 3600 else f"{total:.0f} s")
        + f", {hours * on.number:.2f} chip-hours"
        + (f", {hours * on.number * config.plan.price:.2f} dollars" if config.plan.price else "")
    )
    if not config.plan.price:
        tell("With --config.plan.price, in dollars for a chip and hour, it says what that costs")


def _verdict(found: TrainingEstimate, on: Slice) -> str:
    if found.fits:
        return f"fits: {found.memory.peak / on.chip.memory:.0%} of it"
    return "does not fit"


def _remedies(config: config_lib.Config, found: TrainingEstimate, on: Slice) -> str:
    """Name the changes that may make a run fit."""
    remedies, memory = [], found.memory
    if found.sizes["fsdp"] * found.sizes["tensor"] < on.number:
        remedies.append(f"--config.mesh.data=1 --config.mesh.fsdp={on.number}")
    held = (memory.peak - memory.temporary) / on.number
    if held < on.chip.memory:  # or less to compute with is of no use
        if config.train.remat != "full":
            remedies.append("--config.train.remat=full")
        if found.shape.row_length > 1024:
            half = config.train.micro_batch_tokens // 2
            remedies.append(f"--config.train.micro_batch_tokens={half}")
    if not config.lora.rank:
        remedies.append("--config.lora.rank=16, to train adapters alone")
    remedies.append("more chips, or --search, which tries what there is")
    return f"It does not fit {on.name}; change one or more: {'; '.join(remedies)}"


def decoder_config(path: str) -> DecoderConfig:
    """Find the decoder of `model.path`, without its weights, or one of `families.SHAPES`.

    Raises:
      UserError: there is no such model.
    """
    if path.startswith(PREFIX):
        name = path.removeprefix(PREFIX)
        if name not in families.SHAPES:
            nearest = difflib.get_close_matches(name, families.SHAPES, n=1, cutoff=0.5)
            meant = f"did you mean {PREFIX}{nearest[0]}? " if nearest else ""
            raise UserError(f"model.path={path}: {meant}there are {', '.join(families.SHAPES)}")
        file = families.SHAPES[name]
        return families.decoder_config(read_model_json(file), file)
    return model_ref.resolve(path).decoder


def tokenizer_of(path: str, vocab_size: int) -> PromptEncoder:
    """Load the tokenizer of `model.path`, or `Words` where it has none."""
    why = "a shape has none"
    if not path.startswith(PREFIX):
        try:
            return model_ref.resolve(path).tokenizer()
        except UserError as error:
            why = str(error)
    tell(f"note: no tokenizer ({why}); tokens are counted by words, some more than there will be")
    return Words(vocab_size)


class Words:
    """A stand-in for a tokenizer, which gives about as many tokens.

    Every four letters of a word, or what is left of it, are a token, and so is every other sign:

        The house.  ->  The| hous|e|.
    """

    eos_id = 2
    control_ids: frozenset[int] = frozenset((1, 2))
    # About as many tokens as those of published models.
    chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} </>{% endfor %}<"

    def __init__(self, vocab_size: int):
        self._vocab_size = vocab_size
        self.special_spellings: dict[str, str] = {}

    def sha256(self) -> str:
        """Name this way to count, which depends on the size of the vocabulary alone."""
        return f"words of {self._vocab_size}"

    def encode_rendered(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts as `encode` does, without the token before them."""
        return [ids[1:] for ids in self.encode(texts)]

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Encode texts by hashes of their pieces: texts that begin alike have ids that do."""
        return [np.array([1, *map(self._id, self._pieces(text))], np.int32) for text in texts]

    def _pieces(self, text: str) -> list[str]:
        return re.findall(r" ?\w{1,4}|[^\w ]| ", text)

    def _id(self, piece: str) -> int:
        return 3 + zlib.crc32(piece.encode()) % (self._vocab_size - 3)

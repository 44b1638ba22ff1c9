"""Writing a model as a Hugging Face folder, and checking it before it gets its name."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jft import config as config_lib
from jft.batch import Batch
from jft.checkpoints import peft, safetensors_io
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.families.family import Family
from jft.checkpoints.files import ADAPTERS, HUB_ID
from jft.checkpoints.model_ref import ModelRef
from jft.checkpoints.session import Session, open_session
from jft.checkpoints.tokenizer import Tokenizer
from jft.data import prefix_tree
from jft.data.prefix_tree import TokenSequence
from jft.errors import UserError, expand, naming
from jft.exporting import card
from jft.model import decoder as decoder_lib
from jft.model import lora
from jft.model.decoder import DecoderConfig, Params
from jft.runtime import records
from jft.runtime.progress import phase, say
from jft.runtime.workdir import is_workdir, try_lock, write_text

# A file that marks a folder as an export that is being written.
MARK = ".jft-export"
# Random sequences, and tokens of each, on which the model and its export are compared.
SEQUENCES, TOKENS = 2, 24
# Texts whose ids are compared: spaces, lines, digits, and signs of several alphabets.
TEXTS = (
    *("", "Hello world", " leading", "trailing ", "two  spaces", "lines\n\nand\ttabs\n"),
    *("3.14 of 10,000", "naïve Ünïcödé", "中文 русский 🎉", "def f(x): return x != 1"),
)
# The largest difference of logits, as a share of the largest, that comes of the order of sums.
TOLERANCE = 1e-5


def export(
    model: str, evaluations: list[str], out: str, dtype: str, adapters: bool = False
) -> None:
    """Write a model to a folder, with tokenizer, generation config and model card.

    The folder gets its name when its content has been read again and gives the same logits.

    Args:
      model: as `model.path`.
      evaluations: workdirs of jft.eval for the card.
      out: the folder.
      dtype: type of the weights; `own`: that of the files.
      adapters: write these alone, in the format of the PEFT library.

    Raises:
      UserError: there is no such model; the folder exists; what is read again is another model.
    """
    target = _new_target(out)
    session = _session(model)
    if adapters and not session.model.has_adapters:
        raise UserError(f"--adapters: {model} has none; without this flag the model is exported")
    dtype = _own_dtype(session.model) if dtype == "own" else dtype
    cells = card.read_cells(session.model, evaluations)
    with _unfinished(target) as folder:
        with phase("Loading the model"):
            load = session.model.load_adapted if adapters else session.model.load
            decoder, params = load(session.mesh)
            tokenizer = session.tokenizer
        with phase("Writing adapters" if adapters else f"Writing {dtype} weights"):
            if adapters:
                trained_on = session.model.base
                base = trained_on.step_path
                peft.write_adapters(
                    decoder, session.model.family, lora.split(params)[0], folder, base
                )
                known = {"base": base, "base_sha256": trained_on.fingerprint()}
                records.write(folder, records.ADAPTER_BASE, known)
            else:
                whole = session.model.description, lora.cast(params, jnp.dtype(dtype))
                safetensors_io.save(*whole, str(folder), dtype, tokenizer.special_ids)
                del whole
            tokenizer.save(str(folder))
            text = card.model_card(session.model, cells, target.name, dtype, adapters)
            write_text(folder / "README.md", text)
        with phase("Reading it again"):
            _check_tokenizer(folder, tokenizer)
            if adapters:
                again = _with_adapters_of(folder, decoder, session.model.family, params)
            else:
                again = safetensors_io.load(str(folder))[:2]
            found = _logits(*again)
            del again
        with phase("Comparing its scores with the model's"):
            wanted = _logits(decoder, params)
            if not adapters and dtype != "float32":
                wanted = _rounded_logits(decoder, params, dtype, wanted)
            _compare(folder, wanted, found)
    say(f"Exported to {target}")
    if adapters:
        _say_what_base(decoder, base)


def _session(model: str) -> Session:
    config = config_lib.get_config()
    config.model.path = model
    return open_session(config)


def _own_dtype(model: ModelRef) -> str:
    """Return the type of a model's weights: float32 where they were changed here."""
    changed = model.run or model.has_adapters
    return "float32" if changed else safetensors_io.dtype_of(model.path)


def _new_target(out: str) -> Path:
    """Resolve `--out`, and refuse to overwrite anything, or to spoil a run.

    Raises:
      UserError: the folder is not empty, or is among the checkpoints of a run.
    """
    try:
        target = expand(out).resolve()
    except RuntimeError as error:
        raise UserError(f"--out={out}: {error}; choose another") from None
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--out={out} is there already; choose a new folder, or remove it")
    if any(each.name == "checkpoints" and is_workdir(each.parent) for each in target.parents):
        raise UserError(f"--out={out} is among the checkpoints of a run; choose another folder")
    return target


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Create a folder beside the target, and rename it to the target when all has gone well.

    What a killed export has left there is removed first; it is recognized by its mark.

    Raises:
      UserError: a folder of that name is no export's, or another export is writing there.
    """
    part = target.with_name(target.name + ".part")
    mark = part / MARK
    if part.exists() and not mark.exists() and any(part.iterdir()):
        raise UserError(f"{part} is in the way, and no export's; move it, or choose another --out")
    part.mkdir(parents=True, exist_ok=True)
    with mark.open("w") as lock:
        if not try_lock(lock):
            raise UserError(f"{part}: another export is writing there")
        for file in part.iterdir():
            if file != mark:
                file.unlink()
        yield part
        if target.exists():
            target.rmdir()  # it is empty: see `_new_target`
        part.rename(target)
        with contextlib.suppress(OSError):  # the folder is whole, whatever becomes of the mark
            (target / MARK).unlink()


def _say_what_base(decoder: DecoderConfig, base: str) -> None:
    """Warn where other programs would put the adapters on another base than in training."""
    assert decoder.adapters
    if decoder.adapters.base == "int8":
        say(
            "note: they were trained beside a base of int8 numbers; on the base itself scores are "
            "near those, not equal; without --adapters the export is exact"
        )
    folder = Path(base)
    if not (HUB_ID.fullmatch(base) or (folder / safetensors_io.CONFIG).is_file()) or is_workdir(
        folder
    ):
        say(
            f"note: PEFT cannot load {base}; export it, too, and name that folder in {ADAPTERS}, "
            "or load the base first"
        )


def _check_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Check that others read the tokenizer as jft does: Transformers, and llama.cpp's converter.

    Raises:
      UserError: they would get other ids, or miss a special token or the chat template.
    """
    from gguf import SpecialVocab

    texts = [*TEXTS, f"a{tokenizer.eos_text}b"]
    again = tokenizer_lib.load(str(folder))
    pairs = zip(tokenizer.encode(texts), again.encode(texts), strict=True)
    logging.getLogger("gguf").setLevel(logging.ERROR)  # it notes what jft knows
    with naming(folder):
        vocab = SpecialVocab(folder)
    wanted = tokenizer.special.config
    ids = tokenizer.special_ids
    begins = vocab.add_special_token.get("bos", False) == bool(tokenizer.prefix)
    faults = [
        "other ids" * any(list(mine) != list(other) for mine, other in pairs),
        "another end of sequence" * (again.special.eos_ids != tokenizer.special.eos_ids),
        "no BOS" * (vocab.special_token_ids.get("bos") != ids["bos_token_id"] or not begins),
        "no EOS" * (vocab.special_token_ids.get("eos") != tokenizer.eos_id),
        "no chat template" * (bool(vocab.chat_template) != bool(wanted.get("chat_template"))),
    ]
    if found := ", ".join(filter(None, faults)):
        raise UserError(
            f"{folder}: other programs read {found} from the exported tokenizer; it is left there "
            "to look at, and must not be used"
        )


def _with_adapters_of(
    folder: Path, decoder: DecoderConfig, family: Family, params: Params
) -> tuple[DecoderConfig, Params]:
    """Replace the adapters of a model by those that a folder holds."""
    assert decoder.adapters
    _, adapters = peft.describe(str(folder), decoder.adapters.base)
    config = replace(decoder, adapters=adapters)
    return config, lora.join(peft.read_adapters(str(folder), config, family), lora.split(params)[1])


def _rounded_logits(
    decoder: DecoderConfig, params: Params, dtype: str, unrounded: np.ndarray
) -> np.ndarray:
    """Compute the logits of weights rounded to a type, and say how far they have moved."""
    logits = _logits(decoder, lora.cast(params, jnp.dtype(dtype)))
    worst = _distance(unrounded, logits)
    say(f"Rounding the weights to {dtype} moves scores by up to {worst:.1e} of the largest")
    return logits


def _compare(folder: Path, wanted: np.ndarray, found: np.ndarray) -> None:
    """Compare the logits of the exported model with those that it should have.

    Raises:
      UserError: they differ by more than the order of sums.
    """
    worst = _distance(wanted, found)
    if not worst <= TOLERANCE:  # or not a number
        raise UserError(
            f"{folder}: the exported model gives other scores than the model (they differ by "
            f"{worst:.1e} of the largest); it is left there to look at, and must not be used; "
            "--dtype=float32 holds any weights"
        )
    say(f"The exported model gives the same scores, to {worst:.1e} of the largest")


def _distance(wanted: np.ndarray, found: np.ndarray) -> float:
    """Compute the largest difference of logits, as a share of the largest wanted one."""
    return float(np.max(np.abs(wanted - found)) / np.max(np.abs(wanted)))


def _logits(config: DecoderConfig, params: Params) -> np.ndarray:
    """Compute float32 logits after random sequences of tokens, [B * M, V]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, (SEQUENCES, TOKENS), np.int32)
    batch: Batch = prefix_tree.build(
        [[TokenSequence(row, 1)] for row in ids], SEQUENCES, TOKENS, TOKENS
    )
    run = jax.jit(decoder_lib.entry_logits, static_argnums=0)
    return np.asarray(run(config, lora.cast(params, jnp.dtype("float32")), batch)).reshape(
        -1, config.vocab_size
    )

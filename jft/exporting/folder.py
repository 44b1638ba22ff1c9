"""Write a model as a Hugging Face folder, and read it again before anyone else does."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jft import config as config_lib
from jft.batch import Batch
from jft.checkpoints import model_ref, peft, safetensors_io, weights
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.files import ADAPTERS, HUB_ID
from jft.data import prefix_tree
from jft.data.prefix_tree import TokenSequence
from jft.errors import UserError
from jft.exporting import card
from jft.model import decoder as decoder_lib
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.model.decoder import DecoderConfig, Params
from jft.runtime.progress import phase, say
from jft.runtime.workdir import is_workdir

# In a folder that is being written.
MARK = ".jft-export"
# The model is asked for the scores after so many sequences of so many tokens.
SEQUENCES, TOKENS = 2, 24
# By the type of the weights: how far scores may differ where one is written as another.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3}


def export(
    model: str, evaluations: list[str], out: str, dtype: str, adapters: bool = False
) -> None:
    """Write a model to a folder, with tokenizer, generation config and model card.

    The folder gets its name when what is in it has been read again, and gives the same scores.

    Args:
      model: as `model.path`.
      evaluations: workdirs of jft.eval for the card.
      out: the folder.
      dtype: of the weights.
      adapters: write these alone, in the format of the PEFT library.

    Raises:
      UserError: no such model; the folder is there already; what was read again is another model.
    """
    try:
        target = Path(out).expanduser().resolve()
    except RuntimeError as error:
        raise UserError(f"--out={out}: {error}; choose another") from None
    _check_place(target, out)
    origin = model_ref.find(model)
    if adapters and not model_ref.has_adapters(origin):
        raise UserError(f"--adapters: {model} has none; without this flag the model is exported")
    scored = card.scored(origin, evaluations)
    with _part(target) as part:
        with phase("Loading the model"):
            mesh = mesh_lib.make_mesh(config_lib.Mesh())
            read = weights.load_adapted if adapters else weights.load
            decoder, params = read(origin, mesh)
            tokenizer = tokenizer_lib.load(model_ref.tokenizer_path(model))
        with phase("Writing adapters" if adapters else f"Writing {dtype} weights"):
            if adapters:
                base = model_ref.name(model_ref.base_of(origin))
                peft.write(decoder, lora.split(params)[0], part, base)
            else:
                safetensors_io.save(decoder, params, str(part), dtype, tokenizer.eos_id)
                _write_generation(part, tokenizer)
            tokenizer.save(str(part))
            text = card.render(origin, scored, target.name, dtype, adapters)
            (part / "README.md").write_text(text, encoding="utf-8")
        with phase("Reading it again"):
            again = (
                _with_adapters_of(part, decoder, params)
                if adapters
                else safetensors_io.load(str(part))
            )
            _check(part, scores(decoder, params), scores(*again), "float32" if adapters else dtype)
    say(f"Exported to {target}")
    if adapters:
        _say_what_base(decoder, base)


def _check_place(target: Path, out: str) -> None:
    """Refuse to overwrite anything, or to spoil a run.

    Raises:
      UserError: the folder is there already, or is one of a run's checkpoints.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--out={out} is there already; choose a new folder, or remove it")
    if any(each.name == "checkpoints" and is_workdir(each.parent) for each in target.parents):
        raise UserError(f"--out={out} is among the checkpoints of a run; choose another folder")


@contextlib.contextmanager
def _part(target: Path) -> Iterator[Path]:
    """A folder beside the target that gets its name when all has gone well.

    What a kill has left of an export goes first; it is known by the mark in it.

    Raises:
      UserError: a folder of that name is somebody's, or another export is writing there.
    """
    part = target.with_name(target.name + ".part")
    mark = part / MARK
    if part.exists() and not mark.exists():
        raise UserError(f"{part} is in the way, and no export's; move it, or choose another --out")
    part.mkdir(parents=True, exist_ok=True)
    with mark.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{part}: another export is writing there") from None
        for file in part.iterdir():
            if file != mark:
                file.unlink()
        yield part
        mark.unlink()
        if target.exists():
            target.rmdir()  # empty, as seen before
        part.rename(target)


def _say_what_base(decoder: DecoderConfig, base: str) -> None:
    """Where others will put the adapters on something else than they were trained beside."""
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


def _write_generation(folder: Path, tokenizer: tokenizer_lib.Tokenizer) -> None:
    """Greedy, as jft generates, to the same end."""
    prefix = [int(i) for i in tokenizer.prefix]
    content = {
        "bos_token_id": prefix[0] if prefix else None,
        "eos_token_id": int(tokenizer.eos_id),
        "do_sample": False,
    }
    text = json.dumps(content, indent=2) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")


def _with_adapters_of(
    folder: Path, decoder: DecoderConfig, params: Params
) -> tuple[DecoderConfig, Params]:
    """A model with the adapters that a folder holds instead of its own."""
    assert decoder.adapters
    _, adapters = peft.describe(str(folder), decoder.adapters.base)
    config = replace(decoder, adapters=adapters)
    return config, lora.join(peft.read(str(folder), config), lora.split(params)[1])


def _check(folder: Path, wanted: np.ndarray, found: np.ndarray, dtype: str) -> None:
    """See that what the folder holds gives the scores that the model gives.

    Raises:
      UserError: its scores are others.
    """
    worst = float(np.max(np.abs(wanted - found)) / np.max(np.abs(wanted)))
    if not worst <= TOLERANCE[dtype]:
        raise UserError(
            f"{folder}: the exported model gives other scores than the model (they differ by "
            f"{worst:.1e} of the largest); it is left there to look at, and must not be used"
        )
    say(f"The exported model gives the same scores, to {worst:.1e} of the largest")


def scores(config: DecoderConfig, params: Params) -> np.ndarray:
    """Float32 scores of the whole vocabulary after some tokens, [entries, V]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, (SEQUENCES, TOKENS), np.int32)
    batch: Batch = prefix_tree.build(
        [[TokenSequence(row, 1)] for row in ids], SEQUENCES, TOKENS, TOKENS
    )
    run = jax.jit(decoder_lib.entry_logits, static_argnums=0)
    return np.asarray(run(config, lora.cast(params, jnp.dtype("float32")), batch)).reshape(
        -1, config.vocab_size
    )

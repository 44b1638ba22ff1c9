"""The training loop: batch, step, log the previous step, probe or save when due."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.checkpoints import model_ref
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.checkpoints.model_ref import Origin
from jft.checkpoints.orbax_steps import Checkpoints
from jft.data import checks, data_report, datasets, probe_batches, trained_on
from jft.data import train_batches as batches_lib
from jft.errors import UserError
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.pages import data_page
from jft.runtime import processes
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import phase, say
from jft.training import drift, optim, start
from jft.training import step as step_lib
from jft.training.log import Log
from jft.training.probes import Probes, best_steps
from jft.training.stop import Stop

AGAIN = "run the same command again to go on"


def train(config: config_lib.Config, workdir: str, dry_run: bool = False) -> None:
    """Train in a workdir to the last step, going on from its newest checkpoint if it has one.

    A dry run ends before the model is loaded.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    base = model_ref.find(config.model.path)
    mesh, dtype = mesh_lib.devices(config)
    with phase("Reading the data"):
        tokenizer = tokenizer_lib.load(model_ref.tokenizer_path(config.model.path))
        batches = batches_lib.plan(config, tokenizer, mesh_lib.row_shards(mesh))
        watched = probe_batches.plan(config, tokenizer, batches.dataset, model_ref.seen(base))
    with workdir_lib.claim(workdir, config, "jft.train") as folder:
        checkpoints, step = _checkpoints(folder, config.checkpoint, batches)
        if step >= batches.steps and not dry_run:
            checkpoints.prune()
            say(f"Finished: {folder} holds all {batches.steps} steps; score it with jft.eval")
            drift.complete(folder, base, mesh, dtype)
            return
        _report(folder, config, batches, tokenizer, step)
        if dry_run:
            say(f"Dry run: nothing was trained; {folder / 'data_report.html'} shows the data")
            return

        optimizer = optim.create(config.optim, batches.steps)
        with phase("Loading the model"):
            begun = start.after(step, config, mesh, dtype, optimizer, base, folder, checkpoints)
            decoder, state, frozen = begun
            texts = batches.encoded + watched.encoded
            checks.check_tokens(texts, *decoder.limits, config.model.path)
            if not step:
                _describe(folder, base, decoder, batches, tokenizer)
        load = _loader(batches, mesh)
        train_step = step_lib.Program(decoder, config.train.remat, dtype, optimizer, mesh)
        _compile(train_step, load, batches.shapes, step)
        probes = Probes(config, watched, decoder, dtype, mesh, batches.steps, folder, step)
        log = Log(folder, config, batches, step)
        with Stop(mesh, config.checkpoint.grace) as stop:
            with log.bar:
                if not step and probes.due(0):
                    log.probe(probes.run(0, lora.join(state.params, frozen)))
                while step < batches.steps and not stop.agreed():
                    state, metrics = train_step(state, frozen, load(step))
                    step += 1
                    log.step(step, metrics)  # writes the one before, while the device works on
                    if probes.due(step):  # before the save: what is saved has been probed
                        log.flush()
                        log.probe(probes.run(step, lora.join(state.params, frozen)))
                    if _due(config.checkpoint.every, step, batches.steps):
                        log.flush()
                        checkpoints.save(step, state)
                log.flush()
            ended = _save_last(checkpoints, step, state, batches.steps)
        if not ended:
            say(f"Stopped after step {step}, saved{stop.since()}; {AGAIN}")
            return
        drift.write(folder, base, mesh, decoder, lora.join(state.params, frozen))
        say(f"Done: {step} steps in {folder}")


def _due(every: int, step: int, steps: int) -> bool:
    """Whether to save after a step; the last is saved in any case."""
    return bool(every) and step % every == 0 and step < steps


def _checkpoints(
    folder: Path, config: config_lib.Checkpoint, batches: batches_lib.Batches
) -> tuple[Checkpoints, int]:
    """The run's, and their last step, 0 for none; what cannot go on is refused before slow work."""
    best = functools.partial(best_steps, folder, config.keep_best)
    checkpoints = Checkpoints(folder, config.keep, best)
    newest = max(checkpoints.steps(), default=0)
    if newest:
        checkpoints.manifest(newest)
        _check_same_data(folder, batches)
    return checkpoints, newest


def _report(
    folder: Path,
    config: config_lib.Config,
    batches: batches_lib.Batches,
    tokenizer: tokenizer_lib.Tokenizer,
    done: int,
) -> None:
    """Say what is wrong with the data, and the plan; leave both in the workdir."""
    with phase("Checking the data"):
        report = data_report.training(batches, datasets.suite(config.data), config.data)
        file, page = folder / "data_report.json", folder / "data_report.html"
        if not (done and file.exists() and page.exists()):  # the same data has the same report
            workdir_lib.write_json(file, report)
            workdir_lib.write_text(page, data_page.training(report, batches, tokenizer))
    checks.say_warnings(report["findings"], "data_report.html")
    say(
        f"{report['rows_trained_on']} of {report['rows']} examples; steps: {batches.steps}, of "
        f"{batches.batch_size} examples in {report['rows_per_step']:.1f} packed rows of at "
        f"most {report['row_length']} tokens, {report['packing_efficiency']:.0%} full"
    )
    say(
        f"{report['packed_rows']} packed rows in all; {report['row_tokens']} tokens, which would "
        f"be {report['sequence_tokens']} without shared prefixes"
    )


def _describe(folder: Path, base: Origin, decoder, batches: batches_lib.Batches, tokenizer) -> None:
    """Leave what evaluations need beside the checkpoints: what it is, and what it has seen."""
    sha256, step = model_ref.fingerprint(base), base.step if base.run else None
    saved = model_ref.SavedModel(decoder, batches.steps, base.path, sha256, step)
    model_ref.write_model(folder, saved)
    tokenizer.save(str(folder / "tokenizer"))
    rows = data_report.trained_rows(batches)
    trained_on.write(folder, batches.dataset.task, rows, model_ref.seen(base) or ())


def _check_same_data(folder: Path, batches: batches_lib.Batches) -> None:
    """Half a run on some rows and half on others would be neither."""
    file = folder / "data_report.json"
    if file.exists() and workdir_lib.read_json(file).get("sha256") != batches.sha256():
        raise UserError(
            f"{folder} was begun with other data: {batches.dataset.source}, the prompt, the "
            "demonstrations or the tokenizer have changed since; restore them, remove it, or "
            "choose another workdir"
        )


def _loader(batches: batches_lib.Batches, mesh) -> Callable[[int], Batch]:
    """A step's batch, of which each process builds the rows that its devices hold."""
    shards = mesh_lib.row_shards(mesh)
    return lambda step: mesh_lib.put_shards(
        lambda shard: batches.batch(step, shard, shards), mesh_lib.rows(mesh, leading=1), shards
    )


def _compile(
    train_step: step_lib.Program, load: Callable[[int], Batch], shapes: list[Shape], done: int
) -> None:
    """Every shape that is still to come, before the first step."""
    with phase("Compiling the training step"):
        for shape in dict.fromkeys(shapes[done:]):
            train_step.compile(load(shapes.index(shape)))
        processes.barrier("compiled")  # or the first step would wait, and its time mean nothing


def _save_last(checkpoints: Checkpoints, step: int, state, steps: int) -> bool:
    """Save where training stops; whether that is its end, from which no optimizer goes on."""
    ended = step >= steps
    with phase(f"Saving step {step}"):
        checkpoints.wait()
        if step not in checkpoints.steps():
            checkpoints.save(step, state._replace(opt_state=None) if ended else state)
            checkpoints.wait()
    checkpoints.close()
    return ended

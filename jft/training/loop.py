"""The training loop: batch, step, log the previous step, probe or save when due."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optax

from jft import config as config_lib
from jft.batch import Batch, Shape
from jft.checkpoints import manifest, model_record, model_ref
from jft.checkpoints.orbax_steps import Checkpoints
from jft.checkpoints.session import Session, open_session
from jft.data import token_checks
from jft.data.probe_batches import ProbeItems, plan_probes
from jft.data.train_batches import Batches, plan_run
from jft.errors import UserError, expand
from jft.model import decoder as decoder_lib
from jft.model import lora
from jft.model import mesh as mesh_lib
from jft.pages import examples
from jft.runtime import processes, threads
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import count, phase, say
from jft.tasks import IN_DOMAIN, VALIDATION
from jft.training import drift, run_data, start
from jft.training import step as step_lib
from jft.training.generations import AskedRows, Generations, plan_generations
from jft.training.log import Log
from jft.training.probes import Probes, ProbeSchedule, best_steps
from jft.training.stop import Stop

AGAIN = "run the same command again to go on"


class PlannedRun(NamedTuple):
    """A planned run and its workdir."""

    config: config_lib.Config
    session: Session
    batches: Batches
    folder: Path
    checkpoints: Checkpoints


def train(config: config_lib.Config, workdir: str, dry_run: bool = False) -> None:
    """Train in a workdir to the last step, resuming from its newest checkpoint if it has one.

    A dry run ends before the model is loaded.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    session = _open_session(config, expand(workdir))
    with phase("Reading the data"):
        packing = session.packing
        seen = session.model.trained_on
        batches = plan_run(config, session.tokenizer, *packing)
        watched = plan_probes(
            config, session.tokenizer, batches.datasets, batches.valid, seen, *packing
        )
        _check_stop_after(config, watched)
        asked_rows = plan_generations(config, session.tokenizer, batches.valid, *packing)
    processes.agree("data", functools.partial(_facts, session, batches, watched))
    with workdir_lib.claim(workdir, config, "jft.train") as folder:
        checkpoints, step = _checkpoints(folder, config.checkpoint, batches)
        run = PlannedRun(config, session, batches, folder, checkpoints)
        last = _last_step(folder, batches, step)
        if step >= last and not dry_run:
            checkpoints.prune()
            say(f"Finished: {folder} holds all {last} steps; score it with jft.eval")
            drift.write_if_missing(folder, session)
            return
        _check_model(run, step, watched)
        run_data.write_report(config, session, batches, folder, step)
        if dry_run:
            for example in examples.one_of_each_set(batches, session.tokenizer):
                say(examples.in_text(example))
            say(f"Dry run: nothing was trained; {folder / 'data_report.html'} shows the data")
        else:
            _train_from(step, run, watched, asked_rows)


def _last_step(folder: Path, batches: Batches, done: int) -> int:
    """Find the last step of a run, which may have ended before it had taken all that it planned.

    Without a checkpoint, `done` being 0, `model.json` is of a run that came to nothing.
    """
    if not done:
        return batches.steps
    return min(batches.steps, model_record.read_record(folder).steps)


def _check_stop_after(config: config_lib.Config, watched: ProbeItems | None) -> None:
    """Check that there is something that `train.stop_after` can go by.

    Raises:
      UserError: there is neither validation nor an in-domain set.
    """
    relations = [each.relation for each in watched.sets] if watched else []
    after = config.train.stop_after
    if after and VALIDATION not in relations and IN_DOMAIN not in relations:
        raise UserError(
            f"train.stop_after={after}: there are no rows to go by; set data.valid, such as 0.05"
        )


def _open_session(config: config_lib.Config, folder: Path) -> Session:
    """Open the session of a run, which needs its base no more when a step of all weights is saved.

    Raises:
      UserError: no base, and no such step.
    """
    session = open_session(config)
    if config.lora.rank or not manifest.saved_steps(folder):
        return session
    try:
        session.model.fingerprint()  # of its files
        return session
    except UserError:
        say(f"note: {config.model.path} is not there any more; {folder} has what it takes to go on")
        return Session(config, model_ref.resolve(str(folder)))


def _facts(session: Session, batches: Batches, watched: ProbeItems | None) -> dict[str, str]:
    """Collect what all processes of a run need to have in common before it begins."""
    return {
        "model": session.model.fingerprint(),
        "tokenizer": session.tokenizer.sha256(),
        **{
            f"training rows ({dataset.source})": workdir_lib.sha256(dataset.examples)
            for dataset in batches.datasets
        },
        "prompts or demonstrations": batches.sha256(),
        "probes": watched.sha256() if watched else "",
    }


def _train_from(
    step: int, run: PlannedRun, watched: ProbeItems | None, asked_rows: list[AskedRows]
) -> None:
    """Load, compile, train from a step to the last one or until told to stop, and save."""
    config, session, batches, folder, checkpoints = run
    last = _last_step(folder, batches, step)
    mesh, dtype = session.mesh, session.dtype
    optimizer = step_lib.adamw(config.optim, batches.steps)
    decoder = start.trained_decoder(session, config)
    load = _loader(batches, mesh)
    train_step = step_lib.compiled_step(decoder, config.train.remat, dtype, optimizer, mesh)
    compiled = threads.ahead(lambda: _compile(train_step, load, batches.shapes, step))
    _, state, frozen = _load(step, run, optimizer)
    with phase("Compiling the training step"):
        compiled()
        processes.barrier("compiled")  # or the first step would wait, and its time mean nothing
    warmup = config.optim.warmup_steps
    schedule = ProbeSchedule(config.probe.every, batches.steps, done=step)
    probes = Probes(session, decoder, watched, schedule, folder) if watched else None
    texts = Generations(session, decoder, asked_rows, folder, step)
    log = Log(folder, config, batches, step)
    with Stop(mesh, config.checkpoint.grace) as stop:
        with log:
            if probes and not step:
                _probe(probes, texts, log, 0, lora.join(state.params, frozen))
            while step < last and not stop.agreed():
                state, metrics = train_step(state, frozen, load(step))
                step += 1
                log.step(step, metrics)  # writes the one before, while the device works on this one
                if probes and probes.due(step):  # before the save: what is saved has been probed
                    log.flush()
                    _probe(probes, texts, log, step, lora.join(state.params, frozen))
                    if step < last and probes.best_long_ago(config.train.stop_after, warmup):
                        last = _end_early(folder, step, probes.losses)
                best = config.checkpoint.keep_best and probes and probes.best == step
                if _due(config.checkpoint.every, step, last) or (best and step < last):
                    log.flush()
                    checkpoints.save(step, state)
            log.flush()
        ended = _save_last(checkpoints, step, state, last)
    if not ended:
        say(f"Stopped after step {step}, saved{stop.since()}; {AGAIN}")
        return
    drift.write(folder, session, decoder, lora.join(state.params, frozen))
    say(f"Done: {count(step, 'step')} in {folder}")
    if probes and config.checkpoint.keep_best and probes.best in checkpoints.steps():
        say(
            f"Best: step {probes.best}, with a loss of {probes.losses[probes.best]:.4f}; score it "
            f"with --config.model.path={folder / 'checkpoints' / str(probes.best)}"
        )


def _probe(
    probes: Probes, texts: Generations, log: Log, step: int, params: decoder_lib.Params
) -> None:
    """Probe the model, have it continue some prompts, and say how it does on validation rows."""
    found = probes.run(step, params)
    log.probe(found)
    texts.run(step, params)
    log.restart()
    if any(record["relation"] == VALIDATION for record in found):
        lowest = ", the lowest so far" if probes.best == step else ""
        say(f"Step {step}: validation loss {probes.losses[step]:.4f}{lowest}")


def _end_early(folder: Path, step: int, losses: dict[int, float]) -> int:
    """Make a step the last of the run, since its loss has not become lower for a while."""
    best = min(losses, key=losses.__getitem__)
    say(
        f"Ending at step {step} (train.stop_after): the lowest loss was {losses[best]:.4f} at step "
        f"{best}, and is {losses[step]:.4f} now"
    )
    saved = model_record.read_record(folder)
    model_record.write_record(folder, saved._replace(steps=step))
    return step


def _check_model(run: PlannedRun, step: int, watched: ProbeItems | None) -> None:
    """Check, before it is loaded, that the model is there and can take the sequences."""
    session = run.session
    encoded = itertools.chain(run.batches.encoded, watched.encoded if watched else ())
    limits, path = session.model.decoder.limits, run.config.model.path
    token_checks.check_tokens(encoded, session.tokenizer, *limits, path)
    if step and not run.config.lora.rank:  # the checkpoint has all weights
        mesh_lib.check_model(session.mesh, session.model.decoder)
    else:
        session.model.check(session.mesh)


def _load(step: int, run: PlannedRun, optimizer: optax.GradientTransformation) -> start.Start:
    """Load the base, or restore a step."""
    config, session, batches, folder, checkpoints = run
    with phase("Loading the model"):
        if step:
            begun = start.resume(session, config, optimizer, checkpoints, step)
        else:
            begun = start.begin(session, config, optimizer)
        start.say_what_is_trained(begun, session.mesh)
        if not step:
            run_data.describe_run(folder, session, batches)
    return begun


def _due(every: int, step: int, steps: int) -> bool:
    """Check whether to save after a step; the last is saved in any case."""
    return bool(every) and step % every == 0 and step < steps


def _checkpoints(
    folder: Path, config: config_lib.Checkpoint, batches: Batches
) -> tuple[Checkpoints, int]:
    """Open the run's checkpoints, and find their last step, 0 for none.

    Raises:
      UserError: the run cannot be resumed; it is refused here, before slow work.
    """
    best = functools.partial(best_steps, folder, config.keep_best)
    checkpoints = Checkpoints(folder, config.keep, best)
    newest = max(checkpoints.steps(), default=0)
    if newest:
        checkpoints.manifest(newest)
        run_data.check_same(folder, batches)
    return checkpoints, newest


def _loader(batches: Batches, mesh) -> Callable[[int], Batch]:
    """Return a function that builds a step's batch; each process builds its devices' rows."""
    shards = mesh_lib.row_shards(mesh)
    return lambda step: mesh_lib.put_shards(
        lambda shard: batches.batch(step, shard, shards),
        mesh_lib.row_sharding(mesh, leading=1),
        shards,
    )


def _compile(
    train_step: step_lib.CompiledStep, load: Callable[[int], Batch], shapes: list[Shape], done: int
) -> None:
    """Compile for every shape that is still to come."""
    for shape in dict.fromkeys(shapes[done:]):
        train_step.compile(load(shapes.index(shape)))


def _save_last(checkpoints: Checkpoints, step: int, state, steps: int) -> bool:
    """Save where training stops, and return whether that is its last step.

    The last step is saved without the state of the optimizer.
    """
    ended = step >= steps
    with phase(f"Saving step {step}"):
        checkpoints.wait()
        if step not in checkpoints.steps():
            checkpoints.save(step, state._replace(opt_state=None) if ended else state)
            checkpoints.wait()
    checkpoints.close()
    return ended

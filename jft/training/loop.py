"""The training loop: batch, step, log the previous step, save when due."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

from jft import config as config_lib
from jft import workdir as workdir_lib
from jft.batch import Batch
from jft.data import batches as batches_lib
from jft.data import checks, data_page, data_report, sources, trained_on
from jft.data import tokenizer as tokenizer_lib
from jft.errors import UserError
from jft.progress import Bar, phase, say
from jft.training import mesh as mesh_lib
from jft.training import optim, pretrained, setup
from jft.training import step as step_lib
from jft.training.checkpoint import Checkpoints
from jft.training.pretrained import Origin


def train(config: config_lib.Config, workdir: str, dry_run: bool = False) -> None:
    """Train in a workdir to the last step, going on from its newest checkpoint if it has one.

    A dry run ends when the data is checked and the plan is made, before the model is loaded.

    Raises:
      UserError: config, data, model or workdir are not fit for it; the message says why.
    """
    base = pretrained.origin(config.model.path)
    mesh, dtype = setup.devices(config)
    with phase("Reading the data"):
        tokenizer = tokenizer_lib.load(pretrained.tokenizer_path(config.model.path))
        batches = batches_lib.plan(config, tokenizer)
    with workdir_lib.claim(workdir, config, "jft.train") as folder:
        checkpoints = Checkpoints(folder, config.checkpoint.keep)
        done = _newest(checkpoints)
        if done >= batches.steps and not dry_run:
            say(f"Finished: {folder} holds all {batches.steps} steps; score it with jft.eval")
            return
        _report(folder, config, batches, tokenizer, done)
        if dry_run:
            say(f"Dry run: nothing was trained; {folder / 'data_report.html'} shows the data")
            return

        optimizer = optim.create(config.optim, batches.steps)
        with phase("Loading the model"):
            decoder, state = _state(base, mesh, optimizer, checkpoints, done, folder)
            checks.check_tokens(
                batches.encoded, decoder.vocab_size, decoder.max_positions, config.model.path
            )
            _describe(folder, base, decoder, batches, tokenizer)
        layout = step_lib.shardings(decoder, optimizer, mesh)
        micro_rows = batches.micro_rows(mesh_lib.row_shards(mesh), config.train.micro_batch_tokens)

        def load(step: int) -> Batch:
            return _place(batches.batch(step, micro_rows, *_process()), mesh)

        with phase("Compiling the training step"):
            train_step = step_lib.compile_step(
                decoder, config.train.remat, dtype, optimizer, layout, mesh, load(done)
            )
        log = _Log(folder, config, batches, done)
        with _Stop() as stop, log.bar:
            step, pending = done, None
            while step < batches.steps and not stop.asked:
                state, metrics = train_step(state, load(step))
                log.write(pending)  # the previous step's, while the device works on this one
                step, pending = step + 1, (step + 1, metrics)
                if config.checkpoint.every and step % config.checkpoint.every == 0:
                    log.write(pending)
                    pending = None
                    checkpoints.save(step, state)
            log.write(pending)
        with phase(f"Saving step {step}"):
            checkpoints.wait()
            if step not in checkpoints.steps():
                checkpoints.save(step, state)
                checkpoints.wait()
        checkpoints.close()
        _say_goodbye(step, batches.steps, folder)


def _newest(checkpoints: Checkpoints) -> int:
    """The last step saved, 0 for none; a damaged one is refused before any slow work."""
    done = max(checkpoints.steps(), default=0)
    if done:
        checkpoints.manifest(done)
    return done


def _state(base: Origin, mesh, optimizer, checkpoints: Checkpoints, done: int, folder: Path):
    """The decoder's config, and the state to go on from."""
    if not done:
        decoder, params = pretrained.load(base, mesh)
        layout = step_lib.shardings(decoder, optimizer, mesh)
        return decoder, step_lib.create_state(params, optimizer, layout)
    decoder = pretrained.read_model(folder).decoder
    layout = step_lib.shardings(decoder, optimizer, mesh)
    shapes = step_lib.shapes(decoder, optimizer)
    like = jax.tree.map(lambda shape, where: shape.update(sharding=where), shapes, layout)
    say(f"Going on from step {done} in {folder}")
    return decoder, checkpoints.restore(like, done)


def _report(
    folder: Path,
    config: config_lib.Config,
    batches: batches_lib.Batches,
    tokenizer: tokenizer_lib.Tokenizer,
    done: int,
) -> None:
    """Say what is wrong with the data, and the plan; leave both in the workdir."""
    with phase("Checking the data"):
        report = data_report.training(batches, sources.suite(config.data), config.data)
        file, page = folder / "data_report.json", folder / "data_report.html"
        if done:
            _check_same_data(file, report)
        if not (done and file.exists() and page.exists()):  # the same data has the same report
            workdir_lib.write_json(file, report)
            workdir_lib.write_text(page, data_page.training(report, batches, tokenizer))
    checks.say_warnings(report["findings"])
    say(
        f"{report['rows_trained_on']} of {report['rows']} examples; steps: {batches.steps}, of "
        f"{batches.batch_size} examples in {report['rows_per_step']:.1f} packed rows of "
        f"{batches.row_length} tokens, {report['packing_efficiency']:.0%} full"
    )
    say(
        f"{report['packed_rows']} packed rows in all; {report['row_tokens']} tokens, which would "
        f"be {report['sequence_tokens']} without shared prefixes"
    )


def _describe(folder: Path, base: Origin, decoder, batches: batches_lib.Batches, tokenizer) -> None:
    """Leave what evaluations need beside the checkpoints: what it is, and what it has seen."""
    pretrained.write_model(folder, decoder, batches.steps)
    tokenizer.save(str(folder / "tokenizer"))
    before = trained_on.read(Path(base.path)) if base.run else None
    rows = data_report.trained_rows(batches)
    trained_on.write(folder, batches.dataset.task, rows, before or ())


def _check_same_data(file: Path, report: dict) -> None:
    """Half a run on some rows and half on others would be neither."""
    before = workdir_lib.read_json(file) if file.exists() else report
    if before.get("sha256") != report["sha256"]:
        raise UserError(
            f"{file.parent} was begun with other data: {report['file']}, the prompt, the "
            "demonstrations or the tokenizer have changed since; restore them, or choose another "
            "workdir"
        )


def _place(batch: Batch, mesh) -> Batch:
    """A process's rows as its part of the global arrays."""
    layout = mesh_lib.rows(mesh, leading=1)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(layout, x), batch)


def _process() -> tuple[int, int]:
    return jax.process_index(), jax.process_count()


def _say_goodbye(step: int, steps: int, folder: Path) -> None:
    if step < steps:
        say(f"Stopped after step {step} of {steps}, saved; run the same command again to go on")
    else:
        say(f"Done: {steps} steps in {folder}")


class _Log:
    """metrics.jsonl, TensorBoard and the progress bar, of which the file is the truth."""

    def __init__(self, folder: Path, config, batches: batches_lib.Batches, done: int):
        self.file = folder / "metrics.jsonl"
        # Steps after the checkpoint are trained, and logged, again.
        kept = workdir_lib.keep_jsonl(self.file, {"step": int}, lambda r: r["step"] <= done)
        if len(kept) != done:
            say(f"note: {self.file} has {len(kept)} of the {done} steps until here")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self.batches, self.lr = batches, optim.schedule(config.optim, batches.steps)
        self.bar = Bar("Training", batches.steps, done)
        self.time = time.monotonic()

    def write(self, pending: tuple[int, step_lib.Metrics] | None) -> None:
        """Wait for a step's metrics and record them.

        Raises:
          UserError: the loss is not a number; training on would only lose more.
        """
        if pending is None:
            return
        step, metrics = pending
        loss, grad_norm = float(metrics.loss), float(metrics.grad_norm)
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            remedy = (
                "lower optim.lr, or set optim.clip"
                if step > 1
                else "nothing is trained yet, so the model is damaged, or too large for model.dtype"
            )
            raise UserError(
                f"the loss is {loss} and its gradient {grad_norm} at step {step}; {remedy}"
            )
        targets, tokens = self.batches.step_tokens(step - 1)
        now = time.monotonic()
        seconds, self.time = now - self.time, now
        record = {
            "step": step,
            "loss": loss,
            "examples": self.batches.batch_size,
            "target_tokens": targets,
            "row_tokens": tokens,
            "seconds": round(seconds, 4),
            "lr": float(self.lr(step - 1)),
            "grad_norm": grad_norm,
        }
        workdir_lib.append_jsonl(self.file, [record])
        for name in ("loss", "lr", "grad_norm", "seconds"):
            self.board.add_scalar(f"train/{name}", record[name], step)
        self.bar.advance(f"loss {loss:.4f}  {tokens / seconds:.0f} tokens/s")


class _Stop:
    """Turns SIGTERM and the first Ctrl-C into a wish to end after the step under way."""

    def __init__(self):
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _) -> None:
        self.asked = True
        say(f"{signal.Signals(number).name}: saving after this step")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

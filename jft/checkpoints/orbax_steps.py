"""Checkpoints: orbax steps, each with a manifest of SHA-256 per array, verified at restore.

The folder of a step gets its name only when it is whole; a kill while saving leaves a temporary
folder, which the next start removes. Only this module imports orbax.
"""

from __future__ import annotations

import functools
import logging
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint.checkpoint_managers import PreservationPolicy

from jft.checkpoints import manifest as manifest_lib
from jft.checkpoints.manifest import Manifest
from jft.errors import UserError, machine_trouble
from jft.runtime import processes

# The items of a step: a state's leaves by path, and their hashes by path.
MODEL, OPTIMIZER, MANIFEST = "model", "optimizer", "manifest"

# Devices that hold copies of an array write equal slices of it, each at least of so many bytes.
# Smaller arrays are written whole: to slice each is another program to compile.
SLICE_BYTES = 2**20

# Chooses steps to keep from all that there are.
Best = Callable[[Sequence[int]], Collection[int]]


@functools.cache
def _silence_orbax() -> None:
    """Keep what orbax prints besides its exceptions off the terminal.

    It would bury the one line that a user gets about a failed save, which `save` or `wait` raises.
    """
    # Warnings at every save that there are no OCDBT files to merge, and tracebacks of hundreds of
    # lines from the threads of a failed save.
    absl_logging.set_verbosity(absl_logging.FATAL)
    # "Task exception was never retrieved", for the other files of a failed save.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # "RuntimeError: Event loop is closed", from tasks of a failed save that end after their loop.
    previous = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook


class _Keep(PreservationPolicy):
    """The rule for the steps to keep, which orbax applies after every save."""

    def __init__(self, newest: int, best: Best):
        self._newest, self._best = newest, best

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Tell for each checkpoint whether to keep it."""
        kept = self.among([each.step for each in checkpoints])
        return [each.step in kept for each in checkpoints]

    def among(self, steps: Sequence[int]) -> set[int]:
        """Choose the steps to keep."""
        return {*sorted(steps)[-self._newest :], *self._best(steps)}


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
      workdir: the workdir; checkpoints are in its folder `checkpoints/`.
      keep: number of newest steps to keep.
      best: chooses further steps to keep from a list of steps.
      read_only: open to restore only, from a run that may be training at the time.
    """

    def __init__(
        self, workdir: Path, keep: int = 1, best: Best = lambda steps: [], read_only: bool = False
    ):
        _silence_orbax()
        self.workdir, self.folder = workdir, (workdir / "checkpoints").absolute()
        self._keep = _Keep(keep, best)
        if read_only and not self.folder.is_dir():
            raise UserError(f"{workdir}: no checkpoint there; jft.train makes them")
        if not read_only:
            self._remove_unfinished()
        registry = ocp.type_handlers.create_type_handler_registry(
            (
                jax.Array,
                ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=SLICE_BYTES),
            )
        )
        # One folder for each array, so that a damaged file names its array. No compression: weights
        # hardly compress, and a flipped bit damages one number instead of a compressed block.
        arrays = {
            name: ocp.PyTreeCheckpointHandler(
                use_ocdbt=False,
                use_zarr3=False,
                use_compression=False,
                type_handler_registry=registry,
            )
            for name in (MODEL, OPTIMIZER)
        }
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers=arrays | {MANIFEST: ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._keep,
                read_only=read_only,
                create=not read_only,
                async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier),
            ),
        )

    def _remove_unfinished(self) -> None:
        """Remove what a kill while saving has left.

        Orbax would do so in a background thread, which a short run may not give the time.
        """
        if self.folder.is_dir() and processes.first():
            for unfinished in ocp.utils.tmp_checkpoints(self.folder):
                shutil.rmtree(unfinished.get())

    def steps(self) -> list[int]:
        """List the steps that are whole, ascending."""
        return sorted(self._manager.all_steps())

    def prune(self) -> None:
        """Delete the steps that are not to be kept, which a save killed at its end has left."""
        for step in set(self.steps()) - self._keep.among(self.steps()):
            self._manager.delete(step)

    def manifest(self, step: int) -> Manifest:
        """Read shape, type and SHA-256 of every array of a step, by path.

        Raises:
          UserError: the manifest cannot be read, or is of another step.
        """
        return manifest_lib.read(self.folder.parent, step)

    def save(self, step: int, state) -> None:
        """Write a state in the background; return as soon as its arrays may be overwritten.

        Raises:
          UserError: this save, or the one before it, failed.
        """
        arrays = _by_path(state)
        try:
            self._manager.wait_until_finished()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{
                        MODEL: ocp.args.PyTreeSave(_part(arrays, MODEL)),
                        OPTIMIZER: ocp.args.PyTreeSave(_part(arrays, OPTIMIZER)),
                        MANIFEST: ocp.args.JsonSave(
                            {"step": step, "arrays": manifest_lib.hash_arrays(arrays)}
                        ),
                    }
                ),
            )
        except Exception as error:
            raise self._save_failed(error) from error

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          UserError: a save failed; the steps before it are whole.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._save_failed(error) from error

    def restore(self, like, step: int | None = None):
        """Read the state of a step, and verify it against its manifest.

        Args:
          like: a state of `jax.ShapeDtypeStruct`s with shardings: all of it, or a part whose other
            leaves are None, such as the parameters alone.
          step: the step; None: the newest.

        Raises:
          UserError: there is no such step, an array has another shape or type than in `like`, or
            differs from its manifest. The message names the array and the step before.
        """
        steps = self.steps()
        step = (steps[-1] if steps else None) if step is None else step
        if step not in steps:
            raise UserError(f"{self.folder}: no step {step}; there is {steps or 'none'}")
        wanted = _by_path(like)
        manifest = self.manifest(step)
        self._check_metadata(step, wanted, manifest)
        found: dict[str, jax.Array] = {}
        for item in (MODEL, OPTIMIZER):
            part = _part(wanted, item)
            if part:
                args = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding), part)
                found |= self._item(step, item, ocp.args.PyTreeRestore(part, restore_args=args))
        if wrong := manifest_lib.differences(found, manifest):
            raise self._damaged(step, f"{wrong[0]} differs from its SHA-256 in the manifest")
        leaves, tree = jax.tree_util.tree_flatten_with_path(like)
        return jax.tree.unflatten(tree, [found[_name(path)] for path, _ in leaves])

    def close(self) -> None:
        """Wait for saves in the background, and close."""
        self._manager.close()

    def _item(self, step: int, name: str, args):
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name]
        except Exception as error:
            what = f"{name} cannot be read"
            raise manifest_lib.unreadable(self.workdir, step, what, error) from error

    def _check_metadata(self, step: int, wanted: dict, manifest) -> None:
        # Orbax would cast and reshape without a word.
        for path, leaf in wanted.items():
            have = manifest.get(path)
            need = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
            if have is None:
                raise self._damaged(step, f"{path} is not in the manifest")
            if {"shape": have["shape"], "dtype": have["dtype"]} != need:
                raise UserError(
                    f"{self.folder / str(step)}: {path} is {have['dtype']}{have['shape']}, but the "
                    f"model has {need['dtype']}{need['shape']}; restore it into the model it is of"
                )

    def _damaged(self, step: int, what: str) -> UserError:
        return manifest_lib.damaged(self.folder.parent, step, what)

    def _save_failed(self, error: Exception) -> UserError:
        whole = f"step {self.steps()[-1]} is whole" if self.steps() else "none was saved before"
        reason = machine_trouble(error) or manifest_lib.first_line(error)
        return UserError(
            f"{self.folder}: saving failed: {reason}; {whole}; then run the same command again"
        )


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Wait for the other processes, for Orbax, but not on the way out of a save that failed here.

    They would not come, and this process is to end with an error now, not after ten minutes.
    """
    if error := sys.exception():
        raise error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _by_path(state) -> dict:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def _name(path) -> str:
    # Parts are joined by dots, since orbax makes a folder for each slash.
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _part(arrays: dict, item: str) -> dict:
    """Select the arrays of `MODEL`, which scoring needs, or of `OPTIMIZER`, all others."""
    return {path: a for path, a in arrays.items() if path.startswith("params.") == (item == MODEL)}

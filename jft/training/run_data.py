"""The data of a run in its workdir: its report, what evaluations need, and that it is the same."""

from __future__ import annotations

from pathlib import Path

from jft import config as config_lib
from jft.checkpoints import model_record
from jft.checkpoints.model_record import ModelRecord
from jft.checkpoints.session import Session
from jft.data import checks, trained_on
from jft.data.prompting import chat_prompts, prompter
from jft.data.prompting.prompter import is_chat
from jft.data.rows import datasets
from jft.data.train_batches import Batches
from jft.data.training_report import trained_examples, training_report
from jft.errors import UserError
from jft.pages import data_page
from jft.runtime import records
from jft.runtime import workdir as workdir_lib
from jft.runtime.progress import phase, say


def write_report(
    config: config_lib.Config, session: Session, batches: Batches, folder: Path, done: int
) -> None:
    """Print what is wrong with the data, and the plan; leave both in the workdir."""
    with phase("Checking the data"):
        source = datasets.suite(config.data)
        found = training_report(batches, source, config, session.tokenizer)
        file, page = folder / records.DATA_REPORT.name, folder / "data_report.html"
        if not (done and file.exists() and page.exists()):  # the same data has the same report
            records.write(folder, records.DATA_REPORT, found)
            workdir_lib.write_text(page, data_page.training_page(found, batches, session.tokenizer))
    checks.say_warnings(found["findings"], "data_report.html")
    held = f", {found['held_out']} held out for validation" if found["held_out"] else ""
    say(
        f"{found['rows_trained_on']} of {found['rows']} examples{held}; steps: {batches.steps}, "
        "of "
        f"{batches.batch_size} examples in {found['rows_per_step']:.1f} packed rows of at "
        f"most {found['row_length']} tokens, {found['packing_efficiency']:.0%} full"
    )
    for each in found["sets"] if len(found["sets"]) > 1 else ():
        say(
            f"  {each['dataset']} ({each['task']}): {each['rows']} rows, {each['share']:.0%} of "
            f"all examples, {each['examples']} in all steps"
        )
    say(
        f"{found['packed_rows']} packed rows in all; {found['row_tokens']} tokens, which would "
        f"be {found['sequence_tokens']} without shared prefixes"
    )


def describe_run(folder: Path, session: Session, batches: Batches) -> None:
    """Leave what evaluations need beside the checkpoints: shape, base, tokenizer, rows seen."""
    base = session.model
    step = base.step if base.run else None
    record = ModelRecord(
        base.description, batches.steps, base.path, base.fingerprint(), step, batches.sha256()
    )
    model_record.write_record(folder, record)
    if any(is_chat(session.config.data.chat, dataset.task) for dataset in batches.datasets):
        template = prompter.template_of(session.config.data, session.tokenizer)
        session.tokenizer.add_ends(sorted(chat_prompts.end_ids(template, session.tokenizer)))
    session.tokenizer.save(str(folder / "tokenizer"))
    trained_on.write_hashes(folder, trained_examples(batches), base.trained_on or ())


def check_same(folder: Path, batches: Batches) -> None:
    """Refuse to resume a run on other data: half of it would be of each."""
    known = model_record.read_record(folder).data_sha256
    if not known:  # from before model.json held it
        if not (folder / records.DATA_REPORT.name).exists():
            raise UserError(
                f"{folder}: {records.DATA_REPORT.name} is gone, by which a resumed run knows its "
                "data; restore it, or choose another workdir"
            )
        known = str(records.read(folder, records.DATA_REPORT).get("sha256"))
    if known != batches.sha256():
        sources = ", ".join(dataset.source for dataset in batches.datasets)
        raise UserError(
            f"{folder} was begun with other data: {sources}, the prompt, the "
            "demonstrations or the tokenizer have changed since; restore them, remove it, or "
            "choose another workdir"
        )

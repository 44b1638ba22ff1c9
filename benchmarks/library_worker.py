"""The work, done by well-known libraries: TRL's SFTTrainer, and lm-evaluation-harness's models.

It runs in the environment of `torch_worker`, with trl, datasets and lm-eval besides.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable

import torch

from benchmarks import worker
from benchmarks.torch_worker import LABELS, Peer
from benchmarks.work import LEARNING_RATE, MAX_LENGTH, WORKS


def prepare(spec: dict) -> Callable[[], list]:
    """Return a function that does one round of the work that `spec` names."""
    torch.set_num_threads(spec["threads"])
    work = WORKS[spec["work"]]
    peer = Peer(work, spec["model"], spec["data"])
    return _train(peer, spec["rounds"]) if work.kind == "train" else _score(peer)


def _train(peer: Peer, rounds: int) -> Callable[[], list]:
    """Start a trainer in a thread of its own; the function lets it do its next optimizer step."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    may_begin, has_ended = threading.Semaphore(0), threading.Semaphore(0)
    losses: list[float] = []

    class InTurns(SFTTrainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, *args, **options):
            losses.append(super().training_step(*args, **options).item())
            return torch.tensor(losses[-1])

    work, wanted = peer.work, rounds * peer.work.amount
    found = itertools.islice(itertools.cycle(peer.examples), wanted)
    examples = [{"prompt": peer.prompt(each), "completion": each["output"]} for each in found]
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=rounds,
        per_device_train_batch_size=work.peer_batch,
        gradient_accumulation_steps=work.amount // work.peer_batch,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        max_grad_norm=0.0,
        max_length=MAX_LENGTH,
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = InTurns(
        peer.model,
        config,
        train_dataset=Dataset.from_list(examples),
        processing_class=peer.tokenizer,
        callbacks=[_around_steps(may_begin.acquire, has_ended.release)],
    )
    threading.Thread(target=trainer.train, daemon=True).start()

    def do_round() -> list:
        losses.clear()
        may_begin.release()
        has_ended.acquire()
        return [sum(losses)]

    return do_round


def _around_steps(before: Callable[[], object], after: Callable[[], object]):
    from transformers import TrainerCallback

    class AroundSteps(TrainerCallback):
        def on_step_begin(self, *_, **__):
            before()

        def on_step_end(self, *_, **__):
            after()

    return AroundSteps()


def _score(peer: Peer) -> Callable[[], list]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    work, labels = peer.work, LABELS[peer.work.task]
    model = HFLM(pretrained=peer.model, tokenizer=peer.tokenizer, batch_size=work.peer_batch)

    def do_round() -> list:
        examples = [each for each in peer.examples[: work.amount] if each["output"] in labels]
        requests = [
            Instance("loglikelihood", each, (peer.prompt(each), label), 0)
            for each in examples
            for label in labels
        ]
        found = model.loglikelihood(requests, disable_tqdm=True)
        return torch.tensor([score for score, _ in found]).reshape(-1, len(labels)).tolist()

    return do_round


if __name__ == "__main__":
    worker.serve(prepare)

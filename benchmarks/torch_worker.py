"""The work, done by a script on Transformers and PyTorch: the paper's recipe, without packing.

It runs in an environment of its own, with torch, transformers and gguf, and without jft.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import worker
from benchmarks.work import LEARNING_RATE, MAX_LENGTH, MAX_NEW_TOKENS, WORKS, Work

LABELS = {
    "detection": ("yes", "no"),
    "inference": ("entailment", "neutral", "contradiction"),
    "sentiment": ("positive", "negative"),
}
NO_TARGET = -100


class Peer:
    """A model with its tokenizer, and the examples of the work.

    Attributes:
      template: the prompt of the task.
      examples: examples of the work's file.
      context: the demonstrations, as text before each prompt.
      device: `cpu`, or `cuda`, where products are bfloat16.
    """

    def __init__(self, work: Work, model: str, data: str, device: str = "cpu"):
        path, options = Path(model), {}
        if path.suffix == ".gguf":
            path, options = path.parent, {"gguf_file": path.name}
        self.work, self.device = work, device
        self.tokenizer = AutoTokenizer.from_pretrained(path, **options)
        load: Any = AutoModelForCausalLM.from_pretrained
        self.model = load(path, dtype=torch.float32, **options)
        if options:  # what was quantized is float32 now, and may be trained
            self.model.hf_quantizer, self.model.is_quantized = None, False
        self.model.to(device)
        folder = Path(data) / work.task
        self.template = json.loads((Path(data) / "prompt_map.json").read_text())[0][work.task]
        self.examples = json.loads((folder / f"{work.file}.json").read_text())
        demos = json.loads((folder / "few_shot" / f"{work.demos}_few_shot.json").read_text())
        self.context = "".join(
            self.template.format_map(demo) + demo["output"] + "\n\n" for demo in demos[: work.shots]
        )

    def prompt(self, example: dict) -> str:
        """Write the demonstrations and the input."""
        return self.context + self.template.format_map(example)

    def ids(self, text: str) -> list[int]:
        """Encode a text without special tokens."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def losses(self, sequences: list[tuple[list[int], int]]) -> torch.Tensor:
        """Compute minus the log-probability of every token from its sequence's start on; else 0."""
        longest = max(len(ids) for ids, _ in sequences)
        tokens = torch.full((len(sequences), longest), 0)
        targets = torch.full((len(sequences), longest), NO_TARGET)
        for i, (ids, start) in enumerate(sequences):
            tokens[i, : len(ids)] = torch.tensor(ids)
            targets[i, start : len(ids)] = tokens[i, start : len(ids)]
        seen = (
            torch.arange(longest)[None] < torch.tensor([len(ids) for ids, _ in sequences])[:, None]
        )
        tokens, targets, seen = (x.to(self.device) for x in (tokens, targets, seen.long()))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.model(input_ids=tokens, attention_mask=seen).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2),
            targets[:, 1:],
            ignore_index=NO_TARGET,
            reduction="none",
        )


def prepare(spec: dict) -> Callable[[], list]:
    """Return a function that does one round of the work that `spec` names."""
    torch.set_num_threads(spec["threads"])
    work = WORKS[spec["work"]]
    work = work._replace(peer_batch=spec.get("peer_batch", work.peer_batch))
    peer = Peer(work, spec["model"], spec["data"], spec.get("device", "cpu"))
    kinds = {"train": _train, "score": _score, "generate": _generate}
    return kinds[work.kind](peer, spec["rounds"])


def _train(peer: Peer, rounds: int) -> Callable[[], list]:
    work, optimizer = (
        peer.work,
        torch.optim.AdamW(peer.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / rounds)
    peer.model.train()
    examples = itertools.cycle(peer.examples)

    def do_round() -> list:
        sequences = []
        for each in itertools.islice(examples, work.amount):
            whole = [*peer.ids(peer.prompt(each) + each["output"]), peer.tokenizer.eos_token_id]
            sequences.append((whole[:MAX_LENGTH], len(peer.ids(peer.prompt(each)))))
        targets = sum(len(ids) - start for ids, start in sequences)
        total = 0.0
        for at in range(0, work.amount, work.peer_batch):
            loss = peer.losses(sequences[at : at + work.peer_batch]).sum() / targets
            loss.backward()
            total += loss.item()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return [total]

    return do_round


def _score(peer: Peer, _rounds: int) -> Callable[[], list]:
    work, labels = peer.work, LABELS[peer.work.task]

    @torch.no_grad()
    def do_round() -> list:
        sequences = []
        for each in peer.examples[: work.amount]:
            if each["output"] in labels:  # jft leaves the others out, too
                start = len(peer.ids(peer.prompt(each)))
                sequences += [(peer.ids(peer.prompt(each) + label), start) for label in labels]
        sums = [
            -peer.losses(sequences[at : at + work.peer_batch]).sum(dim=1)
            for at in range(0, len(sequences), work.peer_batch)
        ]
        return torch.cat(sums).reshape(-1, len(labels)).tolist()

    return do_round


def _generate(peer: Peer, _rounds: int) -> Callable[[], list]:
    work, tokenizer = peer.work, peer.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    @torch.no_grad()
    def do_round() -> list:
        prompts, texts = [peer.prompt(each) for each in peer.examples[: work.amount]], []
        for at in range(0, len(prompts), work.peer_batch):
            batch = prompts[at : at + work.peer_batch]
            batch = tokenizer(batch, add_special_tokens=False, return_tensors="pt", padding=True)
            batch = batch.to(peer.device)
            found = peer.model.generate(**batch, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
            new = found[:, batch.input_ids.shape[1] :]
            texts += tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip().split("\n\n")[0].rstrip() for text in texts]

    return do_round


if __name__ == "__main__":
    worker.serve(prepare)

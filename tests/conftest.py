"""Eight CPU devices, strict shapes, a tiny model and a small dataset for every test."""

import itertools
import json
import os
import signal
import string

import flags

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags.devices(8)}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # even the small ones

# A shell starts what is to run in the background deaf to Ctrl-C, and so would be what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import numpy as np
import pytest

from jft import config as config_lib
from jft.checkpoints import tokenizer as tokenizer_lib
from jft.model.decoder import DecoderConfig

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One for the tests alone: most compile what another test has compiled."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restore the handlers of pytest after a test that runs a program in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def decoder_config():
    return DecoderConfig(
        vocab_size=61,
        embed_dim=16,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=32,
    )


@pytest.fixture
def suite_root(tmp_path):
    """A data folder in the paper's layout: sentiment and detection, 20 rows a set, 8 demos."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    words = ["red", "blue", "tall", "small", "old", "new", "round", "flat", "loud", "calm"]

    def text():
        return " ".join(rng.choice(words, 4))

    def sentiment(n):
        return [
            {"input": text() + f" {i}", "output": ("positive", "negative")[i % 2]} for i in range(n)
        ]

    def detection(n):
        return [
            {"input_1": text() + f" {i}", "input_2": text(), "output": ("yes", "no")[i % 2]}
            for i in range(n)
        ]

    prompts = [
        {
            "sentiment": "Text: {input}\nSentiment:",
            "detection": "A: {input_1}\nB: {input_2}\nSame:",
        },
        {"sentiment": "{input} is", "detection": "{input_1} and {input_2}?"},
    ]
    write(root / "prompt_map.json", prompts)
    for task, make, names in (
        ("sentiment", sentiment, ("shops", "films")),
        ("detection", detection, ("pairs",)),
    ):
        for name in names:
            write(root / task / f"{name}_train_20.json", make(20))
            write(root / task / f"{name}_test_20.json", make(20))
            write(root / task / "few_shot" / f"{name}_few_shot.json", make(8))
    return root


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def config(suite_root):
    """The tiny random model on the small dataset."""
    config = config_lib.get_config()
    config.model.path = "random:llama-tiny"
    config.data.root = str(suite_root)
    config.data.train = "shops_train_20"
    config.train.batch_size = 4
    config.train.steps = 3
    config.optim.lr = 1e-3
    config.eval.retention = ()  # 20 sets more; test_retention.py asks for them
    config.probe.limit = 0  # another program to compile; test_probes.py asks for them
    return config


@pytest.fixture
def notes_config(config, suite_root):
    """An evaluation of a dozen short texts to generate, asked by two prompts at 0 and 2 shots."""
    rows = [
        {"input": f"{word} {i}", "output": f"all {word}"} for i, word in enumerate("abcdefghijkl")
    ]
    (suite_root / "summary" / "few_shot").mkdir(parents=True)
    (suite_root / "summary" / "notes_test_7.json").write_text(json.dumps(rows))
    demos = suite_root / "summary" / "few_shot" / "notes_few_shot.json"
    demos.write_text(json.dumps([{"input": "x y", "output": "z"}, {"input": "y", "output": "x"}]))
    file = suite_root / "prompt_map.json"
    prompts = json.loads(file.read_text())
    templates = ("Text: {input}\nSummary:", "In short: {input}")
    for prompt, template in zip(prompts, templates, strict=True):
        prompt["summary"] = template
    file.write_text(json.dumps(prompts))
    config.eval.datasets, config.eval.shots, config.eval.prompts = ("notes",), (0, 2), (0, 1)
    config.eval.max_new_tokens = 12
    return config


@pytest.fixture(scope="session")
def merging(tmp_path_factory):
    """A tokenizer that merges a space, or =, with the letter after it, but not with a digit."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"]
    pairs = list(itertools.product("Ġ=", string.ascii_lowercase))
    vocab = {token: i for i, token in enumerate([*alphabet, *map("".join, pairs), "<eos>"])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return tokenizer_lib.Tokenizer(backend, vocab["<eos>"])

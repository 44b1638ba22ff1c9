"""Stores and the cache: the same examples and sequences, from less memory and work."""

import json
import os

import chat_templates
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jft.checkpoints import tokenizer as tokenizer_lib
from jft.data import train_batches
from jft.data.prefix_tree import TokenSequence
from jft.data.prompting import token_cache
from jft.data.prompting.encoded_store import EncodedBlock, EncodedStore
from jft.data.prompting.prompts import Encoded
from jft.data.rows.example_store import ExampleStore
from jft.runtime import file_cache

EXAMPLES = st.lists(
    st.dictionaries(st.sampled_from(["input", "output", "golds", "a"]), st.text(max_size=5)),
    max_size=8,
)


@given(examples=EXAMPLES)
def test_a_store_holds_what_was_put_into_it(examples):
    store = ExampleStore(examples)
    assert list(store) == examples
    assert store == examples
    assert [store[i] for i in range(-len(examples), len(examples))] == examples * 2
    assert list(store[1:5:2]) == examples[1:5:2]
    assert list(store[1:][1:]) == examples[2:]
    with pytest.raises(IndexError):
        store[len(examples)]


SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=4)


@given(items=st.lists(st.tuples(SEQUENCES, SEQUENCES, st.integers(0, 99)), max_size=5))
def test_encoded_requests_come_back(items):
    def sequences(lists):
        return [TokenSequence(np.array(ids, np.int32), len(ids) // 2) for ids in lists]

    encoded = [
        Encoded(sequences(own), whole, whole // 2, merged=1, shown=tuple(sequences(shown)))
        for own, shown, whole in items
    ]
    store = EncodedStore()
    store.append(EncodedBlock.of(encoded[:2]))
    store.append(EncodedBlock.of(encoded[2:]))
    assert len(store) == len(encoded)
    for found, wanted in zip(store, encoded, strict=True):
        assert (found.whole, found.least, found.merged) == (wanted.whole, wanted.least, 1)
        assert [(s.tokens.tolist(), s.start) for s in found.packed] == [
            (s.tokens.tolist(), s.start) for s in wanted.packed
        ]
        assert len(found.shown) == len(wanted.shown)


def test_turns_that_begin_others_take_no_memory_of_their_own():
    ids = np.arange(100, dtype=np.int32)
    turns = [TokenSequence(ids[:n], n - 1) for n in (40, 70, 100)]
    assert len(EncodedBlock.of([Encoded(turns, 100)]).tokens) == 100


@pytest.fixture
def cached(config, tmp_path, monkeypatch):
    """Rows that make two whole blocks of eight, and a rest."""
    monkeypatch.setattr(token_cache, "BLOCK", 8)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config.train.steps, config.train.epochs = 0, 2
    config.data.shots, config.data.demo_loss = 2, True
    return config


class Counting:
    """A tokenizer that counts the texts it is given."""

    def __init__(self, inner):
        self._inner, self.texts = inner, 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def encode(self, texts):
        self.texts += len(texts)
        return self._inner.encode(texts)


@pytest.fixture
def tokenizer():
    return Counting(tokenizer_lib.load("random:llama-tiny"))


def files():
    return sorted(file_cache.folder("tokens").glob("*"))


def test_rows_are_tokenized_once(cached, tokenizer):
    first = train_batches.plan_run(cached, tokenizer)
    texts = tokenizer.texts
    assert len(files()) == 2
    again = train_batches.plan_run(cached, tokenizer)
    assert tokenizer.texts - texts < texts / 2  # the rest, which is no whole block
    assert again.sha256() == first.sha256()
    cached.data.seed = 7  # another order of the same rows
    texts = tokenizer.texts
    train_batches.plan_run(cached, tokenizer)
    assert tokenizer.texts - texts < texts / 2
    assert len(files()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": 1},
        {"shots": 1},
        {"demo_loss": False},
        {"max_length": 300},
        {"answer_tokens": "apart"},
    ],
    ids=str,
)
def test_what_the_tokens_depend_on_is_in_the_key(cached, tokenizer, change):
    train_batches.plan_run(cached, tokenizer)
    for name, value in change.items():
        setattr(cached.data, name, value)
    found = train_batches.plan_run(cached, tokenizer)
    assert len(files()) == 4
    for file in files():
        file.unlink()
    assert train_batches.plan_run(cached, tokenizer).sha256() == found.sha256()


def test_other_rows_and_another_tokenizer_are_other_keys(cached, tokenizer, suite_root):
    train_batches.plan_run(cached, tokenizer)
    file = suite_root / "sentiment" / "shops_train_20.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([*rows[:-9], rows[-9] | {"output": "positive"}, *rows[-8:]]))
    train_batches.plan_run(cached, tokenizer)
    assert len(files()) == 3  # one block is as it was
    train_batches.plan_run(cached, chat_templates.tokenizer("chatml"))
    assert len(files()) == 5


def test_a_damaged_file_is_made_again(cached, tokenizer):
    wanted = train_batches.plan_run(cached, tokenizer).sha256()
    whole = [file.read_bytes() for file in files()]
    for size in (0, 10, len(whole[0]) // 2):
        files()[0].write_bytes(whole[0][:size])
        assert train_batches.plan_run(cached, tokenizer).sha256() == wanted
        assert [file.read_bytes() for file in files()] == whole
    for place in range(0, len(whole[0]), len(whole[0]) // 40):  # a bit that flipped
        damaged = bytearray(whole[0])
        damaged[place] ^= 255
        files()[0].write_bytes(bytes(damaged))
        assert train_batches.plan_run(cached, tokenizer).sha256() == wanted


def test_a_folder_that_cannot_be_written_keeps_nobody_from_training(cached, tokenizer):
    wanted = train_batches.plan_run(cached, tokenizer).sha256()
    folder = file_cache.folder("tokens")
    for file in files():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert train_batches.plan_run(cached, tokenizer).sha256() == wanted


def test_what_was_used_longest_ago_makes_room(cached, tokenizer, monkeypatch):
    train_batches.plan_run(cached, tokenizer)
    old, new = files()
    os.utime(old, (1, 1))
    monkeypatch.setattr(token_cache, "LIMIT", int(1.9 * new.stat().st_size))
    cached.data.prompt = 1
    train_batches.plan_run(cached, tokenizer)
    assert old not in files()
    assert 0 < len(files()) <= 2

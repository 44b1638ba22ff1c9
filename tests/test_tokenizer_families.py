"""Tokenizers of GGUF files give the tokens that Transformers' classes give."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from test_tokenizer import _write_gguf
from tokenizers import models, pre_tokenizers, trainers

from jft.checkpoints import gguf_tokenizer, tokenizer
from jft.checkpoints.families import pre_tokenizers as families

PANEL = Path(tokenizer.__file__).parent.parent / "data" / "retention"
NASTY = [
    *(
        "",
        " ",
        "  ",
        "   leading",
        "trailing   ",
        "a  b   c    d",
        "\t",
        "\t\tx\t",
        "\n",
        "\n\n\n",
        "a\n b\r\nc\r",
    ),
    *("1", "12", "123", "1234567", "3.14 of 10,000", "1e-9", "x1y22z333", "١٢٣", "½", "²"),
    *(
        "I've, you'll, WE'D, it's 'quoted' don't",
        "O'Neill's",
        "HelloWorld fooBAR iOS",
        "ÄÖÜß naïve",
    ),
    *(
        "中文测试，你好。",
        "日本語のテキスト",
        "한국어 텍스트",
        "русский текст",
        "שלום עולם",
        "مرحبا بالعالم",
        "हिन्दी पाठ",
    ),
    *(
        "e\u0301 vs \u00e9",
        "a\u0308\u0323",
        "\u200bzero\u200bwidth\u200d",
        "\ufeffbom",
        "\u202eright\u202c",
    ),
    *("🎉🎊", "👨‍👩‍👧‍👦", "🇩🇪🇫🇷", "\U0001f9d1\U0001f3fd", "a\u00a0b\u3000c\u2003d", "\x00\x01\x7f"),
    *(
        "def f(x):\n    return x != 1  # ok",
        '<div class="a">&amp;</div>',
        "https://x.y/z?a=b&c=%20",
        "___init__",
    ),
    *("▁", "▁▁a▁b", "<0x41>", "<unk>", "$$$ ### @@@ !!!", "...?!—–-", "\\n\\t", "''''\"\"\"```"),
    *("<|end|>", "a<|end|>b", " <|end|> ", "<|end|><|end|>", "<|end", "<s>x</s>", "x<s>", "</s>"),
]
CONTROL = ("<|end|>", "<s>", "</s>")


def nasty_texts():
    """The list, and three hundred texts put together from it and from sentences."""
    rng = np.random.default_rng(0)
    pieces = [*NASTY, *corpus()[:60]]
    drawn = ["".join(rng.choice(pieces, rng.integers(2, 6))) for _ in range(300)]
    return [*NASTY, *drawn]


def corpus():
    """Texts of ten kinds that the package ships."""
    return [
        row["text"]
        for file in sorted(PANEL.glob("text/*.json"))
        for row in json.loads(file.read_text())
    ]


def trained(pre, alphabet, size=900):
    """The vocabulary and the merges that a corpus gives with a pre-tokenizer."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*corpus(), *NASTY], trainer)
    state = json.loads(backend.to_str())["model"]
    return state["vocab"], [tuple(merge) for merge in state["merges"]]


def byte_level(regexes):
    splits = [pre_tokenizers.Split(tokenizers.Regex(regex), "isolated") for regex in regexes]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, to_bytes])


def byte_level_file(file, pre, vocab, merges):
    tokens = [*sorted(vocab, key=vocab.get), *CONTROL]
    types = [1] * len(vocab) + [3] * len(CONTROL)
    special = {"eos_token_id": len(vocab), "bos_token_id": len(vocab) + 1}
    texts = [" ".join(merge) for merge in merges]
    options = {"token_merges": texts, "tokenizer_pre": pre, "add_bos_token": False}
    return _write_gguf(file, "gpt2", tokens, types, **options, **special)


def assert_same(ours, theirs):
    theirs.add_special_tokens({"additional_special_tokens": list(CONTROL)})
    assert len(theirs) == ours.vocab_size
    for text in nasty_texts():
        want = theirs(text, add_special_tokens=False).input_ids
        got = ours.encode([text])[0][len(ours.prefix) :].tolist()
        assert got == want, text


@pytest.mark.parametrize("name", ["qwen2", "gpt-2"])
def test_byte_level_tokenizers_equal_transformers(name, tmp_path):
    from transformers import GPT2Tokenizer, Qwen2Tokenizer

    alphabet = gguf_tokenizer.byte_alphabet()
    vocab, merges = trained(byte_level(families.PRE[name].patterns), alphabet)
    assert len(merges) > 300
    ours = tokenizer.load(byte_level_file(tmp_path / "t.gguf", name, vocab, merges))
    kind = {"qwen2": Qwen2Tokenizer, "gpt-2": GPT2Tokenizer}[name]
    whole = vocab | {token: len(vocab) + i for i, token in enumerate(CONTROL)}
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": None, "pad_token": None}
    assert_same(ours, kind(vocab=whole, merges=merges, **special))


def test_llama3_splits_as_transformers_converts_tiktoken():
    from transformers.convert_slow_tokenizer import TikTokenConverter

    assert TikTokenConverter().pattern == families.LLAMA3


@pytest.mark.parametrize("name", sorted(families.PRE))
def test_every_pre_tokenizer_loses_nothing(name, tmp_path):
    vocab, merges = trained(byte_level(families.PRE[name].patterns), gguf_tokenizer.byte_alphabet())
    ours = tokenizer.load(byte_level_file(tmp_path / "t.gguf", name, vocab, merges))
    for text in nasty_texts():
        if families.PRE[name].nfc or any(control in text for control in CONTROL):
            continue
        assert ours.decode(ours.encode([text])[0]) == text


@pytest.mark.parametrize("prefix_space", [True, False], ids=["llama", "gemma"])
def test_sentencepiece_tokenizers_equal_transformers(prefix_space, tmp_path):
    """Scores instead of merges, bytes for the unknown, with and without a space before the text."""
    from transformers import GemmaTokenizer, LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    pre = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix_space else "never")
    pieces, _ = trained(pre, [])
    # Single characters that are rare are left to the bytes.
    words = [piece for piece in sorted(pieces, key=pieces.get) if len(piece) > 1 or piece.isascii()]
    words = list(dict.fromkeys(["▁", *words]))
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *words,
        "<|end|>",
    ]
    types = [2, 3, 3, *[6] * 256, *[1] * len(words), 3]
    # Longer words were merged later.
    scores = [0.0] * 259 + [-float(i) for i in range(len(words))] + [0.0]
    special = {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0}
    options = {"token_scores": scores, "add_space_prefix": prefix_space}
    file = _write_gguf(tmp_path / "t.gguf", "llama", tokens, types, **options, **special)
    vocab = {token: i for i, token in enumerate(tokens)}
    of_words = {
        word: score for word, score, kind in zip(tokens, scores, types, strict=True) if kind == 1
    }
    merges = generate_merges(vocab, of_words)
    assert len(merges) > 300
    kind = LlamaTokenizer if prefix_space else GemmaTokenizer
    theirs = kind(
        vocab=vocab,
        merges=merges,
        bos_token="<s>",
        eos_token="</s>",
        pad_token=None,
        mask_token=None,
    )
    ours = tokenizer.load(file)
    assert_same(ours, theirs)
    found = {ours._backend.id_to_token(int(i)) for text in NASTY for i in ours.encode([text])[0]}
    assert any(re.fullmatch("<0x..>", token) for token in found)

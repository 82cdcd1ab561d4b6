"""Tokenizers of GGUF files whose tokens are written in characters."""

import random

import pytest

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.gguf.sentencepiece import merges_by
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.gguf_vocabulary import FALLBACKS, KINDS, pieces, write_vocabulary
from tests.toys.repository import ROOT

BEGIN = ("<unk>", "<s>", "</s>")
CONTROL = {"<unk>": KINDS.UNKNOWN, "<s>": KINDS.CONTROL, "</s>": KINDS.CONTROL, "<|end|>": KINDS.CONTROL}
OWN = {"  ": KINDS.USER_DEFINED, "\n\n": KINDS.USER_DEFINED}
MADE = {"ab": -1.0, "bc": -2.0, "\u2581a": -3.0, "\u2581\u2581": -4.0, "abc": -5.0}
LETTERS = ("\u2581", "a", "b", "c")
TOKENS = (*BEGIN, "<|end|>", *FALLBACKS, *MADE, *LETTERS)


def write(folder, tokens=TOKENS, scores=None, kinds=CONTROL, **said):
    given = [MADE.get(token, -100.0) for token in tokens] if scores is None else scores
    return write_vocabulary(folder, tokens, model="llama", pre="default", scores=given, kinds=kinds, **said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["\u2581", "abc"]),
        ("bc", ["\u2581", "bc"]),
        (" a", ["\u2581", "\u2581a"]),
        ("a a", ["\u2581a", "\u2581a"]),
        ("ac", ["\u2581a", "c"]),
        ("<s>a</s>  a", ["<s>", "\u2581a", "</s>", "\u2581\u2581", "\u2581a"]),
        ("a\u00e9\n", ["\u2581a", "<0xC3>", "<0xA9>", "<0x0A>"]),
        ("<|end|>\na", ["<|end|>", "\u2581", "<0x0A>", "a"]),
        ("", []),
    ],
)
def test_a_blank_is_put_before_a_text_and_behind_control_tokens(tmp_path, text, expected):
    assert pieces(tokenizer_of(write(tmp_path)), text) == expected


@pytest.mark.parametrize(
    ("architecture", "said", "begins"),
    [
        ("llama", {"add_space_prefix": False}, False),
        ("llama", {"add_space_prefix": True}, True),
        ("gemma3", {"add_space_prefix": True}, True),
        ("gemma3", {}, False),
        ("internlm2", {}, True),
    ],
)
def test_whether_a_blank_is_put_there(tmp_path, architecture, said, begins):
    tokenizer = tokenizer_of(write(tmp_path, architecture=architecture, **said))
    ids = tokenizer("a<s>a", add_special_tokens=False)["input_ids"]
    a = "\u2581a" if begins else "a"
    assert tokenizer.convert_ids_to_tokens(ids) == [a, "<s>", a]
    assert Vocabulary(tokenizer, ()).decode(Vocabulary(tokenizer, ()).encode("  a b")) == "  a b"


def test_blanks_and_lines_that_are_the_users_own_tokens(tmp_path):
    """As Gemma's, which files write with blanks, and which merges would make otherwise."""
    tokens = (*TOKENS, *OWN)
    tokenizer = tokenizer_of(write(tmp_path, tokens, kinds=CONTROL | OWN, add_space_prefix=False))
    ids = tokenizer("a   a\n\n\na", add_special_tokens=False)["input_ids"]
    assert ids == [tokens.index(each) for each in ("a", "  ", "\u2581a", "\n\n", "<0x0A>", "a")]
    assert tokenizer.decode(ids) == "a   a\n\n\na"


@pytest.mark.parametrize("architecture", ["llama", "phi3", "gemma"])
def test_control_tokens_in_documents_are_text(tmp_path, architecture):
    vocabulary = Vocabulary(tokenizer_of(write(tmp_path, architecture=architecture)), ())
    for text in ("a</s>b", "a </s> b", "</s>\n\na", " <|end|>  <s>b", "a<unk>"):
        ids = vocabulary.encode(text)
        assert {TOKENS.index(each) for each in CONTROL}.isdisjoint(ids) and vocabulary.decode(ids) == text


def test_phi_3_takes_blanks_behind_control_tokens_along(tmp_path):
    tokenizer = tokenizer_of(write(tmp_path, architecture="phi3"))
    assert pieces(tokenizer, "<|end|>\n \nabc<s> a") == ["<|end|>", "\u2581", "abc", "<s>", "\u2581", "\u2581a"]


def test_roles_that_files_leave_out(tmp_path):
    tokenizer = tokenizer_of(write(tmp_path))
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("a")["input_ids"] == [1, TOKENS.index("\u2581a")]


def test_letters_that_no_token_has_are_unknown(tmp_path):
    tokens = [token for token in TOKENS if token not in FALLBACKS]
    assert pieces(tokenizer_of(write(tmp_path, tokens)), "a\u00e9\u00e9b") == ["\u2581a", "<unk>", "b"]


def test_a_file_whose_scores_say_nothing(tmp_path):
    same = [0.0] * len(TOKENS)
    with pytest.raises(UnsupportedModelError, match="one score and has no merges"):
        tokenizer_of(write(tmp_path, scores=same))
    merges = [("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c"), ("\u2581", "a"), ("\u2581", "\u2581")]
    assert pieces(tokenizer_of(write(tmp_path, scores=same, merges=merges)), "abc") == ["\u2581", "abc"]
    with pytest.raises(ModelLoadError, match="its merges do not make its tokens"):
        tokenizer_of(write(tmp_path, scores=same, merges=[("c", "c")]))


def test_pairs_that_make_one_token_are_in_the_order_of_their_ids():
    texts = ["a", "b", "aa", "ab", "aab"]
    assert merges_by([0.0, 0.0, -2.0, -1.0, -3.0], [2, 3, 4], texts) == [
        ("a", "b"),
        ("a", "a"),
        ("a", "ab"),
        ("aa", "b"),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """SentencePiece, trained with pages of the documentation."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("trained")
    lines = [line for page in ("limits", "models") for line in (ROOT / "docs" / f"{page}.md").read_text().splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in lines if line]),
        model_prefix=str(folder / "it"),
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<|user|>"],
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "it.model"))


def test_tokens_are_those_of_sentencepiece(tmp_path, trained):
    ids = range(trained.get_piece_size())
    tokens = [trained.id_to_piece(index) for index in ids]
    kinds = {token: KINDS.CONTROL for index, token in enumerate(tokens) if trained.is_control(index)}
    kinds |= {"<unk>": KINDS.UNKNOWN, "<|user|>": KINDS.USER_DEFINED}
    scores = [trained.get_score(index) for index in ids]
    tokenizer = tokenizer_of(write_vocabulary(tmp_path, tokens, model="llama", scores=scores, kinds=kinds))
    chance = random.Random(1)
    words = [
        *(ROOT / "docs" / "tuning.md").read_text().split(),
        "\u4e2d\u6587",
        "e\u0301",
        "\n",
        "",
        "  ",
        "====",
        "\t",
    ]
    for _ in range(300):
        text = " ".join(chance.choices(words, k=20))
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == trained.encode(text)
        assert tokenizer.decode(trained.encode(text)) == text

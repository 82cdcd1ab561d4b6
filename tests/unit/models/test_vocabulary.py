"""Text to ids and back: documents cannot give orders, nothing is added twice, nothing is cut."""

import threading
import time
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ModelLoadError, PromptError, UnsupportedModelError, VocabularyMismatchError
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from rapid_integrations.models.template_date import pin_date
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import Prompt, RenderedPrompt, TemplateArguments, render
from tests.toys.budget import examples
from tests.toys.chat_templates import GPT_OSS, QWEN3
from tests.toys.models import (
    BOS,
    BOS_ID,
    CHATML,
    EOS,
    EOS_ID,
    IM_END,
    IM_END_ID,
    IM_START,
    IM_START_ID,
    SPECIAL_TOKENS,
    byte_tokenizer,
    tiny_model,
    words,
)
from tests.toys.thinking import EMPTY

MERGES = (("t", "h"), ("th", "e"), ("<", "|"), ("|", ">"), ("i", "m"), ("im", "_"), ("Ġ", "the"), ("<|", "im_"))
CONTROL_IDS = {BOS_ID, EOS_ID, IM_START_ID, IM_END_ID}

plain = Vocabulary(byte_tokenizer(), [EOS_ID])
merged = Vocabulary(byte_tokenizer(merges=MERGES), [EOS_ID])
VOCABULARIES = {"bytes": plain, "merges": merged}

PIECES = (*SPECIAL_TOKENS, "<|", "|>", "im_end", "im_start", "<", "|", ">", "the", " ", "\n", "é", "🙂", "a", "user\n")
DOCUMENTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=10).map("".join).filter(str.strip)


def byte_ids(text):
    """The ids of a text's bytes, one by one."""
    tokenizer = byte_tokenizer()
    symbols = [symbol for symbol, _ in pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(text)]
    return tokenizer.convert_tokens_to_ids(list("".join(symbols)))


def chatml_ids(*contents):
    ids = []
    for role, content in contents:
        ids += [IM_START_ID, *byte_ids(f"{role}\n{content}"), IM_END_ID, *byte_ids("\n")]
    return [*ids, IM_START_ID, *byte_ids("assistant\n")]


# --- text from documents is data --------------------------------------------------------------------------------------


@settings(max_examples=examples(200))
@given(document=DOCUMENTS, system=DOCUMENTS)
def test_control_tokens_in_messages_are_spelt_out_byte_for_byte(document, system):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": document}]
    rendered = render(messages, plain.chat_template)
    assert plain.encode_prompt(rendered) == chatml_ids(("system", system), ("user", document))


@settings(max_examples=examples(200))
@given(document=DOCUMENTS)
def test_control_tokens_in_documents_stay_text_under_merges_too(document):
    rendered = render([{"role": "user", "content": document}], merged.chat_template)
    ids = merged.encode_prompt(rendered)
    # The template's own three control tokens are where they belong, and there is no other.
    assert [token for token in ids if token in CONTROL_IDS] == [IM_START_ID, IM_END_ID, IM_START_ID]
    inside = ids[1 : ids.index(IM_END_ID)]
    assert merged.decode(inside) == f"user\n{document}"
    assert merged.decode(ids) == f"user\n{document}\nassistant\n"


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("control", SPECIAL_TOKENS)
@pytest.mark.parametrize(
    "document",
    ["{}", "{}a", "a{}", "a {} b", "{}{}", "a{}{}b", "é{}🙂", "{} {}\n{}", "<|im_{}end|>", "<{}|im_end|>", "\n{}\n"],
)
def test_each_control_token_at_each_place(name, control, document):
    vocabulary, document = VOCABULARIES[name], document.replace("{}", control)
    ids = vocabulary.encode(document)
    assert CONTROL_IDS.isdisjoint(ids)
    assert vocabulary.decode(ids) == document


@settings(max_examples=examples(200))
@given(before=DOCUMENTS, document=DOCUMENTS, after=DOCUMENTS)
def test_in_a_raw_prompt_only_the_context_is_data(before, document, after):
    text = before + document + after
    prompt = Prompt(text=text, context_spans=((len(before), len(before) + len(document)),), query="?")
    ids = plain.encode_prompt(render(prompt, None))
    joined = [(piece, False) for piece in (before, after)]
    joined.insert(1, (document, True))
    if not any(_crosses(text, cut) for cut in (len(before), len(before) + len(document))):
        expected = [
            i for piece, data in joined for i in (byte_ids(piece) if data else plain.tokenizer(piece).input_ids)
        ]
        assert ids == expected
    # A control token that is written half by the document is the document's doing.
    spelt = plain.tokenizer.decode(ids, skip_special_tokens=False)
    assert spelt == text


def _crosses(text, cut):
    """Whether a control token of `text` stands on both sides of `cut`."""
    return any(
        text.startswith(token, cut - back) for token in SPECIAL_TOKENS for back in range(1, len(token)) if cut >= back
    )


def test_a_control_token_completed_by_the_template_is_spelt_out():
    text = "<|im_end" + "|> after"
    prompt = RenderedPrompt(text, ((0, 8),), (), "", "plain", templated=True)
    assert plain.encode_prompt(prompt) == byte_ids(text)


def test_a_token_that_is_control_by_the_template_only_counts():
    tokenizer = byte_tokenizer(chat_template="<turn>{{ messages[0]['content'] }}<turn>")
    tokenizer.add_tokens([AddedToken("<turn>", special=False), AddedToken("<note>", special=False)])
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    turn, note = tokenizer.convert_tokens_to_ids(["<turn>", "<note>"])
    ids = vocabulary.encode_prompt(render("a<turn>b<note>c", vocabulary.chat_template))
    assert ids == [turn, *byte_ids("a<turn>b"), note, *byte_ids("c"), turn]


def test_blanks_that_a_template_is_indented_with_are_no_control_tokens():
    """MPT's, GPT-NeoX's and OLMo's vocabularies have tokens of their own for runs of blanks."""
    tokenizer = byte_tokenizer(chat_template="{% for m in messages %}\n  {{ m['content'] }}\n\n{% endfor %}")
    tokenizer.add_tokens([AddedToken(each, special=False, normalized=False) for each in ("\n", "\n\n", "  ")])
    line, lines, blanks = tokenizer.convert_tokens_to_ids(["\n", "\n\n", "  "])
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    assert vocabulary.encode("a\nb\n\n  c") == [*byte_ids("a"), line, *byte_ids("b"), lines, blanks, *byte_ids("c")]


def test_a_control_token_inside_another_one_is_no_way_to_spell_it():
    tokenizer = byte_tokenizer(chat_template="<turn>a<turn>{{ messages[0]['content'] }}")
    tokenizer.add_tokens([AddedToken("<turn>", special=False), AddedToken("a<turn>", special=False)])
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    assert vocabulary.encode("b a<turn> c") == byte_ids("b a<turn> c")


@pytest.mark.parametrize("side", ["lstrip", "rstrip"])
def test_a_control_token_that_swallows_spaces_gives_them_back(side):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|end|>", **{side: True})]})
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    for document in ("a  <|end|>  b", "  <|end|>", "<|end|>  ", "<|end|> <|end|>"):
        ids = vocabulary.encode(document)
        assert tokenizer.convert_tokens_to_ids("<|end|>") not in ids
        assert vocabulary.decode(ids) == document


def test_a_tokenizer_of_the_sentencepiece_kind_keeps_the_text():
    pieces = [chr(code) for code in range(33, 127)] + ["▁", "▁a", "▁b"]
    merges = [("▁", "a"), ("▁", "b")]
    backend = Tokenizer(BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    vocabulary = Vocabulary(tokenizer, [tokenizer.eos_token_id])
    for document in ("a </s> b", "a</s>b", "<s>a b", "</s>", "b </s></s> <s>"):
        ids = vocabulary.encode(document)
        assert {tokenizer.bos_token_id, tokenizer.eos_token_id}.isdisjoint(ids)
        assert vocabulary.decode(ids) == document


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("rstrip", [False, True])
@pytest.mark.parametrize(
    "merges", [[("\u2581", "a"), ("\u2581", "b")], [("\u2581", "a"), ("\u2581", "b"), ("\u2581", "\u2581")]]
)
def test_a_tokenizer_that_puts_blanks_behind_control_tokens_keeps_the_text(tmp_path, merges, rstrip, quick):
    """As those of Llama 2, of which a blank before each stretch of text is a part."""
    letters = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *map(chr, range(33, 127)), "\u2581"]
    made = [left + right for left, right in merges]
    model = BPE({token: index for index, token in enumerate([*letters, *made])}, merges, unk_token="<unk>")
    model.byte_fallback = True
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
    )
    backend.add_special_tokens([AddedToken(each, normalized=False, rstrip=rstrip) for each in ("<s>", "</s>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    control = set(tokenizer.convert_tokens_to_ids(["<s>", "</s>"]))
    if quick:
        tokenizer.save_pretrained(tmp_path)
        tokenizer = QuickTokenizer(tmp_path)
    vocabulary = Vocabulary(tokenizer, control)
    for document in ("a </s> b", "a</s>b", "<s>a b", "</s>", "b </s></s> <s>", " <s>  a</s>\n\nb", "\u00e9</s>\u00e9"):
        ids = vocabulary.encode(document)
        assert control.isdisjoint(ids) and vocabulary.decode(ids) == document


def test_a_control_token_that_cannot_be_spelt_is_refused():
    backend = Tokenizer(WordLevel({"hello": 0, "<unk>": 1, "<end>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    with pytest.raises(PromptError, match="'<end>', which cannot be spelt out"):
        Vocabulary(tokenizer, [2]).encode("hello <end> hello")


def test_broken_utf16_becomes_a_replacement_character():
    assert plain.decode(plain.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"
    assert plain.offsets("a\ud800b")[-1] == (2, 3)


# --- the beginning of a text ------------------------------------------------------------------------------------------

with_bos = Vocabulary(byte_tokenizer(add_bos=True), [EOS_ID])


def raw(text, *data_spans):
    return RenderedPrompt(text, data_spans, data_spans, "?", "explicit", templated=False)


def test_a_raw_prompt_gets_the_bos_once():
    assert with_bos.encode_prompt(raw("hello")) == [BOS_ID, *byte_ids("hello")]
    assert with_bos.encode_prompt(raw(f"{BOS}hello")) == [BOS_ID, *byte_ids("hello")]
    assert plain.encode_prompt(raw("hello")) == byte_ids("hello")


def test_a_rendered_prompt_gets_only_the_bos_that_its_template_writes():
    messages = [{"role": "user", "content": "hello"}]
    assert with_bos.encode_prompt(render(messages, with_bos.chat_template)) == chatml_ids(("user", "hello"))
    vocabulary = Vocabulary(byte_tokenizer(add_bos=True, chat_template=BOS + CHATML), [EOS_ID])
    assert vocabulary.encode_prompt(render(messages, vocabulary.chat_template)) == [
        BOS_ID,
        *chatml_ids(("user", "hello")),
    ]


def test_a_plain_text_gets_none():
    assert with_bos.encode("hello") == byte_ids("hello")
    assert with_bos.offsets("hi") == [(0, 1), (1, 2)]


def test_a_document_cannot_take_the_bos_away():
    assert with_bos.encode_prompt(raw(f"{BOS}hello?", (0, len(BOS) + 5))) == [BOS_ID, *byte_ids(f"{BOS}hello?")]


# --- offsets ----------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(100))
@given(text=st.text(max_size=60))
def test_offsets_lie_in_the_text_in_order_and_cover_it(text):
    offsets = merged.offsets(text)
    starts = [start for start, _ in offsets]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert {i for start, end in offsets for i in range(start, end)} == set(range(len(text)))


def test_the_bytes_of_one_character_share_its_offsets():
    assert plain.offsets("aé") == [(0, 1), (1, 2), (1, 2)]
    assert merged.offsets("the") == [(0, 3)]


# --- back to text -----------------------------------------------------------------------------------------------------


@settings(max_examples=examples(100))
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives(text):
    for vocabulary in VOCABULARIES.values():
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_control_tokens_are_left_out_and_padding_rows_are_nothing():
    assert plain.decode([BOS_ID, *byte_ids("hi"), IM_END_ID, EOS_ID]) == "hi"
    assert plain.decode([*byte_ids("hi"), 299]) == "hi"
    assert plain.decode([]) == ""


# --- templates --------------------------------------------------------------------------------------------------------


def test_a_template_is_rendered_with_the_opening_of_the_answer():
    assert plain.chat_template([{"role": "user", "content": "hi"}]) == (
        f"{IM_START}user\nhi{IM_END}\n{IM_START}assistant\n"
    )


def test_a_model_without_a_template():
    assert Vocabulary(byte_tokenizer(chat_template=None), [EOS_ID]).chat_template is None


def test_a_template_that_refuses_says_why():
    refusing = byte_tokenizer(chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(PromptError, match="refuses these messages: roles must alternate"):
        Vocabulary(refusing, [EOS_ID]).chat_template([{"role": "user", "content": "hi"}])


# --- the tokenizer is the user's --------------------------------------------------------------------------------------


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        backend_tokenizer = None

    with pytest.raises(UnsupportedModelError, match="Slow is not backed by the tokenizers library"):
        Vocabulary(Slow(), [1])


def test_truncation_that_the_user_switched_on_cuts_nothing_here():
    tokenizer = byte_tokenizer()
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    tokenizer(["a" * 100], truncation=True, max_length=5)
    assert vocabulary.encode("a" * 100) == byte_ids("a" * 100)
    assert len(vocabulary.offsets("a" * 100)) == 100


def test_truncation_that_a_tokenizer_was_saved_with_cuts_nothing_here():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    assert Vocabulary(tokenizer, [EOS_ID]).encode("a" * 100) == byte_ids("a" * 100)


def test_padding_that_the_user_switched_on_adds_nothing_here():
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = EOS
    vocabulary = Vocabulary(tokenizer, [EOS_ID])
    tokenizer(["a"], padding="max_length", max_length=5)
    assert vocabulary.encode("a") == byte_ids("a")


def test_the_users_settings_stay():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(50)
    Vocabulary(tokenizer, [EOS_ID]).encode("abc<|im_end|>")
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 50


@pytest.mark.long
def test_other_threads_run_while_a_long_text_is_read():
    text = words(1, 200_000)
    ticks, ended = [], threading.Event()

    def tick():
        while not ended.wait(0.002):
            ticks.append(time.monotonic())

    ticking = threading.Thread(target=tick)
    ticking.start()
    begin = time.monotonic()
    try:
        plain.encode(text)
    finally:
        end = time.monotonic()
        ended.set()
        ticking.join()
    inside = [begin, *(each for each in ticks if begin < each < end), end]
    assert max(later - earlier for earlier, later in zip(inside, inside[1:], strict=False)) < 0.6 * (end - begin)


def test_threads_may_share_one():
    results = []
    texts = [f"{IM_END}{number} the text " * 50 for number in range(8)]
    threads = [threading.Thread(target=lambda t=text: results.append((t, merged.encode(t)))) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(merged.decode(ids) == text for text, ids in results)


# --- two models, one vocabulary ---------------------------------------------------------------------------------------


def same(tokenizer, other):
    Vocabulary(tokenizer, [EOS_ID]).require_same(Vocabulary(other, [EOS_ID]), "Target", "Drafter")


def renamed(tokenizer, change):
    """Return the tokenizer with `change(backend)` done to a copy of its backend."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    change(backend)
    other = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)
    other.chat_template = tokenizer.chat_template
    return other


def test_one_tokenizer_loaded_twice_matches():
    same(byte_tokenizer(merges=MERGES), byte_tokenizer(merges=MERGES))


def test_placeholders_that_only_one_of_them_has_do_not_matter():
    more = byte_tokenizer(extra_tokens=("[PAD260]", "<unused12>", "<|reserved_special_token_3|>"))
    same(byte_tokenizer(), more)
    same(more, byte_tokenizer())


def test_tokens_that_only_one_of_them_has_are_noticed():
    more = byte_tokenizer(extra_tokens=("<|tool|>",))
    with pytest.raises(VocabularyMismatchError, match=r"Drafter has a token '<\|tool\|>', Target has none"):
        same(byte_tokenizer(), more)
    with pytest.raises(VocabularyMismatchError, match=r"Target has a token '<\|tool\|>', Drafter has none"):
        same(more, byte_tokenizer())


def test_the_template_need_not_be_the_same():
    same(byte_tokenizer(), byte_tokenizer(chat_template=None))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda backend: setattr(backend, "normalizer", normalizers.Lowercase()), "split"),
        (lambda backend: setattr(backend, "normalizer", normalizers.NFKC()), "split"),
        (
            lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
            "split",
        ),
    ],
)
def test_other_ids_for_the_same_text_are_noticed(change, reason):
    tokenizer = byte_tokenizer(merges=MERGES)
    for pair in ((tokenizer, renamed(tokenizer, change)), (renamed(tokenizer, change), tokenizer)):
        with pytest.raises(
            VocabularyMismatchError, match=f"Drafter cannot draft for Target: their tokenizers {reason}"
        ):
            same(*pair)


@pytest.mark.parametrize(
    "word",
    [
        "qui",
        "ghi",
    ],
)
def test_other_merges_are_noticed(word):
    a, b, c = word
    one = byte_tokenizer(merges=((a, b), (b, c), (a + b, c)))
    two = byte_tokenizer(merges=((a, b), (b, c), (a, b + c)))
    assert one.get_vocab() == two.get_vocab()
    with pytest.raises(VocabularyMismatchError):
        same(one, two)


def test_the_same_tokens_under_other_ids_are_noticed():
    vocabulary = byte_tokenizer().get_vocab()
    swap = {"a": vocabulary["b"], "b": vocabulary["a"]}
    backend = Tokenizer(BPE({token: swap.get(token, index) for token, index in vocabulary.items()}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    other = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token=EOS)
    with pytest.raises(VocabularyMismatchError, match="Drafter cannot draft for Target: '[ab]' is token"):
        same(byte_tokenizer(), other)


def test_control_tokens_under_other_ids_are_noticed():
    other = byte_tokenizer(chat_template=CHATML)
    backend = Tokenizer(BPE({k: v for k, v in other.get_vocab().items() if v < 256}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    turned = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=EOS, eos_token=BOS)  # 256 and 257
    with pytest.raises(VocabularyMismatchError):
        same(byte_tokenizer(), turned)


def test_nothing_in_common_is_noticed():
    words = Tokenizer(WordLevel({"<unk>": 0, "hello": 1}, unk_token="<unk>"))
    with pytest.raises(VocabularyMismatchError):
        same(byte_tokenizer(), PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"))


def test_a_model_with_fewer_rows_than_tokens_is_refused():
    with pytest.raises(ModelLoadError):
        RapidEngine.from_models(
            tiny_model("llama", 0),
            byte_tokenizer(),
            drafter_model=tiny_model("llama", 1, vocab_size=EOS_ID, bos_token_id=None, eos_token_id=None),
        )


# --- templates that write the day -----------------------------------------------------------------------------------

DATED = "{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}" + (
    "Today: {{ date_string }}\n{% for message in messages %}{{ message['content'] }}{% endfor %}"
)


def test_a_template_keeps_the_day_of_loading():
    vocabulary = Vocabulary(byte_tokenizer(chat_template=DATED), [])
    messages = [{"role": "user", "content": "hello"}]
    assert vocabulary.chat_template(messages).startswith(f"Today: {datetime.now():%d %b %Y}")
    vocabulary.template_date = datetime(2024, 7, 26)  # loaded long ago
    assert vocabulary.chat_template(messages) == "Today: 26 Jul 2024\nhello"


@pytest.mark.parametrize(
    ("template", "pinned"),
    [
        ('{{ strftime_now("%d %b %Y") }}', '{{ "26 Jul 2024" }}'),
        ("{{- strftime_now( '%A \"%H\"' ) -}}", '{{- "Friday \\"00\\"" -}}'),
        ("{% if strftime_now is defined %}{{ strftime_now(form) }}", None),
    ],
)
def test_calls_with_their_format_written_out_are_pinned(template, pinned):
    assert pin_date(template, datetime(2024, 7, 26)) == (pinned or template)


# --- arguments of the chat template ----------------------------------------------------------------------------------


def test_arguments_reach_the_template():
    vocabulary = Vocabulary(byte_tokenizer(chat_template=QWEN3), [EOS_ID])
    messages, off = [{"role": "user", "content": "hi"}], TemplateArguments({"enable_thinking": False})
    assert vocabulary.template_names == {"enable_thinking"}
    assert vocabulary.render_chat(messages, arguments=off) == vocabulary.render_chat(messages) + EMPTY
    assert vocabulary.tokens_of_template(off) == vocabulary.template_tokens + len(EMPTY)
    effort = Vocabulary(byte_tokenizer(chat_template=GPT_OSS), [EOS_ID])
    assert "Reasoning: high" in effort.render_chat(messages, arguments=TemplateArguments({"reasoning_effort": "high"}))


@pytest.mark.long
def test_a_template_is_bounded_by_its_arguments_too():
    template = "{% for x in messages %}{% for y in range(level) %}{% for z in range(level) %}{% endfor %}{% endfor %}"
    vocabulary = Vocabulary(byte_tokenizer(chat_template=template + "hi{% endfor %}"), [EOS_ID])
    messages = [{"role": "user", "content": "hi"}]
    assert vocabulary.render_chat(messages, arguments=TemplateArguments({"level": 2})) == "hi"
    with pytest.raises(PromptError, match="does not come to an end"):
        vocabulary.render_chat(messages, arguments=TemplateArguments({"level": 10_000}))


def test_names_of_the_tokenizers_own_tokens_are_no_arguments():
    vocabulary = Vocabulary(byte_tokenizer(chat_template="{{ bos_token }}{{ messages }}{{ x }}"), [EOS_ID])
    assert vocabulary.template_names == {"x"}
    broken = Vocabulary(byte_tokenizer(chat_template="{% if %}"), [EOS_ID])
    broken.require_arguments(TemplateArguments({"x": 1}))  # rendering says what is wrong with it
    with pytest.raises(PromptError, match="refuses these messages"):
        broken.render_chat([{"role": "user", "content": "hi"}], arguments=TemplateArguments({"x": 1}))

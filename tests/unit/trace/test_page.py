"""The page: whole, self-contained, and with nothing in it that a document could bring to life."""

import re
from html.parser import HTMLParser

import pytest

from rapid_integrations import ConfigurationError, Prompt, SamplingParams
from rapid_integrations.trace import Candidate, TracedRound, TracedToken, plots, render_html, write_html
from tests.toys.engines import engine
from tests.toys.models import words

EVIL = "</mark></div></script><script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> {{ 7 * 7 }} {% raw %}"


class Page(HTMLParser):
    """Every element, with its attributes, and every text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self):
        return "".join(text for place, text in self.texts if place != "style")


@pytest.fixture(scope="module")
def shared():
    return engine()


@pytest.fixture(scope="module")
def completion(shared):
    document = words(1, 100) + EVIL + words(2, 60)
    prompt = Prompt.from_context([document, EVIL * 3], f"which words? {EVIL}")
    return shared.generate(prompt, sampling=SamplingParams(max_new_tokens=40), trace=True)


def with_tokens(completion, *texts):
    """Return the completion with an answer of these tokens."""
    best = tuple(Candidate(token_id=1, token=text, probability=0.5) for text in texts)
    tokens = tuple(
        TracedToken(
            token_id=1, token=text, text=text, origin="drafter", p=0.5, q=0.5, p_hat=0.5, top_p=best, top_q=best
        )
        for text in texts
    )
    one = TracedRound(
        tokens=tokens, drafted=len(texts), accepted=len(texts), propose_s=0, score_s=0, verify_s=0, elapsed_s=1
    )
    return completion.model_copy(update={"trace": completion.trace.model_copy(update={"rounds": (one,)})})


def test_elements_are_closed_and_only_known_ones_occur(completion):
    page = Page(render_html(completion))
    assert page.open == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base", "link", "audio", "video"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")], tag
        assert attributes.get("href", "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for tag, attributes in page.elements if tag == "a"} == {f"#{each}" for each in ids}


def test_what_documents_say_stays_text(completion):
    html = render_html(completion, ["<script>a</script>.md", 'b"onmouseover="x.md'])
    page = Page(html)
    assert "<script" not in html and "<img" not in html
    assert page.text.count("<script>alert(1)</script>") >= 5  # the question, and the documents
    assert "{{ 7 * 7 }} {% raw %}" in page.text and "49" not in page.text.split("Settings")[0].split("Answer")[0]
    assert "<script>a</script>.md" in page.text and 'b"onmouseover="x.md' in page.text


def test_what_models_say_stays_text(completion):
    page = render_html(with_tokens(completion, "<script>", "alert(3)", "</script>", "\0\x1b[31m", "\u202e", '"><b>'))
    assert "<script" not in page and "\0" not in page and "\x1b" not in page
    assert "␀␛[31m" in Page(page).text


def test_the_page_forbids_itself_everything(completion):
    policies = [
        attributes["content"]
        for tag, attributes in Page(render_html(completion)).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert not re.search(r"url\(|@import|https?:", render_html(completion).replace("http-equiv", ""))


def test_the_answer_reads_as_it_is(completion):
    texts = ["Line one,", " it", " is.", "\n\n", "- two", "\n", "  - indented"]
    html = render_html(with_tokens(completion, *texts))
    answer = html.split('<div class="card answer">')[1].split("</div>")[0]
    shown = re.sub(r'<span class="d".*?</span></span>(?=<span class="tok|$)', "", answer, flags=re.S)
    shown = re.sub(r'<span class="mark">[^<]*</span>|</?span[^>]*>', "", shown)
    assert shown == "".join(texts)


def test_every_token_has_its_origin_and_numbers(completion):
    page = Page(render_html(completion))
    tokens = [attributes for tag, attributes in page.elements if "tok" in attributes.get("class", "").split()]
    trace = completion.trace
    legend = 1 if any(token.changed_by_retrieval for token in trace.tokens) else 0
    assert len(tokens) == len(trace.tokens) + legend
    for attributes, token in zip(tokens[legend:], trace.tokens, strict=True):
        assert attributes["class"].split()[1] == token.origin
        assert attributes["tabindex"] == "0"
    for symbol in ("target", "drafter", "augmented"):
        assert symbol in page.text


def test_the_chunks_are_marked_in_the_documents(completion):
    html = render_html(completion, ["a.md", "b.md"])
    assert completion.retrieved
    for number, chunk in enumerate(completion.retrieved, 1):
        mark = html.split(f'<mark id="chunk-{number}">')[1].split("</mark>")[0]
        assert (
            Page(mark.split("</b>")[1]).text
            == chunk.text
            == completion.trace.contexts[chunk.context][chunk.start : chunk.end]
        )
        assert f"score {chunk.score:.3f}" in mark
    for name, context in zip(("a.md", "b.md"), completion.trace.contexts, strict=True):
        section = html.split(f"<h3><bdi>{name}</bdi></h3>")[1].split("</div>")[0].split(">", 1)[1]
        section = re.sub(r"<b dir.*?</b>|<summary>.*?</summary>", "", section, flags=re.S)
        assert Page(section + "</div>" if "<div" in section else section).text == context


def test_long_stretches_that_only_the_target_read_are_folded(shared):
    document = words(1, 2000)
    completion = shared.generate(Prompt.from_context(words(3, 100), "which?"), trace=True)
    folded = completion.model_copy(
        update={"retrieved": (), "trace": completion.trace.model_copy(update={"contexts": (document,)})}
    )
    assert f"<summary>{len(document):,} characters that only the target read" in render_html(folded)


def test_a_prompt_without_documents(shared):
    completion = shared.generate("say something", trace=True)
    assert "What the drafter read" not in render_html(completion)


def test_what_cannot_be_written(shared, completion, tmp_path):
    with pytest.raises(ConfigurationError, match="trace=True"):
        write_html(tmp_path / "a.html", shared.generate("say something"))
    with pytest.raises(ConfigurationError, match="1 names for 2 documents"):
        write_html(tmp_path / "a.html", completion, ["a"])
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_html(tmp_path / "missing" / "a.html", completion)
    surrogate = completion.model_copy(
        update={"trace": completion.trace.model_copy(update={"contexts": ("\ud83d", "b"), "question": "\udcff"})}
    )
    write_html(tmp_path / "a.html", surrogate)
    assert (tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")


def test_chances_are_never_rounded_to_certainty(completion):
    from rapid_integrations.trace.page import _chance

    assert [_chance(x) for x in (None, 0.0, 1e-7, 0.25, 0.9996, 1.0)] == [
        "-",
        "0.000",
        "1e-07",
        "0.250",
        ">0.999",
        "1.000",
    ]


# --- plots ----------------------------------------------------------------------------------------------------------


def rounds(*shapes):
    elapsed = 0.0
    made = []
    for drafted, accepted, seconds in shapes:
        elapsed += seconds
        token = TracedToken(token_id=1, token="x", text="x", origin="drafter", p=1, q=None, p_hat=None, top_p=())
        made.append(
            TracedRound(
                tokens=(token,) * (accepted + 1),
                drafted=drafted,
                accepted=accepted,
                propose_s=seconds / 2,
                score_s=0.0,
                verify_s=seconds / 4,
                elapsed_s=elapsed,
            )
        )
    return made


def test_bars_show_what_was_accepted():
    bars = plots.acceptance_bars(rounds((4, 3, 1.0), (2, 0, 1.0), (0, 0, 1.0))).bars
    tall = plots.HEIGHT
    assert [(bar.accepted_height, bar.rejected_height) for bar in bars] == [
        (0.75 * tall, 0.25 * tall),
        (0, tall / 2),
        (0, 0),
    ]
    assert bars[0].label == "round 1: 3 of 4 draft tokens accepted"


def test_many_rounds_share_bars():
    many = plots.acceptance_bars(rounds(*[(4, 2, 0.1)] * 1000))
    assert len(many.bars) == plots.MAX_BARS and many.per_bar == 10
    assert "rounds 1 to 10 (mean): 2 of 4" in many.bars[0].label
    assert all(0 <= tick.at <= plots.WIDTH for tick in many.x_ticks)


def test_areas_add_up_to_the_time():
    times = plots.time_areas(rounds((4, 3, 2.0), (4, 1, 1.0)))
    assert {area.name: area.seconds for area in times.areas} == {"drafting": 1.5, "verifying": 0.75, "the rest": 0.75}
    corner = f"{plots.WIDTH:.1f},"
    assert corner in times.areas[-1].points


@pytest.mark.parametrize("most", [0, 1e-9, 0.003, 1, 5, 7, 16, 99, 12345])
def test_ticks_are_few_and_within(most):
    ticks, top = plots._ticks(most)
    assert 1 <= len(ticks) <= 6 and ticks[0] == 0 and top >= max(most, ticks[-1]) > 0 or most == 0
    whole, _ = plots._ticks(most, whole=True)
    assert all(tick == int(tick) for tick in whole)


def test_no_rounds_at_all():
    assert plots.acceptance_bars([]).bars == ()
    assert plots.time_areas([]).areas == ()

"""The page at `/` for everybody and against anybody: keyboard, screen readers, narrow windows, hostile texts."""

import pytest

from tests.toys.asking_page import ask, choose_all, give
from tests.toys.models import words
from tests.toys.served import uploaded

pytestmark = pytest.mark.browser

QUESTION = "What is this about?"
OWNED = "<script>window.owned=1</script><img src=x onerror='window.owned=1'><style>*{display:none}</style>"
# The second name ends in "txt.exe" to the eye: it holds a character that turns the direction of writing.
NAMES = (f"{OWNED}.txt".replace("/", "\u2215"), "report\u202eexe.txt", "n" * 150 + ".txt", "שלום \"'&amp;.txt")


def test_hostile_names_and_documents_are_text(served, opened):
    address, client = served
    for name in NAMES:
        uploaded(client, f"{OWNED} {words(1, 60)} javascript:alert(1) {OWNED}", name)
    page = opened(address)
    choose_all(page, len(NAMES))
    ask(page, f"{OWNED}?")
    assert page.locator(".turn h2").inner_text() == f"{OWNED}?"
    page.locator(".source").first.click()
    page.locator("#passage-text mark").wait_for()
    assert OWNED in page.locator("#passage-text").text_content()
    page.reload()
    page.locator(".turn").wait_for()
    assert (
        page.locator("img").count() == 0 and page.locator("style").count() == 0 and page.locator("script").count() == 1
    )
    assert page.evaluate("window.owned") is None
    page.locator("#list li").first.wait_for()  # the list comes a moment after the turns


def test_the_policy_forbids_what_slipped_through(served, opened):
    address, _ = served
    page = opened(address)
    attacks = page.evaluate(
        """() => {
          const failed = [];
          const tried = (name, attack) => { try { attack(); } catch (error) { failed.push(name); } };
          tried("innerHTML", () => { document.body.innerHTML = "<b>x</b>"; });
          tried("script text", () => {
            const script = document.createElement("script");
            script.textContent = "window.owned = 1";
            document.head.append(script);
          });
          tried("script address", () => { document.createElement("script").src = "https://attacker.example/x.js"; });
          tried("handler", () => { document.body.setAttribute("onclick", "window.owned = 1"); });
          return failed;
        }"""
    )
    assert attacks == ["innerHTML", "script text", "script address", "handler"]
    style = page.evaluate(
        """() => {
          const style = document.createElement("style");
          style.textContent = "body { opacity: 0 }";
          document.head.append(style);
          return getComputedStyle(document.body).opacity;
        }"""
    )
    assert style == "1" and page.evaluate("window.owned") is None


def test_everything_is_done_with_the_keyboard(served, opened):
    address, client = served
    uploaded(client, words(2, 200), "report.txt")
    page = opened(address)
    page.get_by_label("report.txt", exact=True).wait_for()
    focused = "document.activeElement"

    def tab_to(what, most=25):
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"{focused}.matches({what!r})"):
                # What has the focus is to be seen.
                assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") != "none"
                return
        raise AssertionError(f"Tab does not reach {what}")

    tab_to("#list input")
    page.keyboard.press("Space")
    assert page.locator("#list input").is_checked()
    page.keyboard.press("Home")
    tab_to("#question")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.locator(".summary").wait_for()
    assert "Answer" in page.locator("#status").inner_text()
    assert page.evaluate(f"{focused}.id") == "question"
    page.evaluate("document.querySelector('#list input').focus()")
    tab_to(".answer")
    for expected in (0, 1, 2):
        page.keyboard.press("ArrowRight")
        assert page.locator(".token.current").get_attribute("data-index") == str(expected)
    page.keyboard.press("ArrowLeft")
    assert page.locator(".token.current").get_attribute("data-index") == "1"
    assert "Probabilities: target" in page.locator(".inspector").inner_text()
    tab_to(".source")
    page.keyboard.press("Enter")
    page.locator("#passage-text mark").wait_for()
    assert page.evaluate(f"{focused}.id") == "passage-text"
    page.keyboard.press("Escape")
    page.locator("#passage").wait_for(state="hidden")
    assert page.evaluate(f"{focused}.className") == "source"


def test_every_control_has_a_name_for_a_screen_reader(served, opened):
    address, client = served
    page = opened(address)
    give(page, ("report.txt", words(2, 200)))
    ask(page, QUESTION)
    for summary in page.locator("summary").all():
        summary.click()
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "textbox", "checkbox", "combobox", "spinbutton", "progressbar", "complementary", "article"}
    roles = [node["role"]["value"] for node in nodes if not node["ignored"] and "role" in node]
    assert {"button", "textbox", "checkbox", "main", "banner", "heading", "status", "article"} <= set(roles)
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in controls and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert page.evaluate("document.documentElement.lang") == "en"


def test_many_documents_do_not_make_the_page_longer_than_the_window(served, opened):
    address, client = served
    for number in range(12):
        uploaded(client, "", f"{number}.txt")
    page = opened(address, viewport={"width": 1280, "height": 700})
    page.locator("#list .wrong").nth(11).wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    assert page.locator("header").bounding_box()["y"] == 0 and page.locator("#question").is_visible()


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_it_fits_the_window(served, opened, width):
    address, client = served
    for name in NAMES[1:3]:
        uploaded(client, "x" * 500 + words(3, 100), name)
    page = opened(address, viewport={"width": width, "height": 700})
    choose_all(page, 2)
    ask(page, "y" * 300)
    for summary in page.locator("summary").all():
        summary.click()
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wider) <= 0
    assert page.locator("#question").bounding_box()["width"] > 150
    page.locator(".source").first.click()
    page.locator("#passage-text mark").wait_for()
    assert page.evaluate(wider) <= 0
    box = page.locator("#passage").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1 and box["height"] <= 701
    assert page.locator("#passage-close").is_visible()


CONTRASTS = """() => {
  const linear = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(each => linear(each / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + .05) / (low + .05);
  };
  const variable = name => {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const grounds = ["drafter", "draft_lm", "prompt_lookup", "other", "corrected", "bonus", "target", "chunk", "card",
                   "page"];
  const pairs = [...grounds.map(name => ["text", name]), ["faint", "page"], ["faint", "card"], ["wrong", "card"],
                 ["accent-text", "accent"], ["text", "wrong-back"]];
  const named = pairs.map(([one, other]) => [`${one} on ${other}`, contrast(variable(one), variable(other))]);
  return Object.fromEntries(named);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(served, opened, scheme):
    address, _ = served
    page = opened(address, color_scheme=scheme)
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) == 15 and len(set(contrasts.values())) > 10
    assert {name: value for name, value in contrasts.items() if value < 4.5} == {}  # WCAG 2.2, level AA

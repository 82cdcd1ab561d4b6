"""The page in a real browser, where there is one: nothing runs, nothing sticks out, and it looks as it should."""

import json
import os
import re
import shutil
import subprocess
from html import unescape

import pytest

from rapid_integrations import Prompt, SamplingParams
from rapid_integrations.trace import render_html
from tests.toys.engines import engine
from tests.toys.models import words

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

OWNED = "<script>document.title='owned'</script>"
EVIL = OWNED + "<img src=x onerror=\"document.title='owned'\"><style>*{display:none}</style>"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """<script>
const shown = element => getComputedStyle(element).display !== 'none';
const tokens = [...document.querySelectorAll('.answer > .tok')];
tokens[0].focus();
const panel = tokens[0].querySelector('.d'), box = panel.getBoundingClientRect();
const result = {
  focused: document.hasFocus() && tokens[0].matches(':focus'),
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  panel: [shown(panel), box.left >= 0, box.bottom <= innerHeight + 1, box.right <= innerWidth + 1],
  others: tokens.slice(1).filter(token => shown(token.querySelector('.d'))).length,
  colours: new Set(tokens.map(token => getComputedStyle(token).backgroundColor)).size,
  back: getComputedStyle(document.body).backgroundColor,
  lines: tokens.map(token => getComputedStyle(token).display),
};
document.documentElement.insertAdjacentHTML('beforeend', '<pre id="result"></pre>');
document.getElementById('result').textContent = JSON.stringify(result);
</script></body>"""


@pytest.fixture(scope="module")
def html():
    document = words(1, 80) + EVIL + "\n\nשלום עולם مرحبا بالعالم " + words(2, 60)
    prompt = Prompt.from_context([document, "x" * 300 + EVIL], f"which words? {EVIL}")
    completion = engine().generate(prompt, sampling=SamplingParams(max_new_tokens=60), trace=True)
    return render_html(completion, ["a_very_long_name_without_any_spaces_" * 4 + ".md", "b.md"])


def chromium(page, *options):
    command = [CHROMIUM, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += [f"--user-data-dir={page.parent / 'profile'}", *options, page.as_uri()]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return run.stdout


def test_nothing_in_a_document_runs(html, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(html)
    dom = chromium(page, "--dump-dom")
    assert re.search(r"<title>(.*?)</title>", dom, re.S)[1].startswith("RAPID: which words?")
    assert "<script" not in dom and "<img" not in dom and dom.count("<style") == 1
    assert unescape(dom).count(OWNED) >= 2  # as text
    # The policy holds even for a script that got into the page.
    page.write_text(html.replace("</body>", f"{OWNED}</body>"))
    assert "<title>owned" not in chromium(page, "--dump-dom")
    page.write_text(POLICY.sub("", html).replace("</body>", f"{OWNED}</body>"))
    assert "<title>owned" in chromium(page, "--dump-dom")  # without it, it would have run


@pytest.mark.parametrize("width", [400, 1100])
def test_it_fits_the_window(html, tmp_path, width):
    page = tmp_path / "page.html"
    page.write_text(POLICY.sub("", html).replace("</body>", MEASURE))
    for _ in range(3):  # a browser on a busy machine may not have the focus when the script runs
        dom = chromium(page, "--dump-dom", f"--window-size={width},900")
        result = json.loads(unescape(re.search(r'<pre id="result">({.*?})</pre>', dom, re.S)[1]))
        if result["focused"]:
            break
    assert result["overflow"] <= 0
    assert result["panel"] == [True, True, True, True] and result["others"] == 0
    assert result["colours"] >= 2
    assert set(result["lines"]) == {"inline"}


def test_light_and_dark(html, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    page = tmp_path / "page.html"
    page.write_text(html)
    brightness = {}
    for scheme, number in (("dark", 0), ("light", 1)):
        picture = tmp_path / f"{scheme}.png"
        flags = (f"--blink-settings=preferredColorScheme={number}", "--window-size=1000,1200")
        chromium(page, f"--screenshot={picture}", *flags)
        grey = pillow.open(picture).convert("L")
        assert grey.getextrema()[1] - grey.getextrema()[0] > 150  # text stands out from its ground
        brightness[scheme] = sum(grey.histogram()[200:]) / (grey.width * grey.height)
    assert brightness["light"] > 0.8 and brightness["dark"] < 0.2

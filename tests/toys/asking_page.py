"""What a person does on the page at `/`, for tests in a browser."""

import time


def until(condition, seconds=120):
    """Wait until a function returns something true. The page's policy lets Playwright itself evaluate no string."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.05)


def give(page, *files):
    """Upload files, each (name, text), and wait until they have been read."""
    given = [{"name": name, "mimeType": "text/plain", "buffer": text.encode()} for name, text in files]
    lines, bars = page.locator("#list .about"), page.locator("#list progress:not([hidden])")
    before = lines.count()
    page.set_input_files("#files", given)
    until(lambda: lines.count() == before + len(given) and bars.count() == 0)


def choose_all(page, count):
    """Tick all documents, once the list has so many."""
    boxes = page.locator("#list input")
    until(lambda: boxes.count() == count)
    for box in boxes.all():
        box.check()


def ask(page, question, wait=True):
    """Ask a question, and wait until its answer has ended."""
    before = page.locator(".turn").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    if wait:
        page.locator(".turn").nth(before).locator(".summary, .notice").first.wait_for()


def answer(page, number=0):
    """Return the text of an answer."""
    return shown_text(page.locator(".answer").nth(number))


def shown_text(box):
    """Return the text in an element, without its buttons."""
    return box.evaluate(
        "box => [...box.childNodes].map(node => node.matches?.('button') ? '' : node.textContent).join('')"
    )

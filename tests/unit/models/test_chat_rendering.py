"""Chat templates are rendered within bounds; tests/hostile/test_models.py has those that try to break out."""

import sys
from concurrent.futures import ThreadPoolExecutor

from rapid_integrations.models.chat_rendering import render_template
from tests.toys.models import byte_tokenizer


def test_threads_render_at_once():
    # Each installs a trace function, which CPython refuses while another thread's is being installed.
    tokenizer = byte_tokenizer()

    def render(number):
        return [render_template(tokenizer, [{"role": "user", "content": f"number {number}"}]) for _ in range(100)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            rendered = list(pool.map(render, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert all(f"number {number}" in text for number, texts in enumerate(rendered) for text in texts)
    assert sys.gettrace() is None

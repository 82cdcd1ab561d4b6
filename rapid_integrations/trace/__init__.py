"""Looking inside an answer: what each token came from, and a page that shows it. Recorded only when asked for.

    completion = engine.generate(prompt, trace=True)
    write_html("answer.html", completion)

`record` is what was seen, `tracer` sees it, `page` shows it.
"""

from rapid_integrations.outputs import Candidate, RejectedToken, Trace, TracedRound, TracedToken
from rapid_integrations.trace.page import render_html, write_html

__all__ = ["Candidate", "RejectedToken", "Trace", "TracedRound", "TracedToken", "render_html", "write_html"]

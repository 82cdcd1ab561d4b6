"""Record where each token of an answer came from, and show it on a page. Nothing is recorded unless asked for.

    completion = engine.generate(prompt, trace=True)
    write_html("answer.html", completion)

`rapid_integrations.outputs` has the records, `tracer` makes them, `page` shows them.
"""

from rapid_integrations.outputs import Candidate, RejectedToken, Trace, TracedRound, TracedToken
from rapid_integrations.trace.page import render_html, write_html

__all__ = ["Candidate", "RejectedToken", "Trace", "TracedRound", "TracedToken", "render_html", "write_html"]

"""A server that was started anew, with the same models and with others, behind one URL."""

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.applications import Starlette
from starlette.routing import Mount

from rapid_integrations import Chat, RapidEngine, RemoteDrafter, RemoteError
from rapid_integrations.server.remote.routes import routes
from tests.toys.errors import coded
from tests.toys.light_model import light_engine
from tests.toys.loopback import served
from tests.toys.models import byte_tokenizer
from tests.toys.remote_drafters import drafting_there
from tests.toys.remote_engines import DOCUMENT, PROMPT, local_engine

OTHERS = {
    "size": {"config": {"intermediate_size": 96}},
    "tokenizer": {"tokenizer": byte_tokenizer(extra_tokens=("<another>",))},
}


class Switched:
    """An app that `switch` makes another one: what a client sees of a server that was started anew."""

    def __init__(self, engine):
        self.switch(engine)

    def switch(self, engine):
        self.app = Starlette(routes=routes(engine))

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.fixture
def switched():
    with local_engine() as engine:
        app = Switched(engine)
        with served([Mount("/", app=app)]) as url:
            yield app, url


def test_the_same_models_go_on(switched):
    app, url = switched
    with RapidEngine.connect(url) as there, local_engine() as again:
        before = there.generate(PROMPT)
        app.switch(again)
        assert there.generate(PROMPT).token_ids == before.token_ids


@pytest.mark.parametrize("other", OTHERS)
def test_other_models_are_told_of_and_not_taken_for_the_first_ones(switched, other):
    app, url = switched
    with RapidEngine.connect(url) as there, local_engine(**OTHERS[other]) as engine:
        there.generate(PROMPT)
        app.switch(engine)
        for ask in (
            lambda: there.generate(PROMPT),
            lambda: there.generate(PROMPT, on_progress=lambda *event: None),
            lambda: next(there.stream(PROMPT)),
            lambda: there.explain(PROMPT),
            lambda: there.read([DOCUMENT]),
            lambda: next(Chat(there, [DOCUMENT]).ask("which words?")),
        ):
            with pytest.raises(RemoteError, match="other models than .* Connect again", check=coded("remote.changed")):
                ask()
        with RapidEngine.connect(url) as new:
            assert new.generate(PROMPT).token_ids == engine.generate(PROMPT).token_ids


def test_a_drafter_that_returns_with_another_model_is_a_lost_one(switched):
    app, url = switched
    with light_engine(**OTHERS["size"]) as other, drafting_there(RemoteDrafter(url)) as strict:
        with drafting_there(RemoteDrafter(url, on_lost="target")) as lenient:
            assert strict.generate(PROMPT).stats.remote.calls
            assert lenient.generate(PROMPT).stats.remote.lost is None
            app.switch(other)
            with pytest.raises(RemoteError, match="other models", check=coded("remote.changed")):
                strict.generate(PROMPT)
            assert "other models" in lenient.generate(PROMPT).stats.remote.lost

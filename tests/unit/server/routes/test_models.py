"""The list of models."""

import threading
import time

from tests.toys.served import client_of, running, tiny_engine


def test_others_are_answered_while_the_server_learns_what_its_model_can(app_of, monkeypatch):
    learnt = threading.Event()
    with tiny_engine() as engine:
        monkeypatch.setattr(type(engine), "supports_tools", property(lambda _: learnt.wait(60)))
        with running(app_of(engine=engine)) as address, client_of(address) as client:
            answers = []

            def listing():
                with client_of(address) as own:
                    answers.append(own.get("/v1/models"))

            thread = threading.Thread(target=listing, daemon=True)
            thread.start()
            try:
                time.sleep(0.3)
                assert client.get("/health", timeout=20).status_code == 200
                assert not answers
            finally:
                learnt.set()
            thread.join(60)
            assert answers[0].json()["data"][0]["rapid"]["tools"] is True

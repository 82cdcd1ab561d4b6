"""An engine behind HTTP: OpenAI's endpoints, a store of documents, and what an operator needs (extra `server`).

    request -> limits, key -> body -> prompt and settings -> turn -> engine.astream -> answer or events

`app.create_app` puts the parts together, and `serving.serve` runs the app with uvicorn. The server computes nothing
itself: it awaits the engine's asynchronous streams, which share forward passes.
"""

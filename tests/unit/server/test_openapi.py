"""The OpenAPI document is that of the routes; requests made from it, right and wrong ones, cause no error of ours."""

import re

import pytest


def test_it_describes_the_routes_and_only_those(app_of):
    from rapid_integrations.server.openapi import document

    described = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method in ("get", "post", "delete")
    }
    routes = {
        (re.sub(r":path\}", "}", route.path), method)
        for route in app_of().routes
        for method in getattr(route, "methods", ()) - {"HEAD"}
        if route.path.startswith(("/v1/", "/health", "/ready", "/metrics"))
    }
    assert described == routes


def test_references_lead_somewhere(client):
    found = client.get("/openapi.json").json()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(found)))
    assert {"ChatRequest", "CompletionRequest", "RapidOptions", "File"} <= names <= set(found["components"]["schemas"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_request_made_from_it_causes_an_error_of_ours(address):
    schemathesis = pytest.importorskip("schemathesis")
    import hypothesis

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    modes = schemathesis.GenerationMode
    tried, failed = 0, []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception:  # nothing wrong can be made for an operation without parameters
                continue

            @hypothesis.settings(
                max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None
            )
            @hypothesis.given(case=strategy)
            def fuzz(case):
                nonlocal tried
                tried += 1
                if isinstance(case.body, dict):  # otherwise nearly every request is one for another model
                    embeds = case.path.endswith("/embeddings")
                    case.body["model"] = "hash" if embeds else "tiny"
                    if not embeds:
                        case.body.setdefault("max_tokens", 2)
                answer = case.call(timeout=300)
                if answer.status_code == 500:
                    failed.append((case.method, case.path, str(case.body)[:500], answer.text[:300]))

            try:
                fuzz()
            except hypothesis.errors.Unsatisfiable:
                continue
    assert failed == [] and tried > 500

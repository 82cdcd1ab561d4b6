"""The arguments of the Ray Serve application, and the application itself where Ray is installed."""

import sys

import pytest

from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.server.ray_arguments import RayArguments


def test_words_of_a_command_line_are_numbers():
    found = RayArguments(target="m.gguf", replicas="2", cpus="1.5", target_requests="3", max_replicas="5")
    assert (found.replicas, found.cpus) == (2, 1.5)
    scaling = {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 3}
    assert found.scale == {"num_replicas": None, "autoscaling_config": scaling}


@pytest.mark.parametrize("most", [None, 1, 3])
def test_without_a_larger_number_their_number_is_fixed(most):
    assert RayArguments(replicas=3, max_replicas=most).scale == {"num_replicas": 3}


def test_settings_are_nested():
    found = RayArguments(
        server={"max_running": 3, "files_dir": "/data"}, sampling={"temperature": 0.5}, speculation={"law": "target"}
    )
    assert found.server.max_running == 3 and found.sampling.temperature == 0.5 and found.speculation.law == "target"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"replica": 2}, "replicas"),
        ({"replicas": 0}, "replicas"),
        ({"server": {"max_runing": 3}}, "max_running"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"server": 3}, "server"),
    ],
)
def test_what_is_wrong_is_named(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        RayArguments(**arguments)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    pytest.importorskip("starlette")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "rapid_integrations.server.ray_app", raising=False)
    with pytest.raises(MissingExtraError, match=r"rapid-integrations\[ray\]"):
        import rapid_integrations.server.ray_app  # noqa: F401


@pytest.mark.filterwarnings("ignore")
def test_the_application_has_a_door_and_engines():
    pytest.importorskip("ray.serve")
    from ray.serve._private.build_app import build_app

    from rapid_integrations.server.ray_app import build

    built = build_app(build({"replicas": 2, "gpus": 1, "server": {"shutdown_s": 7}}), name="rapid")
    door, engine = (next(d for d in built.deployments if d.name == name) for name in ("Door", "Engine"))
    assert built.ingress_deployment_name == "Door" and door.num_replicas == 1 and engine.num_replicas == 2
    assert engine.ray_actor_options["num_gpus"] == 1
    config = engine._deployment_config
    assert config.request_router_config.get_request_router_class().__name__ == "ConsistentHashRouter"
    assert config.graceful_shutdown_timeout_s == 7


@pytest.mark.filterwarnings("ignore")
def test_the_number_of_engines_follows_the_load():
    pytest.importorskip("ray.serve")
    from ray.serve._private.build_app import build_app

    from rapid_integrations.server.ray_app import build

    built = build_app(build({"replicas": 1, "max_replicas": 3, "target_requests": 2}), name="rapid")
    (engine,) = (each for each in built.deployments if each.name == "Engine")
    scaling = engine._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 3, 2)

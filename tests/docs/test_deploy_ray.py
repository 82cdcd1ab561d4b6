"""The files of `deploy/ray`: Serve's configuration and the manifest for Kubernetes."""

import ast

import pytest
import yaml

from rapid_integrations.server.ray_arguments import RayArguments
from tests.toys.repository import ROOT

DEPLOY = ROOT / "deploy" / "ray"


def manifests():
    return list(yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text()))


def service():
    return next(each for each in manifests() if each["kind"] == "RayService")["spec"]


def configurations():
    return {
        "serve.yaml": yaml.safe_load((DEPLOY / "serve.yaml").read_text()),
        "rayservice.yaml": yaml.safe_load(service()["serveConfigV2"]),
    }


@pytest.mark.parametrize("name", configurations())
def test_the_configuration_is_one_of_the_application(name):
    (application,) = configurations()[name]["applications"]
    module, _, function = application["import_path"].partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = RayArguments(**application["args"])
    assert found.replicas == 2 and found.server.files_dir and found.prefix_cache_dir
    keys = found.server.api_keys
    assert (configurations()[name]["http_options"]["host"] == "127.0.0.1") == (keys is None)  # nobody else without keys


@pytest.mark.parametrize("name", configurations())
@pytest.mark.filterwarnings("ignore")
def test_serve_accepts_the_configuration(name):
    schema = pytest.importorskip("ray.serve.schema")
    assert schema.ServeDeploySchema.model_validate(configurations()[name]).applications[0].name == "rapid"


def test_the_pods_have_what_the_engines_ask_for():
    spec, claim = service(), manifests()[0]
    (application,) = configurations()["rayservice.yaml"]["applications"]
    arguments = RayArguments(**application["args"])
    cluster = spec["rayClusterConfig"]
    (workers,) = cluster["workerGroupSpecs"]
    assert arguments.replicas <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    assert arguments.max_replicas <= workers["maxReplicas"] and cluster["enableInTreeAutoscaling"]
    pods = [cluster["headGroupSpec"]["template"]["spec"], workers["template"]["spec"]]
    for pod in pods:
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        for path in (arguments.server.files_dir, arguments.server.api_keys, arguments.prefix_cache_dir):
            assert any(str(path).startswith(f"{mount}/") for mount in mounts.values()), path
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    requests = pods[1]["containers"][0]["resources"]["requests"]
    assert float(requests["cpu"]) >= arguments.cpus
    assert pods[1]["terminationGracePeriodSeconds"] > arguments.server.shutdown_s
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    ports = {port["name"]: port["containerPort"] for port in pods[0]["containers"][0]["ports"]}
    assert ports["serve"] == configurations()["rayservice.yaml"]["http_options"]["port"]


def test_one_version_of_ray_is_named_everywhere():
    version = service()["rayClusterConfig"]["rayVersion"]
    assert f"rayproject/ray:{version}-" in (DEPLOY / "Dockerfile").read_text()
    assert f'"ray[serve]>={version.rpartition(".")[0]},' in (ROOT / "pyproject.toml").read_text()

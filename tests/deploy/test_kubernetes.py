import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from protos.rpc.roles import Role, certified
from tests.deploy.deploy_files import (
    DEPLOY,
    ROOT,
    containers,
    kubernetes_files,
    pins,
    project_version,
    ray_cluster,
    yaml_objects,
)

SCHEMA = json.loads((ROOT / "tests/data/schemas/kubernetes-subset.schema.json").read_text())
CLUSTERS = ("rayjob", "raycluster")
OURS = {"app.kubernetes.io/part-of": "unspool"}


def problems(instance: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(instance)]


def policies() -> dict[str, dict[str, Any]]:
    objects = yaml_objects(DEPLOY / "kuberay/networkpolicy.yaml")
    return {policy["metadata"]["name"]: policy["spec"] for policy in objects}


def allows(rules: list[dict[str, Any]], port: int) -> bool:
    """Return whether a rule of the policy opens a TCP port."""
    ports = [entry for rule in rules for entry in rule["ports"] if entry["protocol"] == "TCP"]
    return any(entry["port"] <= port <= entry.get("endPort", entry["port"]) for entry in ports)


def entrypoint() -> str:
    return str(yaml_objects(DEPLOY / "kuberay/rayjob.yaml")[0]["spec"]["entrypoint"])


def port_of(plane: str) -> int:
    return int(entrypoint().partition(f"learner.{plane}=")[2].split()[0])


def patched(instance: Any, patch: Path) -> Any:
    """Apply the two operations of JSON Patch that deploy/ uses."""
    result = copy.deepcopy(instance)
    for operation in yaml_objects(patch)[0]:
        *parents, last = operation["path"].strip("/").split("/")
        place = result
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        assert (last in place) is (operation["op"] == "replace"), operation["path"]
        place[last] = operation["value"]
    return result


@pytest.mark.parametrize("path", kubernetes_files(), ids=lambda path: path.name)
def test_every_object_matches_its_schema(path: Path) -> None:
    for instance in yaml_objects(path):
        assert problems(instance) == []


def test_the_schema_rejects_a_misspelt_field() -> None:
    job = yaml_objects(DEPLOY / "kuberay/rayjob.yaml")[0]
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    pod["terminationGracePeriodSecond"] = pod.pop("terminationGracePeriodSeconds")
    assert problems(job) != []


def test_kustomization_names_files_that_exist() -> None:
    kustomization = yaml_objects(DEPLOY / "kuberay/kustomization.yaml")[0]
    component = yaml_objects(DEPLOY / "kuberay/gpu/kustomization.yaml")[0]
    patches = [f"gpu/{patch['path']}" for patch in component["patches"]]
    assert all((DEPLOY / "kuberay" / name).is_file() for name in [*kustomization["resources"], *patches])


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_gpu_component_gives_each_worker_a_gpu(name: str) -> None:
    manifest = yaml_objects(DEPLOY / f"kuberay/{name}.yaml")[0]
    changed = patched(manifest, DEPLOY / f"kuberay/gpu/{name}-patch.yaml")
    assert problems(changed) == []
    cluster = changed["spec"].get("rayClusterSpec", changed["spec"])
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_the_job_and_the_standing_cluster_differ_in_exposure_and_size_only() -> None:
    job, standing = ray_cluster("rayjob"), ray_cluster("raycluster")
    for cluster in (job, standing):
        del cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"]
        for count in ("replicas", "minReplicas"):
            del cluster["workerGroupSpecs"][0][count]
    assert job == standing


def test_the_dashboard_of_the_standing_cluster_listens_on_loopback_only() -> None:
    assert ray_cluster("raycluster")["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


@pytest.mark.parametrize("name", CLUSTERS)
def test_versions_are_those_of_the_project(name: str) -> None:
    assert ray_cluster(name)["rayVersion"] == pins(ROOT / "requirements.lock")["ray"]
    assert {container["image"] for container in containers(name)} == {f"unspool:{project_version()}"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_requires_a_token_and_tolerates_minutes_without_its_head(name: str) -> None:
    assert ray_cluster(name)["authOptions"] == {"mode": "token"}
    for container in containers(name):
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment["RAY_gcs_rpc_server_reconnect_timeout_s"] == "600"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize("name", CLUSTERS)
def test_nothing_is_scheduled_on_the_head_and_a_worker_fits_into_its_pod(name: str) -> None:
    cluster = ray_cluster(name)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    worker = tomllib.loads((DEPLOY / "run.toml").read_text())["workers"]
    limits = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert float(limits["cpu"]) == worker["num_cpus"] == worker["cpu_threads"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_pod_denies_traffic_by_default_and_has_time_for_a_last_checkpoint(name: str) -> None:
    assert policies()["unspool-deny-all"] == {
        "podSelector": {"matchLabels": OURS},
        "policyTypes": ["Ingress", "Egress"],
    }
    cluster = ray_cluster(name)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert OURS.items() <= group["template"]["metadata"]["labels"].items()
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 30


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_ports_of_ray_are_open_between_the_pods(name: str) -> None:
    between = policies()["unspool-between-pods"]
    cluster = ray_cluster(name)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        given = {key: int(port) for key, port in group["rayStartParams"].items() if key.endswith("-port")}
        assert len(given) == 6
        for port in (6379, 52365, *given.values()):
            assert allows(between["ingress"], port)
            assert allows(between["egress"], port)


def test_workers_reach_the_data_plane_prometheus_the_metrics_and_no_pod_the_admin_plane() -> None:
    between, head = policies()["unspool-between-pods"]["ingress"], policies()["unspool-head"]["ingress"]
    assert allows(between, port_of("port"))
    assert allows(head, port_of("http_port"))
    assert not allows([*between, *head], port_of("admin_port"))


def tls_mounts(pod: dict[str, Any]) -> dict[str, str]:
    """Return the mount paths of a pod's certificates by secret."""
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod.get("volumes", []) if "secret" in one}
    mounts = pod["containers"][0].get("volumeMounts", [])
    assert all(one["readOnly"] for one in mounts if one["name"] in secrets)
    return {one["mountPath"]: secrets[one["name"]] for one in mounts if one["name"] in secrets}


@pytest.mark.parametrize("name", CLUSTERS)
def test_each_pod_has_only_the_certificates_of_its_role(name: str) -> None:
    cluster = ray_cluster(name)
    head, worker = (
        tls_mounts(group["template"]["spec"])
        for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0])
    )
    assert head == {"/tls/server": "unspool-tls-server", "/tls/admin": "unspool-tls-admin"}
    assert worker == {"/tls/worker": "unspool-tls-worker"}


def test_the_job_advertises_the_name_in_its_certificate() -> None:
    service = yaml_objects(DEPLOY / "kuberay/service.yaml")[0]
    name = f"{service['metadata']['name']}.unspool.svc"
    certificates = yaml_objects(DEPLOY / "kuberay/certificates.yaml")
    server = next(one["spec"] for one in certificates if one["metadata"]["name"] == "unspool-tls-server")
    assert server["dnsNames"] == [name]
    assert f"--set learner.advertise={name}" in entrypoint()
    assert "--set \"tls.directory='/tls'\" --set tls.mutual=true" in entrypoint()


def test_the_service_selects_the_head_pod() -> None:
    selector = yaml_objects(DEPLOY / "kuberay/service.yaml")[0]["spec"]["selector"]
    assert selector == {**OURS, "ray.io/node-type": "head"}


def test_cert_manager_creates_the_secrets_that_pods_mount_for_their_roles() -> None:
    specs = [one["spec"] for one in yaml_objects(DEPLOY / "kuberay/certificates.yaml")]
    made = {spec["secretName"]: spec for spec in specs if "secretName" in spec}
    assert {f"unspool-tls-{party}" for party in ("server", *Role)} <= made.keys()
    for role in Role:
        spec = made[f"unspool-tls-{role}"]
        assert [certified(uri) for uri in spec["uris"]] == [("demo", role)]
        assert "client auth" in spec["usages"]


def test_only_the_operator_reaches_the_jobs_api() -> None:
    spec = policies()
    rules = [rule for policy in spec.values() for rule in policy.get("ingress", []) if allows([rule], 8265)]
    peers = [peer["podSelector"]["matchLabels"] for rule in rules for peer in rule["from"]]
    assert peers == [{"app.kubernetes.io/name": "kuberay-operator"}]


def test_the_job_mounts_its_configuration_and_a_persistent_run_directory() -> None:
    pod = ray_cluster("rayjob")["headGroupSpec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]]
    assert yaml_objects(DEPLOY / "kuberay/storage.yaml")[0]["metadata"]["name"] in claims
    assert f"{mounts['config']}/run.toml" in entrypoint()
    assert f"--run-dir {mounts['runs']}/" in entrypoint()

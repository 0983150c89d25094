import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from learner.servers.metrics import RunMetrics
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.admin_pb2 import CheckpointInfo, Status
from tests.deploy.deploy_files import DEPLOY, ray_cluster, yaml_objects

RULES = [
    rule for group in yaml_objects(DEPLOY / "prometheus/rules.yaml")[0]["groups"] for rule in group["rules"]
]


@pytest.fixture(scope="module")
def exported() -> dict[str, list[dict[str, str]]]:
    """The samples that the learner of an active run exports: labels by name."""
    verdicts = dict.fromkeys(learner_pb2.Verdict.keys(), 1)
    status = Status(
        loss=1.0,
        grad_norm=1.0,
        checkpoint=CheckpointInfo(age_s=1.0),
        verdicts=verdicts,
        access_denials={"wrong_role": 1},
    )
    text = RunMetrics(lambda: status, lambda: {0: 1}).text().decode()
    samples: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample.labels)
    return samples


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_metrics_that_the_learner_exports(
    rule: dict[str, Any], exported: dict[str, list[dict[str, str]]]
) -> None:
    selectors = re.findall(r"\b(unspool_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert selectors or rule["expr"].startswith('up{job="unspool"}')
    for name, labels in selectors:
        wanted = dict(re.findall(r'(\w+)!?="([^"]*)"', labels))
        assert any(wanted.items() <= found.items() for found in exported.get(name, [])), f"{name}{wanted}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_summary_and_an_action(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "action"}


def test_prometheus_is_a_viewer_and_expects_the_name_in_the_learners_certificate() -> None:
    scrape = yaml_objects(DEPLOY / "prometheus/prometheus.yaml")[0]["scrape_configs"][0]
    assert scrape["scheme"] == "https"
    assert f"learner.advertise={scrape['tls_config']['server_name']} " in str(
        yaml_objects(DEPLOY / "kuberay/rayjob.yaml")[0]["spec"]["entrypoint"]
    )
    assert scrape["authorization"]["credentials_file"].endswith("token-viewer")


def test_prometheus_scrapes_a_port_that_the_head_pod_has() -> None:
    scrape = yaml_objects(DEPLOY / "prometheus/prometheus.yaml")[0]["scrape_configs"][0]
    kept = [rule["regex"] for rule in scrape["relabel_configs"] if rule.get("action") == "keep"]
    head = ray_cluster("rayjob")["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert kept == ["learner-http"]
    assert {port["name"]: port["containerPort"] for port in head["ports"]}["learner-http"] == 7433

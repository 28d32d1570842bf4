"""Alerts, dashboard and ServiceMonitors ask only for what the code exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from qrelay.labels.ledger.outbox_rows import FAILED, RUNNING, SUCCEEDED
from qrelay.runtime import telemetry
from qrelay.runtime.topology import Queue
from qrelay.settings import sections
from tests.deploy.k8s.rendering import ROOT, SERVICES, Object, generated, of_kind, one, overlay

PROD = overlay("prod")
TARGET_LABELS = {"job", "pod", "namespace", "instance", "service", "endpoint", "container"}
"""Which the Prometheus operator adds to every series; job is the service, by jobLabel."""
VALUES = {
    "hop": {each.value for each in Queue},
    "stage": {*SERVICES, "sink-dead-letters"},
    "job": {*SERVICES},
    "period": {"run", "day"},
    "state": {RUNNING, SUCCEEDED, FAILED},
}
OUTCOMES = {
    "qrelay_items": {"ok", "retried", "returned", "dead_lettered", "unconfirmed"},
    "qrelay_judgments": {"graded", "cached", "missing"},
    "qrelay_commits": {"committed", "duplicate", "conflict"},
    "qrelay_training_launch_errors": {"refused", "retried"},
}
"""The values of the label `outcome`, a metric each."""


def exported() -> dict[str, tuple[str, set[str]]]:
    """Series name -> (metric, label names) of everything in qrelay.runtime.telemetry."""
    found: dict[str, tuple[str, set[str]]] = {}
    for metric in vars(telemetry).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Histogram):
            found |= {f"{name}_bucket": (name, labels | {"le"})}
            found |= {f"{name}_{suffix}": (name, labels) for suffix in ("sum", "count")}
        else:
            found[f"{name}_total" if isinstance(metric, Counter) else name] = (name, labels)
    return found


def alerts() -> list[Object]:
    """The alert rules."""
    return [each for group in one(PROD, "PrometheusRule", "qrelay")["spec"]["groups"] for each in group["rules"]]


DASHBOARD: Object = json.loads(one(PROD, "ConfigMap", "qrelay-dashboard")["data"]["qrelay.json"])
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, Object] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
CHOSEN = {"$__rate_interval": "5m", "$__range": "3h", "$namespace": "qrelay", "$collection": "docs|faq"}
"""What Grafana puts in the place of each variable."""


def filled(text: str) -> str:
    """A panel's PromQL as Grafana sends it."""
    for variable, value in CHOSEN.items():
        text = text.replace(variable, value)
    return text


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every alert and panel."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], filled(target["expr"])


def nodes(expression: Any) -> Iterator[Any]:
    """The expression and everything below it."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        child = getattr(expression, name, None)
        if child is not None and not isinstance(child, str):
            yield from nodes(child)
    for child in getattr(expression, "args", None) or ():
        yield from nodes(child)


def selectors(query: str) -> list[Any]:
    """The vector selectors of a query."""
    return [each for each in nodes(promql_parser.parse(query)) if type(each).__name__ == "VectorSelector"]


def matched(matcher: Any) -> set[str]:
    """The values that a matcher names; a regular expression only as alternatives."""
    return set(matcher.value.split("|"))


ALL = list(queries())


@pytest.mark.parametrize(("where", "query"), ALL, ids=[where for where, _ in ALL])
def test_a_query_names_only_series_labels_and_values_that_the_code_exports(where: str, query: str) -> None:
    found = selectors(query)
    assert len(found) == len(re.findall(r"qrelay_\w+", query)) > 0
    for selector in found:
        assert selector.name in exported(), selector.name
        metric, labels = exported()[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels | TARGET_LABELS, (selector.name, matcher.name)
            known = OUTCOMES[metric] if matcher.name == "outcome" else VALUES.get(matcher.name)
            assert known is None or matched(matcher) <= known, (selector.name, matcher.name, matcher.value)


@pytest.mark.parametrize(("where", "query"), ALL, ids=[where for where, _ in ALL])
def test_a_query_groups_only_by_labels_that_its_series_have(where: str, query: str) -> None:
    labels = {label for selector in selectors(query) for label in exported()[selector.name][1]} | TARGET_LABELS
    for node in nodes(promql_parser.parse(query)):
        if type(node).__name__ == "AggregateExpr" and node.modifier is not None:
            assert set(node.modifier.labels) <= labels, where


def test_prometheus_own_parser_takes_every_panel(tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("no promtool: install Prometheus to check the panels")
    exprs = [filled(target["expr"]) for panel in PANELS for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf8")
    done = subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(rules)} rules found" in done.stdout, done.stdout + done.stderr


def test_every_panel_is_of_the_chosen_namespaces_and_those_of_labels_of_the_chosen_collections() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            for selector in selectors(filled(target["expr"])):
                given = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
                assert given["namespace"] == CHOSEN["$namespace"], panel["title"]
                by_collection = "collection" in exported()[selector.name][1]
                assert given.get("collection") == (CHOSEN["$collection"] if by_collection else None), panel["title"]


def test_the_variables_are_filled_from_labels_that_the_code_exports() -> None:
    assert list(VARIABLES) == ["datasource", "namespace", "collection"]
    for name in ("namespace", "collection"):
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", VARIABLES[name]["query"]["query"])
        assert asked is not None and asked[2] == name
        (selector,) = selectors(filled(asked[1]))
        assert name in exported()[selector.name][1] | TARGET_LABELS
        assert VARIABLES[name]["multi"] and VARIABLES[name]["allValue"] == ".*"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_with_labels_that_it_has(rule: Object) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"] and rule["annotations"]["description"]
    named = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    series = {label for selector in selectors(rule["expr"]) for label in exported()[selector.name][1]}
    assert named <= series | TARGET_LABELS


def test_values_of_the_label_outcome_are_those_in_the_code() -> None:
    folders = ("qrelay/runtime", "qrelay/jobs", "qrelay/labels/ledger", "services")
    code = "".join(path.read_text("utf8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    for value in set().union(*OUTCOMES.values()):
        assert re.search(rf'"{value}"|\b{value.upper()}\b', code), value


def test_stages_are_named_as_the_services_name_them() -> None:
    code = "".join(path.read_text("utf8") for path in (ROOT / "services").rglob("*.py"))
    assert set(sections.SERVICES) == {*SERVICES}
    for stage in VALUES["stage"]:
        assert f'"{stage}"' in code


def test_every_service_is_scraped_at_its_metrics_port_under_its_own_name() -> None:
    monitors = {each["metadata"]["name"]: each["spec"] for each in of_kind(PROD, "ServiceMonitor")}
    assert set(monitors) == {*SERVICES}
    for name, spec in monitors.items():
        service = one(PROD, "Service", name)
        assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"][spec["jobLabel"]] == name
        assert spec["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_each_queue_has_an_alert_that_nobody_takes_from_it() -> None:
    exprs = {
        rule["labels"]["stage"]: rule["expr"] for rule in alerts() if rule["alert"] == "QrelayLagWithoutProgress"
    }
    for queue in (Queue.QUERIES, Queue.RETRIEVED, Queue.RERANKED, Queue.JUDGED):
        expr = exprs[queue.consumer]
        assert f'hop="{queue.value}"' in expr and f'stage="{queue.consumer}"' in expr


def headings(page: str) -> set[str]:
    """The anchors of a page's headings, as Markdown readers make them."""
    found = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


def test_every_alert_links_to_its_part_of_the_operations_page_and_each_part_is_of_an_alert() -> None:
    explained = headings((ROOT / "docs" / "operations.md").read_text("utf8"))
    for rule in alerts():
        page, _, part = rule["annotations"]["runbook_url"].partition("#")
        assert page.endswith("docs/operations.md") and part == rule["alert"].lower() and part in explained, rule[
            "alert"
        ]
    named = {rule["alert"].lower() for rule in alerts()}
    assert {part for part in explained if part.startswith("qrelay")} == named


def test_the_address_of_the_operations_page_is_set_in_one_place() -> None:
    set_to = one(PROD, "PrometheusRule", "qrelay")["metadata"]["annotations"]["qrelay.dev/operations"]
    assert {rule["annotations"]["runbook_url"].partition("#")[0] for rule in alerts()} == {set_to}


def test_the_alert_on_a_full_queue_has_the_limit_of_the_settings() -> None:
    limit = yaml.safe_load(generated(PROD, "qrelay-config")["qrelay.yaml"])["all"]["nats"]["max_stream_bytes"]
    (expr,) = [rule["expr"] for rule in alerts() if rule["alert"] == "QrelayStreamNearlyFull"]
    assert expr.endswith(str(limit))


def test_grpc_codes_in_alerts_are_codes_of_grpc() -> None:
    import grpc

    codes = {each.name for each in grpc.StatusCode}
    for _, query in ALL:
        for selector in selectors(query):
            for matcher in selector.matchers.matchers:
                assert matcher.name != "code" or matched(matcher) <= codes


def test_the_dashboard_is_found_by_grafanas_sidecar() -> None:
    assert one(PROD, "ConfigMap", "qrelay-dashboard")["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rows_and_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= mine
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [row["title"].partition(":")[0] for row in ROWS][:3] == ["State", "Label quality", "Cost"]


def test_every_metric_of_labels_and_of_cost_has_a_panel() -> None:
    shown = {exported()[selector.name][0] for panel in PANELS for target in panel["targets"]
             for selector in selectors(filled(target["expr"]))}  # fmt: skip
    wanted = {"qrelay_grades", "qrelay_p_relevant", "qrelay_judgments", "qrelay_cascade_drift"}
    wanted |= {
        "qrelay_prompt_tokens",
        "qrelay_collection_prompt_tokens",
        "qrelay_budget_price",
        "qrelay_budget_left_tokens",
    }
    assert wanted <= shown

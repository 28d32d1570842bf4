"""`qrelay models …` on a registry, as the command line runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.models.group import models
from qrelay.errors import ConfigError, InputError, ModelError, NotPromotable, UnknownVersion
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry
from tests.models.registry.models import passed, published, row

CLEAN = {name: None for name in os.environ if name.startswith("QRELAY_")}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def told(home: Path, *arguments: str) -> str:
    given = [*arguments, "--data-dir", str(home)]
    result = CliRunner().invoke(models, given, catch_exceptions=False, env=CLEAN)
    assert result.exit_code == 0, result.output
    return result.output


def shown(home: Path, *arguments: str) -> Any:
    return json.loads(told(home, *arguments, "--json"))


def test_versions_shows_state_serving_verdict_metrics_and_taint(tmp_path: Path, registry: Registry) -> None:
    first, second = published(registry, "a"), published(registry, "b", slot=CROSS_ENCODER, judge="j2")
    passed(registry, first, why="better", rows=[row("nDCG@10", "docs", 0.4, 0.5)])
    registry.promote(first)
    registry.retract_judge("j2")
    one, two = shown(tmp_path, "versions")["versions"]
    assert (one["version"], one["serving"], one["state"]) == (first, True, "promoted")
    assert (one["gate"]["passed"], one["metrics"], one["tainted_by"]) == (True, {"nDCG@10 on docs": 0.5}, [])
    assert (two["version"], two["serving"], two["gate"], two["tainted_by"]) == (second, False, None, ["j2"])
    assert [each["version"] for each in shown(tmp_path, "versions", "--slot", CROSS_ENCODER)["versions"]] == [second]
    text = told(tmp_path, "versions")
    for words in (first, "promoted", "nDCG@10 on docs 0.5000", "passed against the configured model", "not gated"):
        assert words in text


def test_an_empty_registry_says_how_to_fill_it(tmp_path: Path) -> None:
    assert "makes one" in told(tmp_path, "versions")
    assert shown(tmp_path, "versions")["versions"] == []
    assert "nothing has happened yet" in told(tmp_path, "history")
    assert not (tmp_path / "registry").exists()


def test_show_prints_the_manifest_and_the_gates_table(tmp_path: Path, registry: Registry) -> None:
    version = published(registry, "a", job="train-docs-1", collections=("docs",))
    passed(registry, version, why="it rose", rows=[row("nDCG@10", "docs", 0.4, 0.5)])
    found = shown(tmp_path, "show", version[:14])
    assert found["manifest"] == registry.manifest(version).as_json()
    assert found["gate_report"]["detail"]["rows"][0]["candidate"] == 0.5
    text = told(tmp_path, "show", version)
    for words in (
        "train-docs-1",
        "base@1",
        "7 labels",
        "0.4000",
        "0.5000",
        "it rose",
        str(registry.model_dir(version)),
    ):
        assert words in text


def test_promotion_and_rollback_are_authored_and_in_the_history(tmp_path: Path, registry: Registry) -> None:
    version = passed(registry, published(registry, "a"))
    found = shown(tmp_path, "promote", version, "--by", "ana", "--reason", "better")
    assert (found["slot"], found["changed"]) == (BI_ENCODER, True)
    assert not shown(tmp_path, "promote", version, "--by", "ana")["changed"]
    assert shown(tmp_path, "rollback", BI_ENCODER, "--by", "ana", "--reason", "slow")["version"] == ""
    events = shown(tmp_path, "history")["events"]
    assert [(each["kind"], each["by"]) for each in events[-2:]] == [("promoted", "ana"), ("rolled_back", "ana")]
    text = told(tmp_path, "history")
    assert f"promoted {version} instead of the configured model (better), by ana" in text
    assert f"rolled_back bi_encoder: the configured model from {version} (slow), by ana" in text


def test_a_rollback_goes_to_a_named_version_or_to_the_configured_model(tmp_path: Path, registry: Registry) -> None:
    first, second, third = (published(registry, name) for name in "abc")
    for version, against in ((first, ""), (second, first), (third, second)):
        registry.promote(passed(registry, version, against))
    assert shown(tmp_path, "rollback", BI_ENCODER, "--to", first)["version"] == first
    assert shown(tmp_path, "rollback", BI_ENCODER, "--to", "configured")["version"] == ""


def test_refusals_are_errors_that_say_what_to_do(tmp_path: Path, registry: Registry) -> None:
    version = published(registry, "a")
    published(registry, "b")
    with pytest.raises(NotPromotable, match=f"run `qrelay models gate {version}`"):
        told(tmp_path, "promote", version)
    with pytest.raises(UnknownVersion, match="no version 'zz'"):
        told(tmp_path, "show", "zz")
    with pytest.raises(InputError, match="begins 2 versions"):
        told(tmp_path, "show", "bi-encoder")
    with pytest.raises(ConfigError, match="no model registry"):
        told(tmp_path, "versions", "--registry", str(tmp_path))


def test_a_damaged_version_is_named_by_verify_version(tmp_path: Path, registry: Registry) -> None:
    version = published(registry, "a")
    assert shown(tmp_path, "verify-version", version)["files"] == 2
    (registry.model_dir(version) / "sub" / "weights").write_text("x")
    with pytest.raises(ModelError, match="sub/weights has other bytes"):
        told(tmp_path, "verify-version", version)


def test_prune_says_what_would_go_and_goes_with_yes(tmp_path: Path, registry: Registry) -> None:
    version = published(registry, "a")
    registry.record_gate(version, {"passed": False, "against": ""})
    assert version in told(tmp_path, "prune", "--keep", "0")
    assert registry.model_dir(version).exists()
    assert shown(tmp_path, "prune", "--keep", "1", "--yes")["pruned"] == {}
    assert list(shown(tmp_path, "prune", "--keep", "0", "--yes")["pruned"]) == [version]
    assert "(pruned)" in told(tmp_path, "versions")
    assert "the model is gone" in told(tmp_path, "show", version)
    with pytest.raises(ModelError, match="was pruned"):
        told(tmp_path, "verify-version", version)


def test_the_settings_name_the_registry(tmp_path: Path) -> None:
    elsewhere = Registry(tmp_path / "shared" / "models")
    version = published(elsewhere, "a")
    config = tmp_path / "qrelay.yaml"
    config.write_text(json.dumps({"all": {"registry": str(elsewhere.folder)}}))
    assert shown(tmp_path, "versions", "--config", str(config))["versions"][0]["version"] == version
    assert shown(tmp_path, "versions", "--registry", str(elsewhere.folder))["versions"][0]["version"] == version


def test_the_catalogues_commands_stay_beside_the_registrys() -> None:
    listed = CliRunner().invoke(models, ["--help"]).output
    for name in ("list", "pull", "verify", "versions", "promote", "lineage", "push", "gate"):
        assert f"\n  {name} " in listed


def test_versions_of_a_collection_are_those_that_may_serve_it_and_the_one_that_does_is_marked(
    tmp_path: Path, registry: Registry
) -> None:
    default, own = published(registry, "a"), published(registry, "b", slot="bi_encoder:medquad")
    published(registry, "c", slot="bi_encoder:other")
    registry.promote(passed(registry, default))
    found = {name: [(each["version"], each["serving"]) for each in rows["versions"]] for name in ("medquad", "docs")
             for rows in [shown(tmp_path, "versions", "--collection", name)]}  # fmt: skip
    assert found == {"medquad": [(default, True), (own, False)], "docs": [(default, True)]}
    registry.promote(passed(registry, own, against=default))
    rows = shown(tmp_path, "versions", "--collection", "medquad")["versions"]
    assert [(each["version"], each["serving"]) for each in rows] == [(default, False), (own, True)]
    (row,) = shown(tmp_path, "versions", "--slot", "bi_encoder:medquad")["versions"]
    assert (row["version"], row["slot"], row["serving"]) == (own, "bi_encoder:medquad", True)
    assert "bi_encoder:medquad" in told(tmp_path, "show", own)


def test_a_collections_slot_is_promoted_and_rolled_back_by_name(tmp_path: Path, registry: Registry) -> None:
    default, own = published(registry, "a"), published(registry, "b", slot="bi_encoder:medquad")
    registry.promote(passed(registry, default))
    passed(registry, own, against=default)
    assert f"{own} serves as bi_encoder:medquad" in told(tmp_path, "promote", own, "--by", "ana")
    assert f"bi_encoder:medquad: {default} serves" in told(tmp_path, "rollback", "bi_encoder:medquad", "--by", "ana")
    with pytest.raises(NotPromotable, match="nothing is promoted as bi_encoder:medquad"):
        told(tmp_path, "rollback", "bi_encoder:medquad", "--by", "ana")
    assert "from" in told(tmp_path, "history", "--slot", "bi_encoder:medquad")


def test_a_mistyped_slot_is_told_with_what_was_meant(tmp_path: Path, registry: Registry) -> None:
    published(registry, "a", slot="bi_encoder:medquad")
    wrong = CliRunner().invoke(models, ["rollback", "bi_encodr", "--data-dir", str(tmp_path)], env=CLEAN)
    assert wrong.exit_code == 2 and "Did you mean 'bi_encoder'" in wrong.output
    assert "Did you mean 'bi_encoder:medquad'?" in told(tmp_path, "versions", "--slot", "bi_encoder:medqad")

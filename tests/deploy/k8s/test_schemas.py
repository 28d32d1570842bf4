"""The schemas of custom resources: where they are from, how old they may be, and what they find."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from scripts.crd_models import Models
from scripts.fetch_schemas import schemas, sources, stale, table
from tests.deploy.k8s.rendering import RENDERED, Object
from tests.deploy.k8s.validation import distinct, is_custom, problems
from tests.jobs.kubernetes_validation import VERSIONS

KINDS = [f"{each.api} {kind}" for each in sources() for kind in each.kinds]
UNUSED = {"monitoring.coreos.com/v1 PodMonitor"}
"""For overlays of users."""


def example(kind: str) -> Object:
    """An object of this kind that we ship."""
    api, _, name = kind.partition(" ")
    return next(each for each in distinct(RENDERED.values()) if (each["apiVersion"], each["kind"]) == (api, name))


def test_no_schema_is_older_than_the_table_allows() -> None:
    assert not stale(date.today(), table()["max_age_days"])


def test_an_old_schema_is_named_with_its_age_and_what_to_do() -> None:
    oldest = min(sources(), key=lambda each: each.released)
    (told,) = stale(oldest.released + timedelta(days=3), 2)
    assert told.startswith(f"{oldest.upstream} {oldest.release} is 3 days old") and "scripts/schemas.yaml" in told


def test_the_table_names_the_newest_kubernetes_that_is_checked() -> None:
    (kubernetes,) = [each for each in sources() if each.upstream == "kubernetes/kubernetes"]
    assert f"v{VERSIONS[-1]}".startswith(f"{kubernetes.release}.")


def test_every_kind_of_an_operator_that_is_used_has_a_schema_and_no_other_has_one() -> None:
    used = {f"{each['apiVersion']} {each['kind']}" for each in distinct(RENDERED.values()) if is_custom(each)}
    assert used == set(KINDS) - UNUSED and set(KINDS) == set(schemas())


@pytest.mark.parametrize("kind", sorted(set(KINDS) - UNUSED))
def test_a_field_that_the_operator_does_not_know_is_found(kind: str) -> None:
    good = example(kind)
    assert not problems(good)
    assert problems({**good, "spec": {**good["spec"], "qrelayNote": "x"}})


def test_a_version_that_is_no_longer_served_is_found() -> None:
    former = {**example("kueue.x-k8s.io/v1beta2 LocalQueue"), "apiVersion": "kueue.x-k8s.io/v1beta1"}
    (told,) = problems(former)
    assert "does not serve kueue.x-k8s.io/v1beta1 LocalQueue" in told


def test_each_flavor_of_a_queue_has_a_quota_for_each_covered_resource() -> None:
    """A rule of Kueue's that its schema does not hold."""
    for group in example("kueue.x-k8s.io/v1beta2 ClusterQueue")["spec"]["resourceGroups"]:
        for flavor in group["flavors"]:
            assert [each["name"] for each in flavor["resources"]] == group["coveredResources"]


MODELS = """
class Free(BaseModel):
    model_config = ConfigDict(extra='allow')

class Share(RootModel[int]):
    root: Annotated[int, Field(ge=0, le=9)]

class Spec(BaseModel):
    class Builder: ...
    names: Annotated[list[str] | None, Field(alias="ownNames", min_length=1)] = None
    word: Annotated[str, Field(max_length=3, pattern="^a")]
    either: int | str | None = None
    mode: Literal["on", "off"] | None = "on"
    labels: dict[str, str] | None = None
    share: Share | None = None
    free: Free | None = None

class Odd(BaseModel):
    when: timedelta
"""


def test_generated_models_are_read_with_their_names_limits_and_requirements() -> None:
    free = {"type": "object", "properties": {}, "required": [], "additionalProperties": True}
    assert Models(MODELS).schema("Spec") == {
        "type": "object",
        "required": ["word"],
        "properties": {
            "ownNames": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "word": {"type": "string", "maxLength": 3, "pattern": "^a"},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "mode": {"enum": ["on", "off"]},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "share": {"type": "integer", "minimum": 0, "maximum": 9},
            "free": free,
        },
    }


def test_a_type_that_the_reader_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="timedelta"):
        Models(MODELS).schema("Odd")

"""The settings of training, `sink.training.*`. Every problem is a field's, so that all are reported at once."""

from __future__ import annotations

import re
from typing import Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, ValidationInfo, field_validator

from qrelay.config import Section
from qrelay.identity import require_collections
from qrelay.settings.kubernetes import KubernetesSettings
from qrelay.settings.quiet_hours import QuietHours

PLACEHOLDERS: Final = ("job", "name", "collection", "change_no", "rule", "ledger", "data_dir")
"""What a command may hold in braces: see `TrainingJob.filled`."""
_IN_BRACES: Final = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
_PLACEHOLDER: Final = re.compile(r"\{([a-z_]+)\}")


class TrainingSettings(Section):
    """When labels are enough for a training, and the command that does it."""

    enabled: bool = Field(False, description="Whether the policy is on; off: nothing is counted or decided")
    collections: tuple[str, ...] = Field((), description="Collections that the policy is for; empty: all")
    min_new_hard_examples: int | None = Field(
        None, ge=1, description="Train after this many new judged hard examples; empty: no rule"
    )
    min_judged: int | None = Field(None, ge=1, description="Train after this many new judged pairs; empty: no rule")
    disagreement_min_judged: int = Field(
        500, ge=1, description="New judged pairs that disagreement_rate needs before it means anything"
    )
    disagreement_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Train when BM25 and dense disagree on this share (0 to 1) of the new judged pairs; empty: "
        "no rule",
    )
    max_age_s: float | None = Field(
        None,
        gt=0,
        description="Train when a new hard example is there and the last trigger (before the first: the collection's "
        "first query) is so many seconds ago; empty: no rule",
        validate_default=True,
    )
    time_zone: str = Field("UTC", description="Time zone of quiet_hours, such as Europe/Berlin")
    quiet_hours: str = Field(
        "",
        description="Local hours in which the policy starts nothing, such as 22:00-06:00",
    )
    max_running: int = Field(
        1, ge=1, description="Jobs of a collection that may run when the policy starts another; at the limit it waits"
    )
    command: tuple[str, ...] = Field(
        (),
        description=f"The job's command, a list of words; may hold {_IN_BRACES}",
        validate_default=True,
    )
    launcher: Literal["subprocess", "kubernetes"] = Field(
        "subprocess", description="What starts jobs: a process on this machine, or a Job of a Kubernetes cluster"
    )
    kubernetes: KubernetesSettings = Field(
        KubernetesSettings(), description="The Jobs of launcher kubernetes", validate_default=True
    )
    unmeasured: bool = Field(
        False,
        description="Train even on labels of judges that no report (sink.qualification) measures; off: a trigger "
        "waits and says why",
    )
    unqualified: bool = Field(
        False,
        description="Train even on labels of judges that the report finds not qualified; off: a trigger waits and "
        "says why",
    )
    poll_s: float = Field(
        2.0, gt=0, description="Seconds between checks of the clock, of waiting triggers and of running jobs"
    )

    @field_validator("collections")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_collections(value)
        return value

    @field_validator("max_age_s")
    @classmethod
    def _some_rule(cls, value: float | None, info: ValidationInfo) -> float | None:
        rules = ("min_new_hard_examples", "min_judged", "disagreement_rate")
        known = all(name in info.data for name in rules)  # one that is absent is wrong and reported itself
        if info.data.get("enabled") and value is None and known and not any(info.data[name] for name in rules):
            raise ValueError(f"the policy is enabled and has no rule: set one of {', '.join(rules)}, max_age_s")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, ValueError, LookupError) as error:
            raise ValueError(f"{value!r} is not a known time zone: use a name such as Europe/Berlin") from error
        return value

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        QuietHours.parse(value, ZoneInfo("UTC"))
        return value

    @field_validator("command")
    @classmethod
    def _command(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("enabled") and not value:
            raise ValueError("the policy is enabled and has nothing to start: set the job's command")
        if value and not value[0].strip():
            raise ValueError("the first word of the command is empty: name the program")
        unknown = sorted({name for word in value for name in _PLACEHOLDER.findall(word)} - {*PLACEHOLDERS})
        if unknown:
            raise ValueError(
                f"the command holds {', '.join(f'{{{name}}}' for name in unknown)}; there are {_IN_BRACES}"
            )
        return value

    @field_validator("kubernetes")
    @classmethod
    def _image(cls, value: KubernetesSettings, info: ValidationInfo) -> KubernetesSettings:
        if info.data.get("launcher") == "kubernetes" and not value.image.strip():
            raise ValueError("the launcher is kubernetes: set sink.training.kubernetes.image to the trainer's image")
        return value

    @property
    def quiet(self) -> QuietHours | None:
        """The quiet hours in their place; None: there are none."""
        return QuietHours.parse(self.quiet_hours, ZoneInfo(self.time_zone))

    @property
    def active(self) -> bool:
        """Whether there is anything to dispatch: a policy, or a command for manual triggers."""
        return self.enabled or bool(self.command)

    def covers(self, collection: str) -> bool:
        """Whether the policy is for the collection."""
        return self.enabled and (not self.collections or collection in self.collections)


def fill(word: str, values: dict[str, str]) -> str:
    """The word with its placeholders replaced; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), word)

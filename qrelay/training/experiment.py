"""An experiment: everything that decides a training run, in YAML, checked whole before anything is loaded.

    base: kl_margin             # another experiment, shipped or a file beside this one; what follows overrides it
    losses: {kl: 0.7, margin: 0.3}

Experiments inherit by `base:` to any depth; mappings are merged key by key, everything else is replaced. A loss is
taken out of an inherited sum by the weight 0. The command line overrides with dotted names: `learning_rate=2e-5`,
`losses.infonce=1`. What comes out is one `Experiment`, and `resolved()` is what the registry's manifest keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qrelay.errors import ConfigError
from qrelay.files import is_file
from qrelay.models.encoding import PAIR_TOKENS
from qrelay.parsing import yaml_document

BI_ENCODER_LOSSES: Final = (
    "infonce", "triplet", "cosine", "kl", "mse", "margin", "sum_marginal", "joint", "rand1", "lsepair",
)  # fmt: skip
CROSS_ENCODER_LOSSES: Final = ("bce", "pairwise", "listwise", "mse")
SOFT_LOSSES: Final = ("cosine", "kl", "mse", "margin", *CROSS_ENCODER_LOSSES)
"""Those that learn from soft targets, and so from a query without a positive too."""
ABSOLUTE_LOSSES: Final = ("cosine", "bce")
"""Those that fit the target itself, so it must be in 0..1; the mse of a cross-encoder is a third."""
Weight = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Stage(_Strict):
    """One stage of the curriculum: the model that leaves it enters the next."""

    name: str = Field("train", pattern="^[a-z0-9-]+$", description="Its name in logs and checkpoints")
    data: tuple[str, ...] = Field((), description="Exports (labels or triples), a glob each; empty: --data")
    labels: Literal["weak", "human", "mixed"] = Field(
        "weak",
        description="Whose labels it may hold: judges', people's, or both. Anything else in its data is refused",
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the data")
    learning_rate: float | None = Field(None, gt=0, description="Of this stage; empty: the experiment's")


class Lora(_Strict):
    """Low-rank adapters instead of all weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    r: int = Field(16, ge=1, description="Rank")
    alpha: int = Field(32, ge=1, description="Scale")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of the adapter's input that is dropped")
    target_modules: tuple[str, ...] = Field((), description="Names of the layers; empty: the library's choice")


class EarlyStop(_Strict):
    """Stopping on dev: the best checkpoint by the metric is kept."""

    metric: str = Field("nDCG@10", description="A measure of ir-measures, on the dev queries")
    patience: int = Field(2, ge=1, description="Evaluations without a better one after which training stops")
    every: float = Field(0.25, gt=0, description="Epochs between evaluations")


class Experiment(_Strict):
    """See the module. Every field is documented where it stands; docs/training.md has the table."""

    kind: Literal["bi_encoder", "cross_encoder"] = Field("bi_encoder", description="What is trained")
    model: str = Field(
        "all-MiniLM-L6-v2", description="Catalogue name, or path:FOLDER of a sentence-transformers model"
    )
    losses: dict[str, Weight] = Field({"infonce": 1.0}, description="Terms of the loss with their weights")
    stages: tuple[Stage, ...] = Field((Stage(),), min_length=1, description="The curriculum, in order")
    target: Literal["p_relevant", "expected_relevance", "answer_nll", "grade"] = Field(
        "p_relevant",
        description="Soft target of a document: the calibrated P(relevant); the expected relevance in 0..1; the loss"
        " of the answer's tokens (lower is better; a passage without one is left out); the grade, brought to 0..1",
    )
    prior: str = Field(
        "",
        description="System of the export whose scores, divided by `temperature`, are the prior that P(relevant) is"
        " combined with to a posterior over the query's documents: dense for the retriever's; empty: none",
    )
    positives: Literal["roles", "target"] = Field(
        "roles", description="What is relevant: mining's positives, or whose target is at least `relevant_from`"
    )
    need_positive: bool = Field(
        True, description="Drop queries without a positive; false: soft losses learn from them, others skip them"
    )
    every_label: bool = Field(
        False, description="An epoch shows every labelled document once, not only every positive"
    )
    strangers: int = Field(
        0,
        ge=0,
        description="Random negatives: documents of other queries, drawn by the seed, shown to a cross-encoder"
        " with each row, as a bi-encoder has them in the rest of its batch",
    )
    documents: int = Field(8, ge=2, description="Documents a query, positives and negatives together")
    max_positives: int = Field(2, ge=1, description="Positives among them, at most; others wait for the next epoch")
    relevant_from: float = Field(
        0.5, ge=0, description="Soft target (of answer_nll: gain in nats a token) that makes a document relevant"
    )
    temperature: float = Field(0.05, gt=0, description="Scores are divided by it")
    teacher_temperature: float = Field(
        0.3, gt=0, description="Soft targets are divided by it; 0.01 makes them one-hot"
    )
    margin: float = Field(0.1, gt=0, description="Of triplet and margin, in cosine")
    batch_size: int = Field(16, ge=1, description="Queries a step and device; pairs in a cross-encoder's bce and mse")
    mini_batch_size: int = Field(0, ge=0, description="Texts embedded at once, by GradCache; 0: the whole batch")
    accumulate: int = Field(1, ge=1, description="Steps whose gradients are added")
    learning_rate: float = Field(2e-5, gt=0, description="Peak; linear warm-up, linear decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW")
    max_length: int = Field(
        256, ge=8, description="Tokens of a text; 384 for a cross-encoder, of query and passage together"
    )
    merge: float = Field(
        1.0, gt=0, le=1, description="Share of the trained weights in the result; the rest is the base's"
    )
    lora: Lora | None = Field(None, description="Adapters; empty: all weights are trained")
    early_stop: EarlyStop | None = Field(None, description="Needs dev queries; empty: the last checkpoint is kept")
    bf16: bool = Field(False, description="Mixed precision; on GPUs and processors that have it")
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field("auto", description="Implementation")
    attention_dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of attention weights dropped in training; empty: the model's own. With 0 PyTorch has"
        " a fused kernel on processors too: 2.1 instead of 3.4 s a step of 32 pairs (MiniLM, bf16)",
    )
    seed: int = Field(13, ge=0, description="Of everything that is drawn")
    checkpoint_every: float = Field(
        0.5, gt=0, description="Epochs between checkpoints, from which a killed run resumes"
    )
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="Where progress is logged"
    )

    @model_validator(mode="before")
    @classmethod
    def _pairs_are_longer(cls, values: Any) -> Any:
        """A cross-encoder reads query and passage together."""
        if isinstance(values, dict) and values.get("kind") == "cross_encoder":
            return {"max_length": PAIR_TOKENS, **values}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known = BI_ENCODER_LOSSES if self.kind == "bi_encoder" else CROSS_ENCODER_LOSSES
        unknown = sorted(set(self.losses) - set(known))
        problems = self._problems_of_targets()
        if unknown:
            problems.append(f"losses {', '.join(unknown)} are none of a {self.kind}: it has {', '.join(known)}")
        if not any(self.losses.values()):
            problems.append("losses: no term has a weight above 0")
        if self.kind == "cross_encoder" and sum(weight > 0 for weight in self.losses.values()) > 1:
            problems.append("losses: a cross-encoder is trained with one loss; set the others to 0")
        if self.max_positives >= self.documents:
            problems.append(f"max_positives {self.max_positives} leaves no negative among {self.documents} documents")
        if len({stage.name for stage in self.stages}) < len(self.stages):
            problems.append("stages: two have one name")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_targets(self) -> list[str]:
        absolute = ABSOLUTE_LOSSES if self.kind == "bi_encoder" else (*ABSOLUTE_LOSSES, "mse")
        problems = []
        if not self.need_positive and not self.soft:
            problems.append(
                f"need_positive: false needs a loss that learns from soft targets: {', '.join(SOFT_LOSSES)}"
            )
        if self.prior and self.target != "p_relevant":
            problems.append(f"prior combines with p_relevant, not with {self.target}: leave one of the two out")
        if self.target == "answer_nll" and (fitted := sorted(set(self.terms) & set(absolute))):
            problems.append(f"losses {', '.join(fitted)} fit a target in 0..1, which answer_nll is not")
        return problems

    @property
    def soft(self) -> bool:
        """Whether a term learns from soft targets."""
        return any(name in SOFT_LOSSES for name in self.terms)

    @property
    def terms(self) -> dict[str, float]:
        """The terms that count: weight above 0."""
        return {name: weight for name, weight in self.losses.items() if weight > 0}

    def resolved(self) -> dict[str, Any]:
        """The whole experiment as plain data, inheritance and overrides applied."""
        return self.model_dump(mode="json")


def shipped() -> list[str]:
    """The names of the experiments that come with qrelay."""
    folder = resources.files("qrelay.training") / "experiments"
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_experiment(source: str, overrides: Sequence[str] = ()) -> Experiment:
    """`source`: a shipped name or a file; `overrides`: `dotted.name=value`, values in YAML.

    Raises:
        ConfigError: every problem at once: no such experiment, a circle of bases, fields that are not there or hold
            what they cannot.
    """
    values = _inherited(source, Path(), ())
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"override {override!r} has no value: write NAME=VALUE, like learning_rate=1e-5")
        _merge(values, _nested(name.strip().split("."), _yaml(text, override)))
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, each['loc'])) or 'experiment'}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"experiment {source} cannot be run:\n" + "\n".join(lines)) from error


def _inherited(source: str, beside: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    name, text, folder = _read(source, beside)
    if name in seen:
        raise ConfigError(f"experiments inherit in a circle: {' from '.join((*seen, name))}")
    values = _yaml(text, name)
    if not isinstance(values, dict):
        raise ConfigError(f"experiment {name} is not a mapping of fields: see `qrelay train --list`")
    base = values.pop("base", None)
    if base is None:
        return values
    inherited = _inherited(str(base), folder, (*seen, name))
    _merge(inherited, values)
    return inherited


def _read(source: str, beside: Path) -> tuple[str, bytes, Path]:
    """(name, text, folder that a base is looked for in)."""
    if source in shipped():
        return (
            source,
            (resources.files("qrelay.training") / "experiments" / f"{source}.yaml").read_bytes(),
            Path(),
        )
    for path in (beside / source, beside / f"{source}.yaml"):
        if is_file(path):
            return str(path), path.read_bytes(), path.parent
    raise ConfigError(f"there is no experiment {source!r}: give a YAML file or one of {', '.join(shipped())}")


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _nested(names: Sequence[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    return dict(value)


def _yaml(text: bytes | str, where: str) -> Any:
    try:
        return yaml_document(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error

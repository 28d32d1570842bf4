"""`qrelay train`: a model from exports of the sink."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.labels.frame import allowing_options
from qrelay.cli.offline import stay_offline
from qrelay.cli.options import config_option, json_option
from qrelay.output import echo_json
from qrelay.parsing import json_document

if TYPE_CHECKING:
    from qrelay.formats.beir import Collection
    from qrelay.training.experiment import Experiment

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_PLACE = click.Path(path_type=Path, exists=True)


@click.command("train", epilog=example("qrelay train --experiment infonce_only --data 'exports/*.jsonl' --out run"))
@click.option("--experiment", "name", metavar="NAME|FILE", help="A shipped experiment, or a YAML file.")
@click.option("--data", multiple=True, metavar="GLOB", help="Exports (labels, triples) for stages that name none.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("run"), show_default=True, help="The run's folder."
)
@click.option("--dev", type=_PLACE, help="Frozen evaluation set for early stopping.")
@click.option("--dev-corpus", type=_PLACE, help="The same in BEIR's files: corpus.jsonl[.gz] or its folder.")
@click.option("--dev-queries", type=_FILE, help="queries.jsonl[.gz].")
@click.option("--dev-qrels", type=_FILE, help="BEIR qrels TSV, or TREC qrels.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Override a field: losses.infonce=0.5.")
@click.option("--list", "only_list", is_flag=True, help="Show the shipped experiments.")
@click.option("--show", is_flag=True, help="Show the experiment as it would run, and stop.")
@click.option("--job", "job_file", type=_FILE, help="Do a sink's job: export, train, gate, promote (docs/loop.md).")
@allowing_options("With --job, train on labels")
@config_option()
@json_option()
def train_command(
    name: str | None, data: tuple[str, ...], out: Path, dev: Path | None, dev_corpus: Path | None,
    dev_queries: Path | None, dev_qrels: Path | None, overrides: tuple[str, ...], only_list: bool, show: bool,
    job_file: Path | None, unmeasured: bool, unqualified: bool, config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Train a bi-encoder or a cross-encoder as an experiment says.

    The model is OUT/model, a sentence-transformers folder; OUT/run.json says what made it. A run that was killed
    resumes when it is started again. Several GPUs: torchrun --nproc-per-node N --no-python qrelay train ...
    """
    from qrelay.training.experiment import load_experiment

    if only_list:
        return _list(as_json)
    if job_file is not None:
        from qrelay.cli.job import end, run_job_file

        return end(run_job_file(job_file, config, unmeasured=unmeasured, unqualified=unqualified))
    if unmeasured or unqualified:
        raise click.UsageError("--unmeasured and --unqualified are of a --job: exports of --data were let through")
    if name is None:
        raise click.UsageError("name an experiment with --experiment; --list shows those that are shipped")
    experiment = load_experiment(name, overrides)
    if show:
        return _show(experiment, as_json)
    if not data and not all(stage.data for stage in experiment.stages):
        raise click.UsageError("give --data, or name the data of every stage in the experiment")
    return _train(experiment, data, out, _dev_set(dev, dev_corpus, dev_queries, dev_qrels), as_json)


def _list(as_json: bool) -> None:
    from qrelay.training.experiment import load_experiment, shipped

    found = {name: load_experiment(name) for name in shipped()}
    if as_json:
        echo_json({name: {"kind": each.kind, "losses": each.terms} for name, each in found.items()})
        return
    for name, each in found.items():
        losses = " + ".join(f"{weight:g} {term}" for term, weight in each.terms.items())
        click.echo(f"{name:<16} {each.kind:<14} {losses}")


def _show(experiment: Experiment, as_json: bool) -> None:
    import yaml

    resolved = experiment.resolved()
    if as_json:
        echo_json(resolved)
    else:
        click.echo(yaml.safe_dump(resolved, sort_keys=False), nl=False)


def _dev_set(frozen: Path | None, corpus: Path | None, queries: Path | None, qrels: Path | None) -> Collection | None:
    if frozen is not None:
        from qrelay.training.evaluation.frozen import FrozenSet

        if corpus or queries or qrels:
            raise click.UsageError("give --dev, or --dev-corpus, --dev-queries and --dev-qrels, not both")
        return FrozenSet.read(frozen).collection
    if corpus and queries and qrels:
        from qrelay.formats.beir import read_collection

        return read_collection(corpus, queries, qrels)
    if corpus or queries or qrels:
        raise click.UsageError("a dev set is --dev-corpus, --dev-queries and --dev-qrels together")
    return None


def _train(experiment: Experiment, data: tuple[str, ...], out: Path, dev: Collection | None, as_json: bool) -> None:
    stay_offline()
    from qrelay.training.record import NAME, first_process
    from qrelay.training.train import train

    _log_to_stderr()
    train(experiment, data, out, dev)
    if not first_process():
        return
    record = json_document((out / NAME).read_bytes())
    if as_json:
        echo_json({"model": str(out / "model"), **record})
        return
    _report(out, record)


def _log_to_stderr() -> None:
    """Progress as lines, and the libraries' bars and reports off: they are for notebooks."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    log = logging.getLogger("qrelay.train")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _report(out: Path, record: dict[str, Any]) -> None:
    for stage in record["stages"]:
        dropped = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in stage["dropped"].items())
        click.echo(
            f"stage {stage['stage']}: {stage['examples']} examples, {stage['rows']} rows, {stage['steps']} steps in"
            f" {stage['seconds']:.0f} s" + (f"; dropped: {dropped}" if dropped else "")
        )
        if "losses" in stage:
            terms = ", ".join(f"{name} {float(value):.4f}" for name, value in stage["losses"].items())
            click.echo(f"  first loss {float(stage['first_loss']):.4f}; last: {terms}")
    if "dev" in record:
        dev = record["dev"]
        click.echo(f"dev {dev['metric']}: {dev['before']:.4f} before, {dev['after']:.4f} after")
    click.echo(f"model: {out / 'model'}")

"""`qrelay eval answers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.eval.options import (
    FILE,
    corpus_options,
    model_options,
    options_of,
    required,
    write_json,
)
from qrelay.cli.group import example
from qrelay.cli.options import insecure_option, json_file_option, json_option
from qrelay.config import ServiceSettings
from qrelay.output import echo_json
from qrelay.settings.effective import find

if TYPE_CHECKING:
    from qrelay.formats.beir import Run
    from qrelay.training.evaluation.answers import Reading
    from qrelay.training.evaluation.llm import Llm
    from qrelay.training.evaluation.questions import Questions

_ENGINES = click.Choice(["llamacpp", "transformers", "vllm", "openai", "fake"])
_ENGINE_HELP = "Engine.  [default: openai with a URL, else llamacpp]"


@click.command(
    "answers",
    epilog=example(
        "qrelay eval answers --model bm25 --corpus beir-folder --reader qwen2.5-coder-0.5b-instruct --sample 50"
    ),
)
@click.option("--model", required=True, help="The retriever or reranker: folder, catalogue name, or `bm25`.")
@corpus_options
@click.option("--answers", type=FILE, help="JSONL of query_id and answers.  [default: the queries' metadata.answers]")
@click.option("--run", "run_file", type=FILE, help="TREC run that a cross-encoder reorders.")
@model_options
@click.option("--k", default=3, show_default=True, type=click.IntRange(0), help="Passages that the reader sees.")
@click.option("--reader", required=True, help="LLM that answers: catalogue name, path:FILE, or an endpoint's name.")
@click.option("--reader-engine", type=_ENGINES, default=None, help=_ENGINE_HELP)
@click.option("--reader-url", default="", help="OpenAI-compatible endpoint, ending in /v1.")
@click.option("--reader-key-env", default="", help="Environment variable with its key.")
@click.option("--grader", help="LLM that grades the answers, 0 to 1.  [default: no grades]")
@click.option("--grader-engine", type=_ENGINES, default=None, help=_ENGINE_HELP)
@click.option("--grader-url", default="", help="OpenAI-compatible endpoint, ending in /v1.")
@click.option("--grader-key-env", default="", help="Environment variable with its key.")
@click.option("--miner-judge", multiple=True, help="Model whose labels trained the retriever; repeatable.")
@click.option("--same-family", is_flag=True, help="Allow a grader of the same family as a --miner-judge.")
@click.option("--instructions", help="What the reader is told.  [default: a short answer from the passages]")
@click.option("--max-tokens", default=128, show_default=True, type=click.IntRange(1), help="Of an answer.")
@click.option("--passage-words", default=200, show_default=True, type=click.IntRange(1), help="Of a passage shown.")
@click.option("--sample", type=click.IntRange(1), help="Ask this many of the queries.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@insecure_option()
@json_option()
@json_file_option()
def answers_command(**given: Any) -> None:
    """Measure answers that an LLM reads from what a model retrieves: exact match, token F1, an LLM's grade."""
    from qrelay.training.evaluation.answers import report
    from qrelay.training.evaluation.families import families, refuse_kin
    from qrelay.training.evaluation.llm import identity
    from qrelay.training.evaluation.questions import read_questions

    if given["grader"] and not given["same_family"]:
        refuse_kin(given["grader"], given["miner_judge"])
    corpus = required(given, "corpus")
    if not given["queries"] and not corpus.is_dir():
        raise click.UsageError("Missing option '--queries': needed where --corpus is not a folder in BEIR's layout.")
    questions = read_questions(
        corpus, given["queries"] or corpus, given["answers"], sample=given["sample"], seed=given["seed"]
    )
    found = report(questions, _readings(given, questions))
    roles = [role for role in ("reader", "grader") if given[role]]
    models = {role: {**identity(_llm(given, role)), "families": sorted(families(given[role]))} for role in roles}
    document = {
        "model": given["model"],
        **models,
        "miner_judges": list(given["miner_judge"]),
        **{name: given[name] for name in ("k", "max_tokens", "passage_words", "instructions", "sample", "seed")},
        **found,
    }
    write_json(given["json_file"], document)
    if given["as_json"]:
        echo_json(document)
    else:
        _print(found)


def _readings(given: Mapping[str, Any], questions: Questions) -> list[Reading]:
    from qrelay.progress import shown
    from qrelay.training.evaluation.answers import INSTRUCTIONS, grade, read

    with shown():
        readings = read(
            questions,
            _run(given, questions),
            _llm(given, "reader"),
            k=given["k"],
            instructions=given["instructions"] or INSTRUCTIONS,
            max_tokens=given["max_tokens"],
            passage_words=given["passage_words"],
        )
        if not given["grader"]:
            return readings
        return grade(questions, readings, _llm(given, "grader"))


def _run(given: Mapping[str, Any], questions: Questions) -> Run:
    from qrelay.training.evaluation.answering import answer

    if not given["k"]:
        return {}
    return answer(questions.collection, given["model"], options_of(given, questions.collection))


def _llm(given: Mapping[str, Any], role: str) -> Llm:
    from qrelay.training.evaluation.llm import Llm

    own = find(None, None).settings(ServiceSettings, "all")
    return Llm(
        given[role], given[f"{role}_engine"] or "", given[f"{role}_url"], given[f"{role}_key_env"],
        plain_hosts=own.plain_hosts, insecure=own.insecure,
    )  # fmt: skip


def _print(found: Mapping[str, Any]) -> None:
    missing = ", ".join(f"{count} {reason}" for reason, count in found["missing"].items()) or "none"
    click.echo(f"{found['queries']} questions, {found['answered']} answered (missing: {missing})")
    for name, value in found["means"].items():
        many = found["graded"] if name == "grade" else found["answered"]
        click.echo(f"  {name:<6} {'none' if value is None else f'{value:.4f}'}  over {many}")
    if found["grades_missing"]:
        lacking = ", ".join(f"{count} {reason}" for reason, count in found["grades_missing"].items())
        click.echo(f"  grades missing: {lacking}")

"""`qrelay queries generate`: questions from a corpus, for a loop that starts from documents alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.errors import ConfigError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.cli.roundtrip import RetrieverRoundTrip
    from qrelay.judging.querygen.journal import Journal
    from qrelay.judging.querygen.passages import Sample
    from qrelay.judging.settings import JudgeSettings
    from qrelay.llm.base import Backend

_POOL_A_QUERY: Final = 8
_LEAST_POOL: Final = 200
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(
    cls=Group,
    epilog=example("qrelay queries generate --corpus corpus.jsonl --n 100 --out queries.jsonl --no-round-trip"),
)
def queries() -> None:
    """Make queries where there is no query log."""


@queries.command(
    epilog=example("qrelay queries generate --corpus corpus.jsonl --n 100 --out queries.jsonl --collection docs")
)
@click.option("--corpus", required=True, type=click.Path(path_type=Path, exists=True),
              help="BEIR corpus.jsonl[.gz] or its folder, or passages from `qrelay index passages`.")  # fmt: skip
@click.option("--n", "n", required=True, type=click.IntRange(1), help="Questions to keep.")
@click.option("--out", required=True, type=_FILE, help="JSONL of queries, as `qrelay feed` takes it.")
@click.option(
    "--qrels", type=_FILE, help="Also write known-item labels: each question's source document is relevant."
)
@click.option("--llm", help="Catalogue name, path:FILE, or the URL of an endpoint (…/v1).  [default: judge.model]")
@click.option("--llm-model", help="The endpoint's name for the model, where --llm is a URL.")
@click.option("--backend", type=click.Choice(["llamacpp", "transformers", "vllm", "openai", "fake"]),
              help="Engine.  [default: judge.backend]")  # fmt: skip
@click.option("--round-trip", "depth", type=click.IntRange(1), default=10, show_default=True,
              help="Keep a question if its document is among the retriever's first N passages.")  # fmt: skip
@click.option("--collection", help="The collection of the corpus in the retriever.")
@click.option("--retriever", help="host:port of the retriever.  [default: in --data-dir]")
@click.option("--no-round-trip", is_flag=True, help="Keep questions without asking a retriever.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed samples other passages.")
@click.option("--min-words", type=click.IntRange(1), default=12, show_default=True,
              help="Words of prose that a passage must have.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Passages in one batch.")
@click.option("--resume", is_flag=True, help="Resume an earlier run of the same options.")
@data_dir_option()
@config_option()
@json_option()
def generate(data_dir: Path, config: Path | None, as_json: bool, **options: Any) -> None:
    """Write questions from passages with an LLM, and keep those that lead the retriever back to their document.

    Every outcome is durable at once (OUT.journal.jsonl); OUT and OUT.manifest.json are written when the run ends.
    Exit code 3: fewer than N were kept, because no passage is left, or some passages got no answer.
    """
    from qrelay.judging.querygen.outputs import journal_path
    from qrelay.judging.querygen.passages import sample

    trip = _round_trip(data_dir, **options)
    settings = _settings(config, data_dir, **options)
    pool = max(_LEAST_POOL, _POOL_A_QUERY * options["n"])
    found = sample(options["corpus"], seed=options["seed"], pool=pool, min_words=options["min_words"])
    facts = asyncio.run(_generated(_Run(settings, trip, found, options), journal_path(options["out"])))
    if as_json:
        echo_json(facts)
    else:
        _print(facts, options["out"])
    if facts["kept"] < options["n"] or facts["missing"]:
        raise SystemExit(EXIT_PARTIAL)


@queries.command(
    epilog=example("qrelay queries alternatives queries.jsonl --log log.jsonl --out with-alternatives.jsonl")
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--log", required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Queries to choose from: JSONL[.gz], TSV or plain lines.")  # fmt: skip
@click.option("--n", default=6, show_default=True, type=click.IntRange(1), help="Alternatives a query.")
@click.option("--embedder", default="all-MiniLM-L6-v2", show_default=True, help="Catalogue name or path:FOLDER.")
@click.option("--out", required=True, type=_FILE, help="FILE with the attribute `alternatives`, for `qrelay feed`.")
def alternatives(file: Path, log: Path, n: int, embedder: str, out: Path) -> None:
    """Add to each query of FILE the most similar questions of a log, for the strategy contrastive_likelihood."""
    from qrelay.files import write_atomic
    from qrelay.formats.queries import read_queries
    from qrelay.judging.querygen.alternatives import annotated
    from qrelay.models.embedder import load_embedder

    texts = [query.text for query in read_queries(log)]
    found = annotated(read_queries(file), texts, n, load_embedder(embedder))
    lines = [json.dumps(query, ensure_ascii=False) + "\n" for query in found]
    write_atomic(out, "".join(lines))
    click.echo(f"{out}: {len(lines)} queries with up to {n} alternatives each")


def _round_trip(
    data_dir: Path, no_round_trip: bool, retriever: str | None, collection: str | None, depth: int, **_: Any
) -> RetrieverRoundTrip | None:
    from qrelay.cli.roundtrip import RetrieverRoundTrip
    from qrelay.rundir import endpoints

    if no_round_trip:
        if retriever:
            raise click.UsageError("give --retriever or --no-round-trip, not both")
        return None
    running = endpoints(data_dir).get("retriever")
    address = retriever or (running.grpc if running else None)
    if address is None:
        raise ConfigError(
            f"no retriever runs from {data_dir} for the round trip: start `qrelay up`, give --retriever host:port, "
            "or keep questions unfiltered with --no-round-trip"
        )
    if not collection:
        raise click.UsageError("the round trip needs --collection: the name of the corpus in the retriever")
    return RetrieverRoundTrip(data_dir, address, collection, depth)


def _settings(
    config: Path | None, data_dir: Path, llm: str | None, llm_model: str | None, backend: str | None, **_: Any
) -> JudgeSettings:
    """The judge's settings with the engine that the options name, checked as a whole."""
    from pydantic import ValidationError

    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    given = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir).model_dump()
    given |= {"backend": backend} if backend else {}
    if llm and llm.startswith(("http://", "https://")):
        if not llm_model:
            raise click.UsageError("--llm is an endpoint: name its model with --llm-model")
        given |= {"backend": "openai", "model": llm_model, "endpoint": {**given["endpoint"], "url": llm}}
    elif llm:
        given["model"] = llm
    try:
        return JudgeSettings.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise ConfigError(f"the model cannot be asked: {problems}") from error


@dataclass(frozen=True, slots=True)
class _Run:
    settings: JudgeSettings
    trip: RetrieverRoundTrip | None
    sample: Sample
    options: dict[str, Any]

    def identity(self, backend: Backend) -> dict[str, Any]:
        """What decides the questions: a run with another of these is another run."""
        from qrelay.judging.querygen.prompt import prompt_hash
        from qrelay.llm.exchange import GENERATION

        weights, options = backend.weights, self.options
        round_trip = {"depth": options["depth"], "collection": options["collection"]} if self.trip else None
        return {
            "corpus": self.sample.corpus_hash,
            "seed": options["seed"],
            "min_words": options["min_words"],
            "generator": f"{weights.model}@{weights.revision}",
            "quantisation": weights.quantisation,
            "decoding": backend.decodings(GENERATION)[0],
            "prompt": prompt_hash(),
            "round_trip": round_trip,
        }


async def _generated(run: _Run, path: Path) -> dict[str, Any]:
    """The run to its end; the manifest. What was done is written also where it ends with an error."""
    from qrelay.judging.engines import chat_engine
    from qrelay.judging.querygen.generate import Generator
    from qrelay.judging.querygen.journal import Journal
    from qrelay.judging.querygen.outputs import manifest, write_outputs

    if run.trip:
        await run.trip.check()
    options, backend = run.options, await asyncio.to_thread(chat_engine, run.settings)
    try:
        identity = run.identity(backend)
        with Journal(path, identity, resume=options["resume"]) as journal, _asking(journal, options["n"]) as progress:
            generator = Generator(backend, run.trip)
            try:
                await generator.run(
                    run.sample.passages, journal, options["n"], batch=options["batch"], progress=progress
                )
            finally:
                more = {"n": options["n"], "corpus_file": options["corpus"].name}
                more |= {"index_versions": list(run.trip.index_versions)} if run.trip else {}
                facts = manifest(run.sample, journal, identity, more)
                write_outputs(options["out"], journal, identity, facts, options["qrels"])
            return facts
    finally:
        backend.close()


@contextmanager
def _asking(journal: Journal, n: int) -> Iterator[Callable[[], None]]:
    """Shows how many of `n` questions are kept, each time that it is called."""
    from qrelay.judging.querygen.journal import KEPT
    from qrelay.progress import shown, step

    kept = len(journal.of(KEPT))
    with shown(), step("questions kept", total=n, unit="questions", done=kept) as asking:
        yield lambda: asking.at(len(journal.of(KEPT)))


def _print(facts: dict[str, Any], out: Path) -> None:
    def listed(reasons: dict[str, int]) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"

    click.echo(
        f"{facts['kept']} of {facts['n']} questions kept in {out}; asked about {facts['asked']} passages "
        f"({facts['seconds_a_passage']} s each)\nrejected: {listed(facts['rejected_by_reason'])}\n"
        f"missing: {listed(facts['missing_by_reason'])}"
    )

"""Every command of the tree: an example that parses, one --json, one table of exit codes, names that were meant."""

from __future__ import annotations

import ast
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from qrelay import exitcodes
from qrelay.cli.collection import check_collection
from qrelay.cli.group import Group
from qrelay.cli.main import qrelay
from qrelay.cli.options import json_option
from qrelay.errors import InvalidQuery, UnknownCollection
from qrelay.nearest import did_you_mean
from qrelay.output import Rows, show
from qrelay.progress import Lines, listening, step
from qrelay.training.experiment import shipped
from tests.command_lines import parsed

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for part in ("qrelay", "services") for path in (ROOT / part).rglob("*.py")]


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that name it; the root has none."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from walk(found, (*path, name))


TREE = dict(walk(qrelay))
COMMANDS = [pytest.param(path, id=" ".join(path) or "qrelay") for path in TREE]
GROUPS = [pytest.param(path, id=" ".join(path) or "qrelay") for path, each in TREE.items() if isinstance(each, Group)]
WITH_JSON = sorted(path for path, each in TREE.items() if any("--json" in option.opts for option in each.params))


def examples(command: click.Command) -> list[list[str]]:
    """The command lines under "Example:" in the epilog, as a shell splits them."""
    text = inspect.cleandoc(command.epilog or "")
    found = re.search(r"^Example:\n((?:  .*\n?)+)", text, re.MULTILINE)
    lines = re.sub(r"\\\n *", " ", found.group(1)).splitlines() if found else []
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_shows_an_example_that_parses(path: tuple[str, ...]) -> None:
    command = TREE[path]
    shown = examples(command)
    assert shown, "no example: give the decorator epilog=example(…)"
    for words in shown:
        assert words[0] == "qrelay"
        called = parsed(qrelay, words[1:], ())
        assert called[: len(path)] == path, f"an example of {' '.join(called)}"


def test_examples_name_experiments_that_are_shipped() -> None:
    lines = [words for command in TREE.values() for words in examples(command) if "--experiment" in words]
    assert lines and {words[words.index("--experiment") + 1] for words in lines} <= set(shipped())


@pytest.mark.parametrize("path", COMMANDS)
def test_an_example_fits_a_terminal_of_eighty_columns(path: tuple[str, ...]) -> None:
    text = TREE[path].get_help(click.Context(TREE[path], info_name=" ".join(path), terminal_width=80))
    shown = text[text.index("Example:") :]
    assert max(map(len, shown.splitlines())) <= 80, shown


@pytest.mark.parametrize("path", GROUPS)
def test_a_mistyped_command_is_told_with_what_was_meant(path: tuple[str, ...]) -> None:
    group = TREE[path]
    assert isinstance(group, Group)
    (name, *_) = group.list_commands(click.Context(group))
    done = CliRunner().invoke(qrelay, [*path, f"{name}x"])
    assert done.exit_code == exitcodes.EXIT_USAGE
    assert "Did you mean" in done.stderr and repr(name) in done.stderr


def test_every_group_is_of_the_one_class() -> None:
    groups = [each for each in TREE.values() if isinstance(each, click.Group)]
    assert groups and all(isinstance(each, Group) for each in groups)


def test_a_mistyped_option_is_told_with_what_was_meant() -> None:
    done = CliRunner().invoke(qrelay, ["feed", "--colection", "docs"])
    assert done.exit_code == exitcodes.EXIT_USAGE and "--collection" in done.stderr


def test_a_mistyped_model_is_told_with_what_was_meant() -> None:
    done = CliRunner().invoke(qrelay, ["models", "pull", "all-MiniLM-L6"])
    assert done.exit_code == exitcodes.EXIT_USAGE and "Did you mean 'all-MiniLM-L6-v2'" in done.stderr


def test_a_name_far_from_all_has_no_suggestion() -> None:
    assert did_you_mean("zebra", ["docs", "manuals"]) == ""
    assert did_you_mean("doc", ["docs", "manuals"]) == " Did you mean 'docs'?"


@pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(path)) for path in WITH_JSON])
def test_json_is_the_one_option_everywhere(path: tuple[str, ...]) -> None:
    @click.command()
    @json_option()
    def model(as_json: bool) -> None:
        del as_json

    (wanted,) = model.params
    (found,) = [option for option in TREE[path].params if "--json" in option.opts]
    assert found.to_info_dict() == wanted.to_info_dict()


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Calls of a function or method whose last name is one of these."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in names:
                yield node


def imported(tree: ast.AST) -> set[str]:
    """Modules that are imported anywhere in the file."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@cache
def trees() -> dict[str, ast.Module]:
    """Every file of the program, parsed."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf8")) for path in SOURCES}


def files_that(condition: Callable[[ast.AST], bool]) -> set[str]:
    return {name for name, tree in trees().items() if condition(tree)}


def test_one_module_prints_the_json_of_commands() -> None:
    def prints(tree: ast.AST) -> bool:
        return any(list(calls(call, "dumps", "MessageToJson")) for call in calls(tree, "echo"))

    assert files_that(prints) == {"qrelay/output.py"}


def test_one_module_makes_tables_and_one_shows_progress() -> None:
    assert files_that(lambda tree: "rich.table" in imported(tree)) == {"qrelay/output.py"}
    bars = files_that(lambda tree: "rich.progress" in imported(tree))
    assert bars <= {"qrelay/progress.py", "qrelay/cli/models/group.py", "qrelay/cli/feed.py"}
    spinners = files_that(lambda tree: any(spins(call) for call in calls(tree, "status")))
    assert spinners <= {"qrelay/cli/models/group.py", "qrelay/cli/up.py"}


def spins(call: ast.Call) -> bool:
    """Whether it is `console.status(…)`, a spinner that a pipe does not show."""
    return isinstance(call.func, ast.Attribute) and "onsole" in ast.unparse(call.func.value)


def test_the_table_of_exit_codes_names_every_code_of_the_module() -> None:
    named = {value for name, value in vars(exitcodes).items() if name.startswith("EXIT_")}
    assert named == set(exitcodes.MEANINGS)


def test_no_exit_code_is_written_as_a_number_elsewhere() -> None:
    def numbers(tree: ast.AST) -> bool:
        given = [argument for call in calls(tree, "SystemExit", "exit", "Exit") for argument in call.args]
        branches = [(node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,) for node in given]
        inside = (node for nodes in branches for node in nodes)
        defined = (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and "EXIT_" in ast.unparse(node).partition("=")[0]
        )
        return any(isinstance(node, ast.Constant) and isinstance(node.value, int) for node in (*inside, *defined))

    assert files_that(numbers) - {"qrelay/exitcodes.py"} == set()


def test_the_page_and_the_help_have_the_table_of_exit_codes() -> None:
    page = (ROOT / "docs" / "cli.md").read_text("utf8")
    rows = {int(code): text for code, text in re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE)}
    assert rows == exitcodes.MEANINGS
    help_text = CliRunner().invoke(qrelay, ["--help"]).stdout
    for code, meaning in exitcodes.MEANINGS.items():
        assert re.search(rf"^ +{code}  {re.escape(meaning)}$", help_text, re.MULTILINE), code


def printed(rows: Rows, width: int) -> str:
    file = io.StringIO()
    show(rows, file=file, width=width)
    return file.getvalue()


ID, REASON = "3f9a1c" * 10, "the passage is a near duplicate of another one, which is relevant"
TABLE = Rows(("id", "state", "why"), [(ID, "open", REASON)], prose=("why",))


@pytest.mark.parametrize("width", [200, 120, 80, 40])
def test_ids_and_reasons_survive_a_narrow_terminal(width: int) -> None:
    text = printed(TABLE, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    letters = "".join(re.findall(r"[0-9a-z]+", text))
    assert ID in letters
    if width < 100:
        assert "".join(re.findall(r"[0-9a-z]+", REASON)) in letters  # a block: nothing stands between its lines


def test_a_pipe_gets_one_line_a_row() -> None:
    file = io.StringIO()
    show(TABLE, file=file)
    assert any(ID in line and REASON in line for line in file.getvalue().splitlines())


def test_progress_on_a_pipe_is_plain_lines_and_a_quick_step_is_one() -> None:
    said: list[str] = []
    with listening(Lines(said.append)), step("reading", total=3, unit="files") as reading:
        reading.advance(3)
    assert said == ["reading: 0 of 3 files"]


PROBE = """
import os, sys
sys.argv = ["qrelay", "--help"]
from qrelay.cli.main import main
try:
    main()
except SystemExit:
    pass
print(*sorted(sys.modules), file=sys.stderr)
"""


def modules_after(**environ: str) -> tuple[str, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True,
                          env={**os.environ, **environ}, cwd=ROOT)  # fmt: skip
    return done.stdout, set(done.stderr.split())


def test_completing_a_command_imports_no_command() -> None:
    asked = {"_QRELAY_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
    names, loaded = modules_after(**asked, COMP_WORDS="qrelay l")
    assert names.split() == ["plain,label", "plain,ledger"]
    assert not {each for each in loaded if each.startswith(("services.", "trainer.", "rich", "grpc", "pydantic"))}


def test_help_imports_no_heavy_library() -> None:
    text, loaded = modules_after()
    assert "Exit codes:" in text
    assert not loaded & {"torch", "transformers", "sqlalchemy", "pandas", "bm25s", "matplotlib", "scipy"}


def built(folder: Path, *names: str) -> Path:
    """A data folder with an index of each of these collections, as far as its name goes."""
    for name in names:
        (folder / "index" / name).mkdir(parents=True)
        (folder / "index" / name / "CURRENT").write_text("v1\n")
    return folder


def test_a_mistyped_collection_is_refused_at_feed_before_a_query_is_sent(tmp_path: Path) -> None:
    data_dir = built(tmp_path, "python-docs", "manuals")
    with pytest.raises(UnknownCollection, match=r"Did you mean 'python-docs'\? There are: manuals, python-docs"):
        CliRunner().invoke(qrelay, ["feed", "-", "--collection", "python-doc", "--data-dir", str(data_dir)],
                           input="a question\n", catch_exceptions=False)  # fmt: skip
    assert not (data_dir / "feed").exists()


def test_a_collection_with_an_index_passes_and_so_does_any_where_nobody_can_know(tmp_path: Path) -> None:
    check_collection("docs", built(tmp_path / "here", "docs"), None)
    check_collection("docs", tmp_path / "nothing-was-built", None)
    check_collection("docs", built(tmp_path / "other", "manuals"), None, elsewhere=True)
    with pytest.raises(InvalidQuery, match="use 1 to 64"):
        check_collection("No Name", tmp_path / "nothing-was-built", None)


def test_a_collection_that_only_the_ledger_holds_passes(tmp_path: Path) -> None:
    from qrelay.labels.ledger.ledger import Ledger
    from tests.labels.builders import judged_set

    data_dir = built(tmp_path, "manuals")
    ledger = Ledger.open(data_dir / "ledger.sqlite")
    ledger.commit([judged_set("q1")])
    ledger.close()
    check_collection("docs", data_dir, None)
    with pytest.raises(UnknownCollection, match="Did you mean 'docs'"):
        check_collection("dosc", data_dir, None)


def test_an_index_folder_of_the_settings_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_RETRIEVER__INDEX_DIR", str(built(tmp_path, "docs") / "index"))
    check_collection("docs", tmp_path / "state", None)
    with pytest.raises(UnknownCollection, match="There are: docs"):
        check_collection("faq", tmp_path / "state", None)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a ledger of collection docs, a folder in BEIR's layout, and pairs that people graded."""
    from qrelay.judging.cache import open_cache
    from qrelay.labels.ledger.ledger import Ledger
    from tests.labels.builders import judged_set

    folder = tmp_path_factory.mktemp("installation")
    ledger = Ledger.open(folder / "ledger.sqlite")
    ledger.commit([judged_set("q1"), judged_set("q2")])
    ledger.close()
    open_cache(str(folder / "cache.sqlite")).close()
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    numbers = range(1, 13)
    texts = [{"_id": f"d{n}", "title": f"thing {n}", "text": f"word{n} is a thing of kind {n % 3}"} for n in numbers]
    asked = [{"_id": f"q{n}", "text": f"word{n} thing"} for n in numbers]
    grades = [f"q{n}\td{d}\t{int(d == n)}" for n in numbers for d in (n, n % 12 + 1)]
    for name, rows in (("corpus", texts), ("queries", asked)):
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (beir / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *grades]) + "\n")
    (folder / "other.run").write_text("".join(f"q{n} Q0 d{n} 1 1.0 other\n" for n in numbers))
    (folder / "graded.tsv").write_text("query_id\tpassage_id\tgrade\nq1\td0#0\t2\n")
    return folder


BEIR = "--corpus {0}/beir --queries {0}/beir/queries.jsonl --qrels {0}/beir/qrels/test.tsv"
RUN: dict[str, str] = {
    "relabel": "relabel {}/triplets.csv",
    "audit": "audit --collection docs",
    "audit sample": "audit sample --collection docs --n 1 --out {0}/sample.tsv",
    "config": "config",
    "eval": f"eval --model bm25 {BEIR}",
    "eval agreement": "eval agreement --qrels-a {0}/beir/qrels/test.tsv --qrels-b {0}/beir/qrels/test.tsv "
    "--model bm25 --run {0}/other.run --corpus {0}/beir",
    "eval answers": "eval answers --model bm25 --corpus {0}/beir --reader fake --k 0 --answers {0}/answers.jsonl",
    "eval intervals": "eval intervals --qrels {0}/beir/qrels/test.tsv --people {0}/beir/qrels/test.tsv "
    "--run {0}/other.run",
    "export": "export qrels --collection docs --out {0}/docs.qrels",
    "index build": "index build {0}/beir/corpus.jsonl --collection docs --out {0}/index --embedder hash",
    "index info": "index info docs --out {0}/index",
    "index list": "index list {0}/index",
    "index reembed": "index reembed --model hash --out {0}/index",
    "index search": "index search {0}/index/docs word1",
    "index update": "index update --collection docs --out {0}/index --embedder hash --remove-id nobody",
    "index verify": "index verify {0}/index",
    "judge cache prune": "judge cache prune --older-than 1d",
    "judge cache stats": "judge cache stats",
    "judge lint": "judge lint binary",
    "judge preview": "judge preview --n 2 --sets {0}/pairs.jsonl",
    "judge try": "judge try --query word --passage text --backend fake",
    "label import": "label import {0}/graded.tsv --collection docs --author ana",
    "label list": "label list --collection docs",
    "label queue": "label queue --collection docs --by disagreement",
    "label set": "label set --collection docs --query-id q1 --passage-id d0#0 --grade 1 --author ana",
    "label withdraw": "label withdraw --collection docs --query-id q1 --passage-id d0#0 --author ana",
    "ledger backup": "ledger backup --out {0}/copy.sqlite",
    "ledger compact": "ledger compact",
    "ledger info": "ledger info",
    "ledger migrate": "ledger migrate",
    "ledger prune": "ledger prune --unused-passages",
    "mine": "mine --collection docs",
    "models gate": "models gate --show-rules",
    "models history": "models history",
    "models list": "models list",
    "models prune": "models prune --keep 1 --by ana",
    "models tainted": "models tainted",
    "models verify": "models verify",
    "models versions": "models versions",
    "push": "push --repo me/docs --collection docs --dry-run --unmeasured",
    "queries generate": "queries generate --corpus {0}/beir --n 1 --out {0}/made.jsonl --backend fake "
    "--no-round-trip --min-words 1",
    "train": "train --list",
    "training status": "training status",
}
"""Commands that a small installation without services can run, with their arguments."""
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys((f"bench {name}" for name in ("retriever", "reranker", "judge", "sink", "pipeline", "compare",
                                                  "sizing")), "tests/bench"),
    **dict.fromkeys(("dlq list", "dlq replay", "feed", "top", "reconcile"), "tests/pipeline"),
    **dict.fromkeys(("models lineage", "models promote", "models rollback", "models show", "models verify-version"),
                    "tests/models/registry"),
    **dict.fromkeys(("models push", "models retract-judge", "models restore-judge"), "tests/models/registry"),
    **dict.fromkeys((f"judge {name}" for name in ("check", "compare", "eval", "prefer", "qualify", "rejudge")),
                    "tests/judging"),
    **dict.fromkeys(("judge batches", "judge collect", "judge submit"), "tests/judging/batch"),
    **dict.fromkeys((f"judge nuggets {name}" for name in ("assign", "create", "score")), "tests/judging/nuggets"),
    **dict.fromkeys(("models prepare", "models pull", "models tune"), "tests/models"),
    "forget": "tests/forgetting",
    "index load": "tests/index/milvus",
    "ledger audit-log": "tests/labels",
    **dict.fromkeys(("tokens add", "tokens list", "tokens revoke"), "tests/security"),
    "rounds": "tests/training",
    **dict.fromkeys(("publish", "training abandon", "training run"), "tests/jobs"),
}  # fmt: skip
"""Those that need services, versions or a network: where their objects are read."""


def test_every_command_with_json_is_run_here_or_named_with_its_tests() -> None:
    assert {" ".join(path) for path in WITH_JSON} == {*RUN, *ELSEWHERE}


@pytest.mark.parametrize("name", RUN)
def test_json_is_one_object_on_standard_output_and_nothing_else(name: str, installation: Path) -> None:
    (installation / "pairs.jsonl").write_text('{"query": "word1", "text": "a word"}\n{"query": "two", "text": "b"}\n')
    (installation / "triplets.csv").write_text("query,positive,negative\nword1,word1 here,another\n")
    (installation / "answers.jsonl").write_text('{"query_id": "q1", "answers": ["x"]}\n')
    judge = {"BACKEND": "fake", "MODEL": "fake", "CACHE": str(installation / "cache.sqlite")}
    environ: dict[str, str | None] = {key: None for key in os.environ if key.startswith("QRELAY_")}
    environ |= {f"QRELAY_JUDGE__{key}": value for key, value in judge.items()}
    environ |= {"QRELAY_DATA_DIR": str(installation), "QRELAY_MODELS_DIR": str(installation / "models")}
    if name.startswith("index ") and name != "index build":
        run(RUN["index build"], installation, environ)
    if name == "label withdraw":
        run(RUN["label set"], installation, environ)
    done = run(RUN[name], installation, environ)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    assert done.stdout.count("\n") == 1


def run(line: str, installation: Path, environ: dict[str, str | None]) -> Any:
    done = CliRunner().invoke(qrelay, [*shlex.split(line.format(installation)), "--json"], env=environ,
                              catch_exceptions=False)  # fmt: skip
    assert done.exit_code in (exitcodes.EXIT_OK, exitcodes.EXIT_PARTIAL), done.output
    return done


def test_an_error_leaves_standard_output_empty_with_json_too(tmp_path: Path) -> None:
    asked = ["mine", "--collection", "docs", "--json", "--data-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "qrelay.cli.main", *asked], capture_output=True, text=True,
                          check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == exitcodes.EXIT_SETUP
    assert done.stdout == "" and done.stderr.startswith("error: ") and "Traceback" not in done.stderr

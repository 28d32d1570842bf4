"""Running the judge's commands on pairs that the double has an opinion of."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from qrelay.cli.judge.group import judge as judge_command
from qrelay.formats.annotated_pairs import GradedPair

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron")
JUDGES = {"wide": "graded", "likely": "query_likelihood"}


def overlapping(query: int, passage: int, grade: int | None) -> GradedPair:
    """Passage n of a query holds n of its 8 words, so that the double finds later ones more relevant."""
    words = [f"{word}{query}" for word in WORDS]
    text = " ".join([*words[:passage], *(f"other{query}{n}" for n in range(8 - passage))])
    return GradedPair(f"q{query:02}", f"d{passage}", grade, " ".join(words), "", text)


def run(folder: Path, *arguments: object, judges: dict[str, str] | None = None) -> Result:
    """The command on two judges, the double being their engine; the cache stays in the folder."""
    members = "".join(f"    {name}: {{strategy: {how}}}\n" for name, how in (judges or JUDGES).items())
    (folder / "qrelay.yaml").write_text(f"judge:\n  backend: fake\n  data_dir: {folder}\n  judges:\n{members}")
    command, *rest = map(str, arguments)
    configured = [] if command == "slice" else ["--config", str(folder / "qrelay.yaml")]
    return CliRunner().invoke(judge_command, [command, *rest, *configured], catch_exceptions=False)

"""`qrelay demo`: how-to questions over the Python documentation, labelled with real models on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from qrelay.cli.group import example


@click.command(epilog=example("qrelay demo --out demo-output"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-output"),
              show_default=True, help="Folder of what is made; that of an earlier demo is replaced.")  # fmt: skip
@click.option("--queries", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Questions to ask.  [default: the demo's forty]")  # fmt: skip
@click.option("--further", is_flag=True, help="Ask twenty further questions too.")
def demo(out: Path, queries: Path | None, further: bool) -> None:
    """Label how-to questions over the Python documentation.

    Models are fetched first. It takes 3 to 6 minutes on two idle cores, and says in the end how much of what was
    found is right, by the demo's answer key.
    """
    from qrelay.demo.answers import HERE
    from qrelay.demo.run import run

    run(out.resolve(), queries or HERE / "queries.jsonl", further)

"""The command line's own frame: a library that this installation does without is named, and what to do."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from qrelay.cli.main import Commands
from qrelay.errors import ConfigError
from scripts.requirements import installs
from tests.deploy.docker.extras import importable

PROGRAM = """
import sys
sys.modules[{absent!r}] = None  # as if it were not installed
sys.argv = ["qrelay", *{arguments!r}]
from qrelay.cli.main import main
main()
"""


HELP = """
import sys
import click
refused = set(sys.argv[1:])

class Refusing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"no module named {name}", name=name)

sys.meta_path.insert(0, Refusing)
from qrelay.cli.main import qrelay

def show(command, *path):
    print(" ".join(path))
    context = click.Context(command, info_name="qrelay")
    command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            show(command.get_command(context, name), *path, name)

show(qrelay)
"""


def run_without(absent: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(absent=absent, arguments=arguments)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_a_command_whose_library_is_absent_says_which_and_how_to_get_it() -> None:
    done = run_without("sqlalchemy", "ledger", "info")
    assert done.returncode == 78
    assert "needs the package sqlalchemy" in done.stderr and "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_commands_help_needs_no_extra() -> None:
    absent = importable(installs(["local"])) - importable(installs([]))
    assert {"orjson", "sqlalchemy", "numpy", "torch"} <= absent
    done = subprocess.run([sys.executable, "-c", HELP, *absent], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"relabel", "label import", "judge eval"} <= set(done.stdout.splitlines())


def test_a_missing_part_of_qrelay_itself_is_a_bug_and_shows_its_traceback() -> None:
    done = run_without("qrelay.labels.ledger.ledger", "ledger", "info")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_library_of_reports_alone_comes_with_the_extra_measure() -> None:
    @click.command()
    def judge() -> None:
        raise ModuleNotFoundError("no module", name="sklearn.isotonic")

    commands = Commands("qrelay", commands={"judge": judge})
    with pytest.raises(ConfigError, match=r"needs the package sklearn, .*pip install 'qrelay\[measure\]'"):
        commands.main(["judge"], standalone_mode=False)

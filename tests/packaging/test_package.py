"""What is built of a checkout: one wheel and one source archive, whole, and the same bytes again."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

from qrelay import __version__
from scripts import package
from scripts.requirements import extras, named

SECONDS = 1_700_000_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return package.build(tmp_path_factory.mktemp("first"), SECONDS)


@pytest.fixture
def another_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def metadata(wheel: Path) -> Message:
    return message_from_bytes(zipfile.ZipFile(wheel).read(f"qrelay-{__version__}.dist-info/METADATA"))


def test_the_wheel_holds_the_package_and_its_data_and_no_other_top_level_name(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    assert package.problems(wheel) == []
    names = zipfile.ZipFile(wheel).namelist()
    assert {"qrelay/demo/answers.yaml", "qrelay/services/sink/service.py", "qrelay/py.typed"} <= set(names)
    assert zipfile.ZipFile(wheel).read(f"qrelay-{__version__}.dist-info/top_level.txt") == b"qrelay\n"


def test_what_is_lacking_or_does_not_belong_there_is_named(built: tuple[Path, Path], tmp_path: Path) -> None:
    whole = zipfile.ZipFile(built[0])
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as other:
        for name in whole.namelist():
            if name != "qrelay/demo/queries.jsonl":
                other.writestr(name, whole.read(name))
        other.writestr("services/__init__.py", b"")
    one, two = package.problems(tmp_path / "other.whl")
    assert one.startswith("services is a top-level name")
    assert two.startswith("qrelay/demo/queries.jsonl is not in the wheel")


def test_the_same_files_give_the_same_bytes(built: tuple[Path, Path], another_umask: None, tmp_path: Path) -> None:
    again = package.build(tmp_path, SECONDS)
    assert [each.read_bytes() for each in again] == [each.read_bytes() for each in built]


def test_times_are_the_commits_or_those_that_are_said(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(built[1]) as archive:
        assert {each.mtime for each in archive.getmembers()} == {SECONDS}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert package.epoch() == 7
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert package.epoch() == int(package.git("log", "-1", "--format=%ct"))


def test_the_source_archive_has_what_builds_the_wheel_and_the_changelog_and_no_tests(
    built: tuple[Path, Path],
) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= names
    assert {"qrelay/services/judge/service.py", "qrelay/demo/read.tsv"} <= names
    assert not {name for name in names if name.startswith(("tests", "services", "benchmarks"))}


def test_the_version_stands_in_one_place(built: tuple[Path, Path]) -> None:
    assert metadata(built[0])["Version"] == __version__
    assert "version" not in yaml.safe_load((package.ROOT / "CITATION.cff").read_text("utf8"))
    assert f'"{__version__}"' not in (package.ROOT / "pyproject.toml").read_text("utf8")


def test_the_packages_page_has_no_link_that_needs_a_checkout(built: tuple[Path, Path]) -> None:
    shown = str(metadata(built[0]).get_payload())
    assert "## Where to go next" in shown
    assert not re.search(r"\]\((?!https?://)", shown)


@pytest.mark.parametrize(
    ("address", "shown"),
    [("", "See docs/a.md, how (docs/a.md#b) and [there](https://example.org/x)."),
     ("https://example.org/q", f"See [docs/a.md](https://example.org/q/blob/v{__version__}/docs/a.md), "
      f"[how](https://example.org/q/blob/v{__version__}/docs/a.md#b) and [there](https://example.org/x).")],
)  # fmt: skip
def test_links_lead_to_the_repository_where_it_has_an_address_and_else_name_their_file(
    address: str, shown: str
) -> None:
    text = "See [docs/a.md](docs/a.md), [how](docs/a.md#b) and [there](https://example.org/x)."
    assert package.page(text, address) == shown


def test_the_light_extra_names_nothing_heavy(built: tuple[Path, Path]) -> None:
    assert set(metadata(built[0]).get_all("Provides-Extra", [])) == extras().keys()
    assert not {"torch", "numpy", "scipy", "pyarrow", "transformers"} & named(["light"])
    assert named(["light"]) < named(["ledger"]) < named(["sink"])

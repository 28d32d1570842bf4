"""The rehearsal of a release: what it refuses, and what it cuts out of the changelog."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qrelay import __version__
from scripts import release
from scripts.package import ROOT

TAG = f"v{__version__}"
CHANGES = f"""# Changelog

## Unreleased
- Later.

## {__version__} (2030-01-31)

### Added
- Everything.

## 0.0.1 (2029-01-31)
- Nothing.
"""


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=ana", "-c", "user.email=ana@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the scripts, the version, a changelog, and one commit that has the version's tag."""
    for name in ("scripts/release.py", "scripts/package.py", "qrelay/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, TAG)
    return tmp_path


def commit(checkout: Path, *tags: str) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "all")
    for tag in tags:
        git(checkout, "tag", "--force", tag)


def refused(checkout: Path, tag: str = TAG) -> list[str]:
    """What is said against it."""
    code = f"from scripts.release import refusals; print(*refusals({tag!r}), sep='\\0', end='')"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.split("\0") if done.stdout else []


def test_a_clean_tree_at_the_versions_tag_is_not_refused(checkout: Path) -> None:
    assert refused(checkout) == []


def test_a_tree_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text(CHANGES + "\n")
    (checkout / "new.txt").touch()
    (why,) = refused(checkout)
    assert "the tree has changes" in why and "CHANGELOG.md" in why and "new.txt" in why


def test_a_tag_of_another_version_or_commit_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v9.9.9")
    (why,) = refused(checkout, "v9.9.9")
    assert f"not the tag of version {__version__}" in why
    commit(checkout)
    (why,) = refused(checkout)
    assert f"{TAG} is no tag of this commit" in why


@pytest.mark.parametrize("section", ["", f"## {__version__}\n- No date.\n", f"## {__version__} (2030-01-31)\n\n"])
def test_a_changelog_without_a_dated_section_with_text_is_refused(checkout: Path, section: str) -> None:
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n{section}\n## 0.0.1 (2029-01-31)\n- Nothing.\n")
    commit(checkout, TAG)
    (why,) = refused(checkout)
    assert f"no section '## {__version__} (" in why


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_made(checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("# Changelog\n")
    command = [sys.executable, "-m", "scripts.release", "v7"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for why in ("the tree has changes", "v7 is no tag", f"that is {TAG}", "no section"):
        assert why in done.stderr
    assert not (checkout / "build").exists()


def test_the_notes_are_the_versions_section_alone(checkout: Path) -> None:
    code = f"from scripts.release import notes; print(notes({__version__!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout == "### Added\n- Everything.\n"


def test_this_checkouts_changelog_is_ready_for_its_version() -> None:
    assert "### Added" in release.notes(__version__)


def test_what_cannot_be_taken_back_is_published_last(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "qrelay.whl").touch()
    images, push, upload = release.publishing(TAG, tmp_path)
    assert images[-1] == "--build" and push == ["git", "push", "origin", TAG]
    assert upload[1:] == ["upload", str(tmp_path / "dist" / "qrelay.whl")]

"""`qrelay push`, as a process of its own, against a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.errors import InputError
from qrelay.labels.ledger.ledger import Ledger
from qrelay.models.pushing import check_repo, leaving
from tests.labels.builders import judged_set
from tests.labels.hub import TOKEN, Hub, running_hub
from tests.labels.test_qualification import report_file, use

REPO = "team/how-to"
SPLITS = ("--split", "train=0.5,test=0.5", "--group-by", "query")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([judged_set(f"q{n}", prefix=f"d{n}-") for n in range(8)])
    ledger.close()
    return tmp_path


def push(hub: Hub, data_dir: Path, *arguments: str, token: str = TOKEN) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of one push."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "QRELAY_"))}
    # Xet is a protocol and a service of its own; without it huggingface_hub speaks git-LFS, as our hub does.
    extra = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(data_dir / "hf"), "HF_HUB_DISABLE_XET": "1"}
    extra |= {"HF_TOKEN": token} if token else {}
    command = [
        sys.executable,
        "-m",
        "qrelay.cli.main",
        "push",
        "--repo",
        REPO,
        "--collection",
        "docs",
        "--unmeasured",
    ]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir), *arguments],
        env={**kept, **extra, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_push_makes_a_private_repository_that_datasets_can_read(hub: Hub, data_dir: Path, tmp_path: Path) -> None:
    import datasets

    code, out, err = push(hub, data_dir, *SPLITS, "--json")
    assert code == 0, err
    found, repository = json.loads(out), hub.repositories[REPO]
    assert repository.private
    assert {each["path"]: each["sha256"] for each in found["files"]} == {
        path: hashlib.sha256(data).hexdigest() for path, data in repository.files.items()
    }
    for path, data in repository.files.items():
        target = tmp_path / "clone" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    loaded = datasets.load_dataset(str(tmp_path / "clone"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: each["rows"] for name, each in found["manifest"]["splits"].items()
    }
    assert f'load_dataset("{REPO}")' in repository.files["README.md"].decode()


def test_a_dry_run_lists_what_would_leave_and_contacts_nobody(hub: Hub, data_dir: Path) -> None:
    code, out, _ = push(hub, data_dir, "--dry-run", token="")
    assert code == 0
    assert hub.requests == []
    for words in ("private dataset team/how-to", "README.md", "manifest.json", "8 rows of 8 queries", "unknown"):
        assert words in out
    (line,) = [each for each in out.splitlines() if each.endswith("data/train-00000-of-00001.parquet")]
    assert len(line.split()[0]) == 64


def test_a_push_that_failed_goes_on_without_sending_files_again(hub: Hub, data_dir: Path) -> None:
    hub.fail("/commit/", 500)
    code, _, err = push(hub, data_dir, *SPLITS)
    assert (code, "run it again" in err) == (1, True)
    assert (hub.asked("PUT", "/lfs/"), hub.repositories[REPO].files) == (2, {})
    assert push(hub, data_dir, *SPLITS)[0] == 0
    assert hub.asked("PUT", "/lfs/") == 2
    assert len(hub.repositories[REPO].files) == 4
    assert push(hub, data_dir, *SPLITS)[0] == 0
    assert (hub.asked("PUT", "/lfs/"), hub.repositories[REPO].commits) == (2, 1)


def test_an_upload_that_fails_once_is_tried_again_by_itself(hub: Hub, data_dir: Path) -> None:
    hub.fail("PUT /lfs/", 500)
    assert push(hub, data_dir)[0] == 0
    assert hub.asked("PUT", "/lfs/") == 2


def test_a_split_that_is_no_more_is_deleted_from_the_repository(hub: Hub, data_dir: Path) -> None:
    assert push(hub, data_dir, *SPLITS)[0] == 0
    assert push(hub, data_dir)[0] == 0
    assert [path for path in hub.repositories[REPO].files if path.startswith("data/")] == [
        "data/train-00000-of-00001.parquet"
    ]


def test_a_token_that_is_missing_or_refused_is_said_without_showing_it(hub: Hub, data_dir: Path) -> None:
    code, _, err = push(hub, data_dir, token="")
    assert (code, "hf auth login" in err, hub.requests) == (78, True, [])
    code, _, err = push(hub, data_dir, token="hf_somebodyElse")
    assert (code, "refuses this token" in err, "somebodyElse" in err) == (78, True, False)
    assert hub.repositories == {}


def test_a_public_repository_gets_nothing_unless_that_is_asked_for(hub: Hub, data_dir: Path) -> None:
    assert push(hub, data_dir, "--public", "--format", "qrels")[0] == 0
    assert not hub.repositories[REPO].private
    before = dict(hub.repositories[REPO].files)
    assert sorted(before) == ["docs.qrels", "docs.qrels.manifest.json"]
    code, _, err = push(hub, data_dir)
    assert (code, "push with --public" in err) == (1, True)
    assert hub.repositories[REPO].files == before


def test_training_data_of_an_unfit_judge_does_not_leave(hub: Hub, data_dir: Path) -> None:
    report = report_file(data_dir, negatives=use("not_qualified", "too many false negatives", {"npv": 0.7}))
    config = data_dir / "qrelay.yaml"
    config.write_text(f"sink: {{qualification: {report}}}")
    code, _, err = push(hub, data_dir, "--config", str(config))
    assert (code, "too many false negatives" in err, hub.requests) == (1, True, [])
    assert push(hub, data_dir, "--config", str(config), "--unqualified")[0] == 0
    assert b"**not_qualified** (exported all the same)" in hub.repositories[REPO].files["README.md"]


@pytest.mark.parametrize("repo", ["no-owner", "two//slashes", "a/b/c", "team/.."])
def test_what_names_no_repository_is_refused(repo: str) -> None:
    with pytest.raises(InputError, match="--repo"):
        check_repo(repo)


def test_what_leaves_is_every_file_with_its_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"abc")
    (file,) = leaving(tmp_path)
    assert (file.path, file.size, file.sha256) == ("data/a", 3, hashlib.sha256(b"abc").hexdigest())

"""Tokens of people: shown once, kept as hashes, expired, revoked, and read again when the file changes."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.config import AccessSettings, Role
from qrelay.errors import ConfigError, InputError, Unauthenticated
from qrelay.security.access import FILE_VARIABLE, VARIABLE, Gate, bearer_of, own_token
from qrelay.security.tokens import PREFIX, Tokens, add, read, revoke


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access" / "tokens.yaml"


def test_the_file_holds_no_token_and_the_token_finds_its_holder(path: Path) -> None:
    token, _ = add(path, "ana", [Role.LABELLER, Role.TRAINER], 1)
    assert token.startswith(PREFIX) and len(token) > 40
    assert token not in path.read_text() and token.removeprefix(PREFIX) not in path.read_text()
    found = Tokens(path).holder(token)
    assert (found.name, found.roles) == ("ana", (Role.LABELLER, Role.TRAINER))


@pytest.mark.parametrize("wrong", ["", "x", PREFIX, PREFIX + "a" * 43, "qrelay_\ud800", "\0"])
def test_a_token_that_was_never_made_is_nobodys(path: Path, wrong: str) -> None:
    add(path, "ana", [Role.READER], 1)
    with pytest.raises(Unauthenticated, match="nobody's"):
        Tokens(path).holder(wrong)


def test_a_token_that_lacks_a_character_is_nobodys(path: Path) -> None:
    token, _ = add(path, "ana", [Role.READER], 1)
    for wrong in (token[:-1], token + "a", token.swapcase()):
        with pytest.raises(Unauthenticated, match="nobody's"):
            Tokens(path).holder(wrong)


def test_an_expired_token_is_refused_by_name(path: Path) -> None:
    token, expires = add(path, "ana", [Role.READER], 1)
    assert Tokens(path, now=lambda: expires - timedelta(seconds=1)).holder(token).name == "ana"
    with pytest.raises(Unauthenticated, match="the token of ana expired"):
        Tokens(path, now=lambda: expires).holder(token)


def test_what_is_added_or_revoked_holds_for_a_server_that_runs(path: Path) -> None:
    first, _ = add(path, "ana", [Role.READER], 1)
    tokens = Tokens(path)
    second, _ = add(path, "ana", [Role.READER], 1)
    other, _ = add(path, "ben", [Role.READER], 1)
    assert [tokens.holder(each).name for each in (first, second, other)] == ["ana", "ana", "ben"]
    assert revoke(path, "ana") == 2
    for each in (first, second):
        with pytest.raises(Unauthenticated):
            tokens.holder(each)
    assert tokens.holder(other).name == "ben"
    with pytest.raises(InputError, match="no token of 'ana'"):
        revoke(path, "ana")


@pytest.mark.parametrize("broken", [None, b"tokens: [", b"tokens: {a: 1}", b"\xff", b"- 1"])
def test_a_file_that_is_gone_or_broken_lets_nobody_in(path: Path, broken: bytes | None) -> None:
    token, _ = add(path, "ana", [Role.READER], 1)
    tokens = Tokens(path)
    path.unlink() if broken is None else path.write_bytes(broken)
    with pytest.raises(Unauthenticated):
        tokens.holder(token)
    with pytest.raises(ConfigError, match=r"tokens\.yaml"):
        Gate(AccessSettings(tokens=path))


def test_a_time_without_a_zone_and_a_role_that_is_none_are_refused(path: Path) -> None:
    path.parent.mkdir()
    entry = "tokens:\n- {name: ana, sha256: %s, roles: [%s], expires: %s}\n"
    for role, expires in (("reader", "2027-01-01T00:00:00"), ("root", "2027-01-01T00:00:00Z")):
        path.write_text(entry % ("a" * 64, role, expires))
        with pytest.raises(ConfigError, match="is no file of tokens"):
            read(path)


def test_the_commands_make_list_and_revoke(path: Path) -> None:
    def run(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(qrelay, ["tokens", *words, "--file", str(path), "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: dict[str, object] = json.loads(done.stdout)
        return found

    made = run("add", "ana", "--role", "labeller", "--role", "operator", "--days", "2")
    assert Tokens(path).holder(str(made["token"])).name == "ana"
    assert datetime.fromisoformat(str(made["expires"])) < datetime.now(UTC) + timedelta(days=2)
    listed = run("list")
    assert "sha256" not in str(listed) and str(made["token"]) not in str(listed)
    assert run("revoke", "ana") == {"name": "ana", "revoked": 1}
    assert run("list") == {"tokens": []}
    assert stat.S_IMODE(path.stat().st_mode) & 0o022 == 0


def test_a_token_for_people_is_printed_alone_on_standard_output(path: Path) -> None:
    done = CliRunner().invoke(qrelay, ["tokens", "add", "ana", "--role", "reader", "--file", str(path)])
    assert Tokens(path).holder(done.stdout.strip()).name == "ana"
    assert done.stdout.strip() not in done.stderr


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("abc", ""), ("", ""), ("Bearer", "")],
)
def test_a_bearer_is_read_from_its_header(header: str, token: str) -> None:
    assert bearer_of(header) == token


def test_a_process_takes_its_token_from_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    assert own_token() == ""
    path.parent.mkdir()
    path.write_text("from-a-file\n")
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    assert own_token() == "from-a-file"
    monkeypatch.setenv(VARIABLE, "from-a-variable")
    assert own_token() == "from-a-variable"

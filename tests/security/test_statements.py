"""What the console says for a person to a service is of use there alone, for minutes, and cannot be made up."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import yaml

from qrelay.config import AccessSettings, Role
from qrelay.errors import Unauthenticated
from qrelay.security import statements
from qrelay.security.access import Gate
from qrelay.security.statements import PREFIX, key_of, statement
from qrelay.security.tokens import Tokens, add, read, revoke

SINK, JUDGE = "qrelay.v1.SinkService", "qrelay.v1.JudgeService"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


@pytest.fixture
def token(path: Path) -> str:
    return add(path, "ana", [Role.LABELLER], 1)[0]


def gate(path: Path, service: str = "") -> Gate:
    return Gate(AccessSettings(tokens=path), service)


async def test_a_service_takes_what_is_said_to_it_and_no_other_does(path: Path, token: str) -> None:
    said = gate(path).for_service(token, SINK)
    found = await gate(path, SINK).identify({}, said)
    assert (found.name, found.roles) == ("ana", {Role.LABELLER})
    for other in (gate(path, JUDGE), gate(path)):
        with pytest.raises(Unauthenticated, match="does not hold here"):
            await other.identify({}, said)


async def test_who_reads_the_file_of_tokens_can_say_nothing(path: Path, token: str) -> None:
    entry = read(path)[0]
    for made in (entry.sha256, entry.key):
        said = jwt.encode({"aud": SINK, "exp": time.time() + 60}, made, "HS256", {"kid": entry.key})
        with pytest.raises(Unauthenticated):
            await gate(path, SINK).identify({}, PREFIX + said)
    other = statement("qrelay_another", SINK).removeprefix(PREFIX)
    forged = ".".join([statement(token, SINK).split(".")[0], *other.split(".")[1:]])
    with pytest.raises(Unauthenticated):
        await gate(path, SINK).identify({}, forged)


@pytest.mark.parametrize("wrong", ["", "x", "a.b.c", "e30.e30.", "[" * 5000, "é"])
async def test_what_is_no_statement_is_nobodys(path: Path, token: str, wrong: str) -> None:
    with pytest.raises(Unauthenticated):
        await gate(path, SINK).identify({}, PREFIX + wrong)


async def test_an_old_statement_a_revoked_and_an_expired_token_are_refused(
    path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, opened = statement(token, SINK), gate(path, SINK)
    later = Tokens(path, now=lambda: datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(Unauthenticated, match="expired"):
        later.spoken_for(said, SINK)
    monkeypatch.setattr(statements, "_LIFE_S", -60)
    with pytest.raises(Unauthenticated, match="ExpiredSignatureError"):
        await opened.identify({}, statement(token, SINK))
    revoke(path, "ana")
    with pytest.raises(Unauthenticated, match="was revoked"):
        await opened.identify({}, said)


async def test_a_token_of_a_file_without_its_key_is_passed_on_as_it_is(path: Path, token: str) -> None:
    entries = [each.model_dump(mode="json", exclude={"key"}) for each in read(path)]
    path.write_text(yaml.safe_dump({"tokens": entries}))
    assert gate(path).for_service(token, SINK) == token
    assert (await gate(path, SINK).identify({}, token)).name == "ana"
    with pytest.raises(Unauthenticated):
        await gate(path, SINK).identify({}, statement(token, SINK))
    assert key_of(token) not in path.read_text()

"""With access on, the console asks who comes: every route for every role, signing in and out, and what passes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import sqlalchemy as sa
from pydantic import ValidationError
from starlette.routing import Route

from qrelay.config import AccessSettings, Role
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.audit_log import page
from qrelay.runtime import telemetry
from qrelay.security.access import HEADER
from qrelay.security.identity import Kind, Principal, acts, who
from qrelay.security.roles import ACTIONS, OPEN
from qrelay.security.tokens import add, revoke
from qrelay.v1 import judge_pb2, judge_pb2_grpc
from qrelay.web.api.operations import OPERATIONS
from qrelay.web.app import ROUTES
from qrelay.web.mcp import TOOLS
from qrelay.web.routes import Guarded
from qrelay.web.security import SESSION_COOKIE, Action
from qrelay.web.settings import ConsoleSettings
from tests.serving import serving
from tests.web.serving import Served, console

HTML = {"accept": "text/html"}
JSON = {"content-type": "application/json"}
ASKED = [
    (method, guarded.path, guarded.action)
    for route in ROUTES
    if isinstance(route, Route) and isinstance(guarded := getattr(route.endpoint, "__self__", None), Guarded)
    for method in (route.methods or ()) - {"HEAD"}
]
SIGN_IN = ("POST", "/login", Action.OPEN)
"""Open to all, and refuses an empty token."""
NOTED = "/v1/labels"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    """A token of each role, under its name."""
    return {role.value: add(folder / "tokens.yaml", role.value, [role], 1)[0] for role in Role}


@pytest.fixture(scope="module")
def site(folder: Path, tokens: dict[str, str]) -> Iterator[Served]:
    with console(folder, access=AccessSettings(tokens=folder / "tokens.yaml")) as served:
        yield served


@pytest.fixture
def browser(site: Served) -> Iterator[Served]:
    """The console for a client with cookies of its own."""
    with httpx.Client(base_url=site.url) as http:
        yield Served(site.url, http, site.ledger, site.site, site.folder)


def status(site: Served, method: str, path: str, token: str = "") -> tuple[int, str]:
    """(HTTP status, code of the error) of a request with an empty body; a stream is left after its first line."""
    shown = {HEADER: f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=site.url) as http:
        content = b"{}" if method == "POST" else None
        with http.stream(method, path, headers={**JSON, **shown}, content=content) as answer:
            if answer.status_code not in (401, 403):
                return answer.status_code, ""
            return answer.status_code, json.loads(answer.read())["error"]["code"]


@pytest.mark.parametrize(("method", "path", "action"), [each for each in ASKED if each != SIGN_IN], ids=str)
def test_a_route_is_for_who_has_its_role(
    site: Served, tokens: dict[str, str], method: str, path: str, action: Action
) -> None:
    needed = ACTIONS[action.value]
    for name, token in tokens.items():
        found = status(site, method, path, token)
        if needed in (OPEN, Role.READER, Role(name)):
            assert found[0] not in (401, 403), name
        else:
            assert found == (403, "PERMISSION_DENIED"), name
    nobody = status(site, method, path)
    assert nobody[0] not in (401, 403) if needed is OPEN else nobody == (401, "UNAUTHENTICATED")


def test_every_operation_is_among_the_routes_and_only_these_are_open() -> None:
    assert {(each.method, each.path, each.action) for each in OPERATIONS} <= set(ASKED)
    assert {(method, path) for method, path, action in ASKED if action is Action.OPEN} == {
        ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/health")
    }  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_for_who_has_its_role(site: Served, tokens: dict[str, str], tool: str) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    accept = {"accept": "application/json, text/event-stream", **JSON}
    for name, token in tokens.items():
        answer = site.http.post("/mcp", json=asked, headers={**accept, HEADER: f"Bearer {token}"})
        denied = "takes the role" in answer.text
        assert denied is (ACTIONS[TOOLS[tool].action.value] not in (Role.READER, Role(name))), answer.text
    assert site.http.post("/mcp", json=asked, headers=accept).status_code == 401


def test_a_browser_signs_in_with_a_token_that_no_script_sees_and_out_again(
    browser: Served, tokens: dict[str, str]
) -> None:
    asked = browser.http.get("/queries?collection=docs", headers=HTML)
    assert (asked.status_code, asked.headers["www-authenticate"]) == (401, "Bearer")
    assert 'type="password"' in asked.text and 'value="/queries?collection=docs"' in asked.text
    answer = browser.post("/login", token=tokens["labeller"], back="/queries?collection=docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/queries?collection=docs")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "max-age" not in cookie
    shown = browser.http.get("/queries?collection=docs", headers=HTML)
    assert shown.status_code == 200 and "<span>labeller</span>" in shown.text and "Sign out" in shown.text
    assert tokens["labeller"] not in shown.text
    assert browser.post("/logout").headers["location"] == "/login"
    assert browser.http.get("/", headers=HTML).status_code == 401


@pytest.mark.parametrize("wrong", ["", "x", "qrelay_x", "é✓"])
def test_a_wrong_token_signs_nobody_in(browser: Served, wrong: str) -> None:
    answer = browser.post("/login", token=wrong)
    assert answer.status_code == 401
    assert SESSION_COOKIE not in answer.headers.get("set-cookie", "")
    assert 'type="password"' in answer.text


def test_a_forged_form_signs_nobody_in(browser: Served, tokens: dict[str, str]) -> None:
    fields = {"token": tokens["reader"], "csrf": "x"}
    assert browser.http.post("/login", data=fields, headers={"origin": browser.url}).status_code == 403


def test_a_revoked_token_ends_a_session_at_once(browser: Served, folder: Path) -> None:
    token, _ = add(folder / "tokens.yaml", "ben", [Role.READER], 1)
    assert browser.post("/login", token=token).status_code == 303
    assert browser.http.get("/", headers=HTML).status_code == 200
    revoke(folder / "tokens.yaml", "ben")
    assert browser.http.get("/", headers=HTML).status_code == 401


def test_a_label_is_its_persons_whatever_name_the_request_gives(site: Served, tokens: dict[str, str]) -> None:
    label = {"collection": "docs", "query_id": "q1", "passage_id": "d0#0", "grade": 2, "scale": "0-3", "author": "oz"}
    shown = {HEADER: f"Bearer {tokens['labeller']}", "x-qrelay-person": "oz"}
    assert site.http.post(NOTED, json=label, headers=shown).status_code == 200
    with site.ledger.snapshot() as snapshot:
        assert set(snapshot.connection.execute(sa.select(schema.overrides.c.author)).scalars()) == {"labeller"}
        (act,) = page(snapshot.connection).acts
    assert (act.who, act.kind, act.act, act.collection) == ("labeller", "person", "override", "docs")


def test_a_denial_is_logged_with_who_and_what_and_without_the_token(
    site: Served, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    status(site, "POST", NOTED, tokens["reader"])
    status(site, "POST", NOTED, tokens["reader"] + "x")
    told = [vars(record) for record in caplog.records if record.message == "denied"]
    assert [(each["who"], each["what"]) for each in told] == [("person/reader", "label"), ("nobody", "label")]
    lines = [telemetry.JsonFormatter("console").format(record) for record in caplog.records]
    assert tokens["reader"] not in json.dumps(lines)


class Shown(judge_pb2_grpc.JudgeServiceServicer):
    """Keeps who asked, and what showed it."""

    asked: tuple[str, str] = ("", "")

    async def Judge(self, request: Any, context: Any) -> Any:
        shown = next((value for key, value in context.invocation_metadata() if key == HEADER), "")
        self.asked = (str(who()), shown.removeprefix("Bearer "))
        return judge_pb2.JudgeResponse()


def test_a_service_hears_who_asks_and_gets_nothing_that_the_console_or_another_service_would_take(
    folder: Path, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_TOKEN", "of-this-process")
    access, servicer = AccessSettings(tokens=folder / "tokens.yaml"), Shown()
    add_judge = partial(judge_pb2_grpc.add_JudgeServiceServicer_to_server, servicer)
    with serving("qrelay.v1.JudgeService", add_judge, access=access) as address:
        with console(folder / "beside", access=access, judge=address) as site:
            asked = {"query": "how?", "candidates": ["so"], "collection": "docs"}
            site.http.post("/v1/judge", json=asked, headers={HEADER: f"Bearer {tokens['labeller']}"})
            person, shown = servicer.asked
            assert person == "person/labeller"
            assert shown.startswith("qrelay-for_") and tokens["labeller"] not in shown
            assert site.http.get("/", headers={HEADER: f"Bearer {shown}"}).status_code == 401
    with serving("qrelay.v1.SinkService", partial(judge_pb2_grpc.add_JudgeServiceServicer_to_server, servicer),
                 access=access) as other:  # fmt: skip
        with grpc.insecure_channel(other) as opened, pytest.raises(grpc.RpcError) as refused:
            judge_pb2_grpc.JudgeServiceStub(opened).Judge(
                judge_pb2.JudgeRequest(), metadata=((HEADER, f"Bearer {shown}"),)
            )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_nobody_is_shown_the_processs_own_token(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_TOKEN", "of-this-process")
    assert HEADER not in dict(site.site._told("judge"))
    with acts(Principal("ana", Kind.PERSON, bearer="an issuer's")):
        assert dict(site.site._told("judge"))[HEADER] == "Bearer an issuer's", (
            "whose audience is the issuer's to bind"
        )


def test_nobody_signs_in_where_nobody_is_asked(tmp_path: Path) -> None:
    with console(tmp_path) as free:
        assert free.http.get("/", headers=HTML).status_code == 200
        assert "Sign out" not in free.http.get("/", headers=HTML).text
        assert free.post("/login", token="x").status_code == 400


def test_other_machines_may_come_where_people_are_asked_and_by_a_name_that_is_said(tmp_path: Path) -> None:
    add(tmp_path / "tokens.yaml", "ana", [Role.READER], 1)
    access = AccessSettings(tokens=tmp_path / "tokens.yaml")
    assert ConsoleSettings(bind="0.0.0.0:7405", access=access, insecure=True).bind
    with pytest.raises(ValidationError, match="plain text"):
        ConsoleSettings(bind="0.0.0.0:7405", access=access)
    with console(tmp_path, access=access, hosts=("labels.example",)) as served:
        for host, found in (("labels.example", 200), ("labels.example:443", 200), ("evil.example", 403)):
            assert served.http.get("/health", headers={"host": host}).status_code == found

"""What a type checker tells users: the client's overloads and the generated code, under `mypy --strict`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USER = """
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_type

import grpc
import grpc.aio

from qrelay import AsyncClient, Client
from qrelay.client import AsyncResults, Ended, Exported, Results
from qrelay.errors import QrelayError
from qrelay.feed.feeder import FeedReport
from qrelay.types import CandidateSet, JudgedSet, Query
from qrelay.v1 import judge_pb2, judge_pb2_grpc


def blocking(client: Client, query: Query, found: CandidateSet, judged: JudgedSet) -> None:
    assert_type(client.retrieve("a text"), CandidateSet)
    assert_type(client.retrieve(query), CandidateSet)
    assert_type(client.retrieve({"query_id": "1", "text": "a text"}), CandidateSet)
    assert_type(client.retrieve(["a text", query]), Results[CandidateSet])
    assert_type(client.retrieve(["a"], on_error="return"), Results[CandidateSet | QrelayError])
    assert_type(client.judge(client.rerank(client.retrieve(["a"], on_error="return"))), Results[JudgedSet])
    assert_type(client.judge(found), JudgedSet)
    assert_type(client.ingest([judged]), Results[int])
    assert_type(client.ingest(judged, rejudgment=True), int)
    assert_type(client.feed(["a text"]), FeedReport)
    assert_type(client.wait(client.feed(iter([query]))), Ended)
    assert_type(client.labels("grade=2"), Results[JudgedSet])
    assert_type(client.export("qrels", "file"), Exported)
    assert_type(client.export("qrels"), Results[bytes])
    with Client.local({"a": "text"}, settings={"judge": {"backend": "fake"}}) as own:
        assert_type(own, Client)


async def asynchronous(client: AsyncClient, sets: AsyncResults[CandidateSet]) -> None:
    assert_type(await client.retrieve("a text"), CandidateSet)
    assert_type(client.judge(sets), AsyncResults[JudgedSet])
    async for judged in client.judge(sets, on_error="return"):
        assert_type(judged, JudgedSet | QrelayError)
    assert_type(await client.export("run", Path("file"), system="bm25"), Exported)
    async with AsyncClient.local() as own:
        assert_type(own, AsyncClient)


def generated(channel: grpc.Channel, other: grpc.aio.Channel) -> None:
    answer = judge_pb2_grpc.JudgeServiceStub(channel).Judge(judge_pb2.JudgeRequest(), timeout=1.0)
    assert_type(answer, judge_pb2.JudgeResponse)
    judge_pb2_grpc.JudgeServiceStub(other).StreamJudge()
    judge_pb2_grpc.JudgeServiceStub(channel).Judge(judge_pb2.JudgeResponse())  # expected: arg-type
    Client().export("qrel")  # expected: call-overload
    Client().judge(3)  # expected: call-overload
"""


def test_users_see_exact_types_and_mistakes_are_found(tmp_path: Path) -> None:
    file = tmp_path / "user.py"
    file.write_text(USER)
    options = [
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        f"--cache-dir={ROOT / '.mypy_cache' / 'user'}",
    ]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}  # as what is installed is found, not as the user's own code
    command = [sys.executable, "-m", "mypy", *options, str(file)]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    errors = {int(line.split(":")[1]): line for line in done.stdout.splitlines() if ": error: " in line}
    expected = {n: line.rsplit(" ", 1)[1] for n, line in enumerate(USER.splitlines(), 1) if "# expected: " in line}
    assert errors.keys() == expected.keys(), done.stdout + done.stderr
    assert all(f"[{code}]" in errors[number] for number, code in expected.items())


def test_every_generated_module_has_types_that_are_installed() -> None:
    generated = [*(ROOT / "qrelay" / "v1").glob("*_pb2*.py")]
    assert len(generated) == 14
    assert all(path.with_suffix(".pyi").exists() for path in generated)
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["qrelay"]
    assert {"py.typed", "v1/*.pyi"} <= {*packaged}

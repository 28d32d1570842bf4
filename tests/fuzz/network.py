"""What other machines answer: LLM endpoints, the Kubernetes API, /metrics."""

from __future__ import annotations

import asyncio
import io
import json
import socketserver
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from qrelay import wire
from qrelay.bench.probe import scrape
from qrelay.errors import QrelayError
from qrelay.http.bodies import as_json
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.http.ratelimits import asked_to_wait, used_up
from qrelay.index.embedding import loader
from qrelay.index.http.engine import HttpVersions, authorization, credential
from qrelay.index.http.settings import SearchSettings
from qrelay.index.settings import RetrieverSettings
from qrelay.jobs.kubernetes_launcher import KubernetesLauncher
from qrelay.jobs.launcher import TrainingJob
from qrelay.judging.engines import make_backend
from qrelay.judging.querygen.prompt import read_question
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies.answers import Json, Number
from qrelay.judging.strategies.numbered import read_numbers
from qrelay.judging.strategies.rubric import Answer
from qrelay.llm.batch.api import BatchApi
from qrelay.llm.batch.collecting import Collected, answers
from qrelay.llm.exchange import Chat, Continuation, Prompt, Reply
from qrelay.llm.replies import read_completion
from qrelay.llm.ways import WAYS, Way, read_way
from qrelay.models.embedder import load_embedder
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders
from qrelay.runtime.overview import scrape as glance
from qrelay.scales import Scale
from qrelay.settings.kubernetes import KubernetesSettings
from qrelay.types import CandidateSet, Query
from tests.fuzz.parser import Parser, constant, each
from tests.index.test_http import SAMPLES
from tests.jobs.kubernetes_api import ApiServer
from tests.judging.samples import COPYTREE, LOCK, candidate_set, make_judge

_PATIENCE_S: Final = 60.0


class _Server(socketserver.ThreadingTCPServer):
    """Answers every request of HTTP with the bytes of `reply`, whatever they are, and hangs up."""

    daemon_threads = True
    allow_reuse_address = True
    reply = b""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        length = 0
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.rfile.read(length)
        try:
            self.wfile.write(self.server.reply)
        except OSError:
            return  # the client has had enough


@cache
def _server() -> _Server:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def _http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _url() -> str:
    return f"http://127.0.0.1:{_server().server_address[1]}"


def _answering(reply: bytes) -> str:
    _server().reply = reply
    return _url()


def _backend(reply: bytes, labels: str = "top", prompts: str = "echo") -> Any:
    endpoint = {
        "url": f"{_answering(reply)}/v1",
        "concurrency": 1,
        "max_retries": 0,
        "retry_base_s": 0.001,
        "total_timeout_s": 3.0,
        "request_timeout_s": 3.0,
        "label_logprobs": labels,
        "prompt_logprobs": prompts,
    }
    return make_backend(JudgeSettings(backend="openai", model="m", endpoint=endpoint), needs=frozenset())


async def _judged(reply: bytes, *strategies: str) -> None:
    """Labels, or missing ones with their reason, that can travel."""
    for strategy in strategies:
        judge = make_judge(_backend(reply), strategy=strategy)
        (judged,) = await judge.judge([candidate_set(COPYTREE, LOCK)])
        judge.close()
        if isinstance(judged, QrelayError):
            raise judged
        wire.encode(judged)


async def _asked(reply: bytes, *ways: str) -> None:
    """By every question that a backend can be asked."""
    backend = _backend(reply, *ways)
    found = await backend.score([Prompt("system", "user", "passage", ("0", "1"), "q", "p")])
    found += await backend.generate([Chat((("user", "ask"),), 9)])
    found += await backend.loglikelihood([Continuation("Passage: a\nQuestion:", " how?", "how?", "a")])
    backend.close()
    for answer in found:
        if isinstance(answer, QrelayError):
            raise answer
        if isinstance(answer, Reply):
            read_question(answer.text)
            read_numbers(answer.text, 3)


def _labels(data: bytes, _: Path) -> None:
    asyncio.run(_judged(_http("200 OK", data), "graded", "binary", "query_likelihood", "utility"))


def _endpoint(data: bytes, _: Path) -> None:
    _run_asked(data)


def _run_asked(reply: bytes, *ways: str) -> None:
    asyncio.run(_asked(reply, *ways))


def _by_ids(data: bytes, _: Path) -> None:
    """By every way, and by what is found out."""
    reply, ways = (
        _http("200 OK", data),
        (("token_ids", "token_ids"), ("generative_scoring", "auto"), ("auto", "auto")),
    )
    each(*(lambda ways=ways: asyncio.run(_asked(reply, *ways)) for ways in ways))


def _way(data: bytes, _: Path) -> None:
    for ways in WAYS.values():
        read_way(data.decode("utf-8", "replace"), ways)


def _with_status(status: str) -> Callable[[bytes, Path], None]:
    return lambda data, folder: _endpoint(_http(status, data), folder)


def _batch_lines(data: bytes, _: Path) -> None:
    """Answers of a batch, read as replies are."""
    refused = []
    for line in answers(io.BytesIO(data), Collected(), 1 << 22, others=True):
        try:
            read_completion(as_json(line.body, None), "d")
        except (ValueError, QrelayError) as error:
            refused.append(error)
    if refused:
        raise QrelayError(str(refused[0]))


async def _batches(reply: bytes) -> None:
    url, limits = f"{_answering(reply)}/v1", Limits(request_timeout_s=3.0)
    policy = Policy(total_timeout_s=3.0, retry_base_s=0.001)
    api = BatchApi(url, api_key="", policy=policy, limits=limits, transfer_s=3.0, most_bytes=1 << 24)
    errors = []
    calls: list[Callable[[], Any]] = [
        lambda: api.retrieve("b"),
        lambda: api.find_file("f"),
        lambda: api.find_batches("n", "f"),
        lambda: api.upload("f", io.BytesIO()),
        lambda: api.create("n", "f", "/chat/completions", "24h"),
        lambda: api.cancel("b"),
        lambda: api.download("f", io.BytesIO()),
        lambda: api.delete("f"),
    ]
    for call in calls:
        try:
            await call()
        except QrelayError as error:
            errors.append(error)
    api.close()
    if errors:
        raise errors[0]


def _batch_api(data: bytes, _: Path) -> None:
    asyncio.run(_batches(_http("200 OK", data)))


def _searched(data: bytes, _: Path) -> None:
    """Candidates by every preset, or an error each."""
    settings = {"url": _answering(_http("200 OK", data)), "max_retries": 0, "retry_base_s": 0.001}
    errors = []
    for preset in SAMPLES:
        given = {**settings, "preset": preset, "total_timeout_s": 3.0, "request_timeout_s": 3.0}
        retriever = RetrieverSettings.model_validate({"engine": "http", "collections": ["docs"], "http": given})
        versions = HttpVersions(retriever, Embedders("hash", Registry(retriever.registry_folder), load_embedder))
        (found,) = versions.open("docs").search(["how"], np.zeros((1, 2), np.float32), 5)
        versions.close()
        if isinstance(found, QrelayError):
            errors.append(found)
        else:
            wire.encode(CandidateSet(Query("q", "how", "docs"), found, "v"))
    if len(errors) == len(SAMPLES):
        raise errors[0]


def _credential(data: bytes, folder: Path) -> None:
    (folder / "key").write_bytes(data)
    settings = SearchSettings(auth="basic", api_key_file=folder / "key")
    httpx.Headers(authorization(settings, credential(settings)))


def _vectors(reply: bytes) -> None:
    """Vectors of two texts, of either API, that an index can hold."""
    for api in ("openai", "tei"):
        asked = {
            "api": api, "url": f"{_answering(reply)}/v1", "model": "m", "dimensions": 2, "concurrency": 1,
            "max_retries": 0, "total_timeout_s": 3.0, "request_timeout_s": 3.0,
        }  # fmt: skip
        settings = RetrieverSettings(embedder="endpoint", embedder_endpoint=asked)
        found = loader(settings)("endpoint").encode(["a", "b"], "document")
        if found.shape != (2, 2) or not np.isfinite(found).all():
            raise ValueError(f"vectors of shape {found.shape}")


def _embeddings(data: bytes, _: Path) -> None:
    each(lambda: _vectors(_http("200 OK", data)), lambda: _vectors(_http("413 Content Too Large", data)))


def _headers(data: bytes, _: Path) -> None:
    lines = (line.partition(":") for line in data.decode("latin-1").splitlines())
    headers = httpx.Headers(
        [(name.strip().encode("latin-1"), value.strip().encode("latin-1")) for name, _, value in lines]
    )
    for found in (asked_to_wait(headers), used_up(headers)):
        wait = getattr(found, "seconds", found)
        if wait is not None and not 0 <= wait < float("inf"):
            raise ValueError(f"a pause of {wait} s")


def _kubernetes(data: bytes, folder: Path) -> None:
    """The launcher's every call meets the same answer."""
    config = ApiServer(url=_answering(data)).kubeconfig(folder)
    launcher = KubernetesLauncher(KubernetesSettings(kubeconfig=config, image="i", request_timeout_s=_PATIENCE_S))
    job = TrainingJob("j", "docs", 1, "r", "", folder, ("train",))
    each(
        lambda: launcher.place, lambda: launcher.launch(job), lambda: launcher.status("j"), lambda: launcher.tail("j")
    )
    launcher.close()


def _kubernetes_body(data: bytes, folder: Path) -> None:
    _kubernetes(_http("200 OK", data), folder)


def _kubeconfig(data: bytes, folder: Path) -> None:
    (folder / "kubeconfig").write_bytes(data)
    KubernetesLauncher(KubernetesSettings(kubeconfig=folder / "kubeconfig", image="i")).close()


def _metrics(data: bytes, _: Path) -> None:
    address = _answering(_http("200 OK", data)).removeprefix("http://")
    glance(address)
    scrape(address)


def _kubeconfig_seeds(folder: Path) -> list[bytes]:
    return [ApiServer(url="http://127.0.0.1:1").kubeconfig(folder).read_bytes()]


_TOP: Final = [{"token": "2", "logprob": -0.1}, {"token": "3", "logprob": -2.5}]
_CHAT: Final = {
    "model": "m",
    "choices": [
        {
            "message": {"content": "2", "reasoning": ""},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "2", "top_logprobs": _TOP}]},
        }
    ],
    "usage": {"prompt_tokens": 50, "completion_tokens": 1},
    "system_fingerprint": "f",
}
_TEXT: Final = {
    "model": "m",
    "choices": [
        {
            "text": "Passage: a\nQuestion: how? m",
            "logprobs": {
                "tokens": ["Passage: a\nQuestion:", " how", "?", " m"],
                "token_logprobs": [None, -1.0, -0.5, -2],
                "top_logprobs": [{"2": -0.1}],
            },
        }
    ],
    "usage": {"prompt_tokens": 3},
}
_ROWS: Final = [None, *({str(token): {"logprob": -0.5, "rank": 1}} for token in (8, 7, 8))]
_BY_IDS: Final = {
    "model": "m",
    "version": "0.32.0",
    "tokens": [7, 8],
    "token_strs": ["0", "\u01201"],
    "max_model_len": 99,
    "data": [{"index": 0, "object": "score", "score": 0.25}],
    "choices": [
        {
            "message": {"content": "0"},
            "text": "0",
            "logprobs": {
                "content": [
                    {
                        "token": "token_id:7",
                        "top_logprobs": [{"token": f"token_id:{token}", "logprob": -token / 4} for token in (7, 8)],
                    }
                ],
                "tokens": ["token_id:7"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{"token_id:7": -0.5, "token_id:8": -3}],
            },
            "prompt_logprobs": _ROWS,
        }
    ],
    "usage": {"prompt_tokens": 4},
}
_BATCH: Final = {
    "id": "b", "object": "batch", "status": "failed", "created_at": 1, "input_file_id": "f", "output_file_id": "o",
    "request_counts": {"completed": 1, "failed": 2}, "metadata": {"qrelay": "n"},
    "errors": {"data": [{"code": "invalid_json_line", "line": 2, "message": "no"}]},
}  # fmt: skip
_BATCH_SEEDS: Final = (json.dumps(_BATCH), json.dumps({"data": [_BATCH, {"id": "f", "filename": "f"}]}))
_SEEDS: Final = (json.dumps(_CHAT), json.dumps(_TEXT))
_LINES: Final = (
    json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": _CHAT}, "error": None}),
    json.dumps({"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"code": "content_filter"}}}}),
    json.dumps({"custom_id": "c", "response": None, "error": {"code": "batch_expired", "message": "x"}}),
)
_EMBEDDINGS: Final = (
    json.dumps({"model": "m", "data": [{"index": n, "embedding": [0.5, n + 1]} for n in range(2)]}),
    json.dumps([[0.25, -1.5], [1, 0]]),
)
_REFUSALS: Final = (
    json.dumps(
        {
            "error": {
                "message": "maximum context length",
                "type": "t",
                "code": "context_length_exceeded",
                "n_ctx": 9,
                "n_prompt_tokens": 11,
            }
        }
    ),
    json.dumps({"error": "logprobs is not allowed"}),
    json.dumps({"detail": [{"loc": ["body", "n"], "msg": "x"}]}),
)
_RATE_LIMITS: Final = (
    "Retry-After: 30\nx-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 6m0s\n",
    "retry-after-ms: 1500\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1767322800\n",
    "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 120ms",
)
_JOB: Final = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "j",
        "uid": "u",
        "annotations": {"qrelay.dev/job": '{"name": "j", "collection": "docs", "change_no": 1}'},
    },
    "spec": {"suspend": True},
    "status": {
        "startTime": "2026-01-02T03:04:05Z",
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "BackoffLimitExceeded",
                "message": "x",
                "lastTransitionTime": "2026-01-02T03:04:06Z",
            }
        ],
    },
    "items": [
        {
            "metadata": {"name": "p", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "status": {
                "reason": "Evicted",
                "message": "m",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "r"}],
                "containerStatuses": [
                    {
                        "name": "trainer",
                        "restartCount": 1,
                        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "killed"}},
                    }
                ],
            },
        }
    ],
}
_EXPOSITION: Final = (
    "# HELP qrelay_items_total Items\n# TYPE qrelay_items_total counter\n"
    'qrelay_items_total{stage="judge",outcome="ok"} 3.0\n'
    '# TYPE h histogram\nh_bucket{le="1.0"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n'
)

_SCALE: Final = Scale.halved("0-3", variants=(("0",), ("1",), ("2",), ("3",)))


def _judged_in_words(data: bytes, _: Path) -> None:
    for kind in (Json, Number):
        answer = Answer(read="json" if kind is Json else "number", reason=True)
        kind(_SCALE, answer).read(data.decode("utf8", "surrogateescape"))


PARSERS: Final = (
    Parser("labels by an endpoint", "json", constant(*_SEEDS), _labels, cost=20),
    Parser("answers of a batch", "jsonl", constant("\n".join(_LINES)), _batch_lines),
    Parser("batch API's answer", "json", constant(*_BATCH_SEEDS), _batch_api, cost=20),
    Parser("endpoint's answer", "json", constant(*_SEEDS), _with_status("200 OK"), cost=5),
    Parser("endpoint's answer by token ids", "json", constant(json.dumps(_BY_IDS)), _by_ids, cost=20),
    Parser("how an endpoint is asked", "json", constant(Way("token_ids", "given").as_text()), _way),
    Parser("endpoint's refusal, 400", "json", constant(*_REFUSALS), _with_status("400 Bad Request"), cost=5),
    Parser("endpoint's refusal, 404", "json", constant(*_REFUSALS), _with_status("404 Not Found"), cost=5),
    Parser("endpoint's refusal, 429", "json", constant(*_REFUSALS), _with_status("429 Too Many Requests"), cost=5),
    Parser(
        "endpoint's bytes",
        "lines",
        lambda _: [_http("200 OK", seed.encode(), *_RATE_LIMITS[2].splitlines()) for seed in _SEEDS],
        _endpoint,
        cost=5,
    ),
    Parser(
        "a judge's JSON",
        "json",
        constant('{"grade": 2, "reason": "It says how."}', '```json\n{"grade": 0, "reason": ""}\n```', "3\nso it is"),
        _judged_in_words,
    ),
    Parser("search engine's answer", "json", constant(*map(json.dumps, SAMPLES.values())), _searched, cost=5),
    Parser("search engine's credential", "lines", constant("user:pass\n"), _credential),
    Parser("endpoint's vectors", "json", constant(*_EMBEDDINGS), _embeddings, cost=20),
    Parser("endpoint's rate limits", "lines", constant(*_RATE_LIMITS), _headers),
    Parser(
        "reply of a model",
        "lines",
        constant("Question: How do I copy?", "1, 3", "<think>x</think> 2"),
        lambda data, _: (
            read_question(data.decode("utf8", "replace")),
            read_numbers(data.decode("utf8", "replace"), 3),
        ),
    ),
    Parser("Kubernetes API's answer", "json", constant(json.dumps(_JOB)), _kubernetes_body, cost=10),
    Parser(
        "Kubernetes API's bytes",
        "lines",
        lambda _: [_http("200 OK", json.dumps(_JOB).encode()), _http("409 Conflict", b'{"message": "exists"}')],
        _kubernetes,
        cost=10,
    ),
    Parser("kubeconfig", "yaml", _kubeconfig_seeds, _kubeconfig),
    Parser("metrics", "lines", constant(_EXPOSITION), _metrics),
)

"""Tools for language models, asked by the protocol's own client library over stdio and HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.web.serving import DATA, Served, console

TOOLS = {"retrieve", "rerank", "judge", "labels", "queries", "stats"}


async def looked_at(client: Client) -> None:
    """What every transport has to do."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == TOOLS
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools.values())
    assert all(tool.description and tool.output_schema for tool in tools.values())
    stats = await asked(client, "stats")
    assert [(each["collection"], each["queries"]) for each in stats["collections"]] == [("docs", 2)]
    found = await asked(client, "labels", collection="docs", where="grade>=2", texts=True)
    assert {(each["query_id"], each["grade"]) for each in found["labels"]} == {("q1", 3), ("q2", 3)}
    assert found["labels"][0]["text"] == "text 0 of d0"
    queries = await asked(client, "queries", collection="docs", containing="Q2")
    assert [each["query_id"] for each in queries["queries"]] == ["q2"]


async def asked(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return str(answer.content[0])


async def test_over_http_the_tools_read_the_ledger(tmp_path: Path) -> None:
    with console(tmp_path) as site:
        async with Client(streamable_http_client(f"{site.url}/mcp")) as client:
            await looked_at(client)


async def test_over_stdio_the_tools_read_the_ledger(tmp_path: Path) -> None:
    with console(tmp_path):
        arguments = ["-m", "qrelay.cli.main", "mcp", "--data-dir", str(tmp_path / DATA)]
        async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=arguments))) as client:
            await looked_at(client)


async def test_a_tool_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    with console(tmp_path) as site:
        async with Client(streamable_http_client(f"{site.url}/mcp")) as client:
            assert "holds no judged query of collection" in await refused(client, "labels", collection="dosc")
            assert "page_size" in await refused(client, "labels", collection="docs", page_size=10**9)
            assert "no retriever runs" in await refused(client, "retrieve", query="how?", collection="docs")
            assert "there is no tool" in await refused(client, "delete_everything")


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_another_sites_page_reaches_no_tool(tmp_path: Path, headers: dict[str, str]) -> None:
    with console(tmp_path) as site:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
        assert posted(site, call, headers) == 403


def posted(site: Served, message: dict[str, Any], headers: dict[str, str]) -> int:
    both = {"accept": "application/json, text/event-stream", **headers}
    return site.http.post("/mcp", json=message, headers=both).status_code

"""The MCP server: the table's operations that only read or compute, as tools for language models, over stdio
(`qrelay mcp`) and at /mcp (streamable HTTP, without sessions)."""

from __future__ import annotations

import asyncio
import getpass
from typing import Any, Final

import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from qrelay import __version__
from qrelay.errors import BackendTimeout, InputError
from qrelay.nearest import listed
from qrelay.security.access import own_token
from qrelay.security.identity import Kind, Principal, acting, named
from qrelay.web.api.operations import OPERATIONS, Operation
from qrelay.web.errors import problem
from qrelay.web.pages import refusal
from qrelay.web.security import Action, Person, authorise
from qrelay.web.site import Site, site_of

_INSTRUCTIONS: Final = (
    "qrelay labels passages with graded relevance for queries. `stats` names the collections; `queries` and `labels` "
    "page through what is labelled; `retrieve` and `rerank` search; `judge` grades passages that you give."
)
TOOLS: Final = {each.name: each for each in OPERATIONS if each.tool}

Context = ServerRequestContext[Any, Any]


def make_server(site: Site) -> Server[Any]:
    """The server of a site."""

    async def tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(each) for each in TOOLS.values()])

    async def call(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            return await _called(site, context.request, params.name, params.arguments or {})
        except Exception as error:
            return types.CallToolResult(content=[_text(problem(error).message)], is_error=True)

    return Server("qrelay", version=__version__, instructions=_INSTRUCTIONS, on_list_tools=tools, on_call_tool=call)


def _tool(operation: Operation) -> types.Tool:
    return types.Tool(
        name=operation.name,
        description=operation.said,
        input_schema=operation.request.model_json_schema(),
        output_schema=operation.answers.json_schema(mode="serialization"),
        annotations=types.ToolAnnotations(
            read_only_hint=not operation.writes, idempotent_hint=True, open_world_hint=False
        ),
    )


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


async def _called(
    site: Site, request: HTTPConnection | None, name: str, arguments: dict[str, Any]
) -> types.CallToolResult:
    """The tool's answer. request: None over stdio, where the user of this machine asks."""
    operation = TOOLS.get(name)
    if operation is None:
        raise InputError(f"there is no tool {name[:80]!r}: there are {listed(TOOLS, 'none')}")
    person = await authorise(request, operation.action) if request else _user()
    seconds = site.settings.grpc.default_deadline_s
    try:
        async with asyncio.timeout(seconds):
            found = await operation.call(site, person, operation.taken(arguments))
    except TimeoutError:
        raise BackendTimeout(f"not answered within grpc.default_deadline_s ({seconds:g} s)") from None
    text = operation.shown(found, site.settings.grpc.max_message_bytes).decode()
    return types.CallToolResult(
        content=[_text(text)], structured_content=operation.answers.dump_python(found, mode="json")
    )


def _user() -> Person:
    """Who started this process; calls that follow show their token. Raises ConfigError: its file cannot be read."""
    person = Person(named(getpass.getuser()))
    acting.set(Principal(person.name, Kind.LOCAL, bearer=own_token()))
    return person


def over_http(site: Site) -> StreamableHTTPSessionManager:
    """What answers at /mcp while its `run()` goes on: each request alone, in JSON."""
    return StreamableHTTPSessionManager(
        make_server(site),
        json_response=True,
        stateless=True,
        max_request_body_size=site.settings.grpc.max_message_bytes,
    )


class Endpoint:
    """The route's application, behind the hook."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what may be asked at all; each tool is authorised again as the action that it is."""
        request = HTTPConnection(scope)
        try:
            await authorise(request, Action.READ)
        except Exception as error:
            await refusal(request, problem(error))(scope, receive, send)
            return
        await site_of(request).mcp.asgi_app(scope, receive, send)


async def over_stdio(site: Site) -> None:
    """Serves standard input until it ends."""
    server = make_server(site)
    try:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
    finally:
        await site.close()

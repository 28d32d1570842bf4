"""Reference pages that are read from the code: every command's help, the protos, the metrics, the exit codes.

Used by check_generated.py. The text around the table of exit codes in docs/cli.md is written by hand.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from prometheus_client.metrics import MetricWrapperBase

from qrelay.cli.main import qrelay
from qrelay.exitcodes import MEANINGS
from qrelay.runtime import telemetry
from scripts.marked import filled
from scripts.recipes import ROOT

DOCS: Final = ROOT / "docs"
BEGIN, END = "<!-- exit codes: generated -->", "<!-- end of exit codes -->"
_COLUMNS: Final = 100
_MESSAGES, _SERVICES, _ENUMS, _PART = 4, 6, 5, 2
"""Numbers of fields in FileDescriptorProto, of which paths of comments are made; of a message's fields, a service's
methods and an enum's values alike."""


def pages() -> Iterator[tuple[Path, str]]:
    """Each page and what it must hold."""
    yield DOCS / "commands.md", commands_page()
    yield DOCS / "protos.md", protos_page()
    yield DOCS / "metrics.md", metrics_page()
    yield DOCS / "cli.md", with_exit_codes((DOCS / "cli.md").read_text("utf8"))


def _table(headings: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    escaped = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    return [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}", *(f"| {row} |" for row in escaped), ""]


def with_exit_codes(page: str) -> str:
    """docs/cli.md with the table as it is now."""
    table = _table(("code", "meaning"), ((str(code), meaning) for code, meaning in MEANINGS.items()))
    return filled(page, BEGIN, END, "\n".join(table[:-1]))


def commands_page() -> str:
    """docs/commands.md."""
    lines = ["# Commands", "", "Generated from the commands: what `qrelay COMMAND --help` prints. What they share "
             "(exit codes, `--json`, files, completion) is in [command line](cli.md).", ""]  # fmt: skip
    for context in _commands(qrelay, None):
        path = context.command_path
        level = "##" if path.count(" ") < 2 else "###"
        lines += [f"{level} {path}", "", "```text", context.command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    """Of every command, those of groups within groups too."""
    settings = command.context_settings
    context = click.Context(command, parent, command.name, terminal_width=_COLUMNS, **settings)
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from _commands(found, context)


def metrics_page() -> str:
    """docs/metrics.md."""
    found = sorted((each for each in vars(telemetry).values() if isinstance(each, MetricWrapperBase)),
                   key=lambda each: each._name)  # fmt: skip
    rows = ((f"`{_exposed(each)}`", each._type, ", ".join(f"`{name}`" for name in each._labelnames),
             each._documentation) for each in found)  # fmt: skip
    return "\n".join([
        "# Metrics", "",
        "Generated from `qrelay/runtime/telemetry.py`. Every process serves them, in Prometheus' text format, at "
        "`telemetry.metrics_bind`/metrics ([configuration](configuration.md)); what to watch, and the alerts, are in "
        "[operations](operations.md). A histogram has the series `_bucket`, `_sum` and `_count`.", "",
        *_table(("metric", "type", "labels", "meaning"), rows),
    ])  # fmt: skip


def _exposed(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def protos_page() -> str:
    """docs/protos.md."""
    lines = ["# Protos", "", "Generated from `protos/qrelay/v1`: every service, message and enum of the package "
             "`qrelay.v1`. How to call a service, its limits and its errors: [gRPC](grpc.md).", ""]  # fmt: skip
    for file in _files():
        lines += [f"## {Path(file.name).name}", ""]
        for number, service in enumerate(file.service):
            lines += _service(_Comments(file, (_SERVICES, number)), service)
        for number, message in enumerate(file.message_type):
            lines += _message(_Comments(file, (_MESSAGES, number)), message)
        for number, enum in enumerate(file.enum_type):
            lines += _enum(_Comments(file, (_ENUMS, number)), enum)
    return "\n".join(lines)


def _files() -> Sequence[FileDescriptorProto]:
    """The protos with their comments, services' first."""
    protos = sorted((ROOT / "protos").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", "--include_source_info",
                   f"--descriptor_set_out={out}", *map(str, protos)]  # fmt: skip
        subprocess.run(command, check=True)
        found = FileDescriptorSet.FromString(out.read_bytes()).file
    return sorted(found, key=lambda file: (not file.service, file.name))


class _Comments:
    """What stands above or behind a thing of a file, and above its parts."""

    def __init__(self, file: FileDescriptorProto, path: tuple[int, ...]) -> None:
        self._path = path
        self._found = {
            tuple(each.path): _prose(f"{each.leading_comments} {each.trailing_comments}")
            for each in file.source_code_info.location
        }

    def own(self) -> list[str]:
        """As a paragraph, where there are any."""
        text = self._found.get(self._path, "")
        return [text, ""] if text else []

    def of(self, part: int) -> str:
        return self._found.get((*self._path, _PART, part), "")


def _prose(text: str) -> str:
    """A comment as a paragraph of Markdown."""
    return " ".join(text.split()).replace("[", "\\[").replace("<", "&lt;")


def _service(comments: _Comments, service: Any) -> list[str]:
    rows = ((f"`{each.name}`", _called(each.input_type, each.client_streaming),
             _called(each.output_type, each.server_streaming), comments.of(number))
            for number, each in enumerate(service.method))  # fmt: skip
    return [f"### {service.name}", "", *comments.own(), *_table(("call", "takes", "gives", "notes"), rows)]


def _message(comments: _Comments, message: DescriptorProto) -> list[str]:
    entries = {each.name: each for each in message.nested_type if each.options.map_entry}
    assert len(entries) == len(message.nested_type) and not message.enum_type, f"{message.name}: show nested types"
    rows = ((f"`{each.name}`", str(each.number), _typed(each, message, entries), comments.of(number))
            for number, each in enumerate(message.field))  # fmt: skip
    table = _table(("field", "number", "type", "notes"), rows) if message.field else ["No fields.", ""]
    return [f"### {message.name}", "", *comments.own(), *table]


def _enum(comments: _Comments, enum: EnumDescriptorProto) -> list[str]:
    rows = ((f"`{each.name}`", str(each.number), comments.of(number)) for number, each in enumerate(enum.value))
    return [f"### {enum.name}", "", *comments.own(), *_table(("value", "number", "notes"), rows)]


def _called(name: str, streaming: bool) -> str:
    return f"{'stream of ' if streaming else ''}{_linked(name)}"


def _typed(field: Any, message: DescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    """The field's type in words, with a link where it is one of ours."""
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_scalar(key)} to {_scalar(value)}"
    shown = _scalar(field)
    if field.label == Field.LABEL_REPEATED:
        return f"repeated {shown}"
    if field.proto3_optional:
        return f"optional {shown}"
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    return f"{shown}, one of `{oneof}`" if oneof else shown


def _scalar(field: Any) -> str:
    return _linked(field.type_name) if field.type_name else Field.Type.Name(field.type).removeprefix("TYPE_").lower()


def _linked(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(".qrelay.v1.") else name.lstrip(".")

"""Command lines of `qrelay` in pages, scripts and notebooks, and the parser that they are held to: click's own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

import click

from qrelay.cli.main import qrelay

_SHELLS = ("", "sh", "bash", "shell", "console")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_/-]*|\$\w+")
_COMPOSE = ("cli", "trainer")


def parsed(command: click.Command, words: list[str], path: tuple[str, ...]) -> tuple[str, ...]:
    """The path of the command that the words call. Fails where an option, a command or a value does not exist."""
    context = click.Context(command, info_name=path[-1] if path else "qrelay")
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    if "--help" in words[:1]:
        return path
    if isinstance(command, click.Group):
        if not rest:
            assert command.invoke_without_command, f"{path}: name a command"
            return path
        name, inner, more = command.resolve_command(context, rest)
        assert name and inner
        return parsed(inner, more, (*path, name))
    assert not rest, rest
    for option in command.params:
        given = values.get(str(option.name))
        assert given is not None or not option.required, f"{path} needs {option.opts}"
        if _checkable(option, given):
            option.type_cast_value(context, given)
    return path


def _checkable(option: click.Parameter, given: object) -> bool:
    """Whether a value has to be one of the option's own: no file, and no word that stands for one (FORMAT, $n)."""
    if given is None or option.nargs == -1 or isinstance(option.type, click.Path | click.File):
        return False
    return not (isinstance(given, str) and _PLACEHOLDER.fullmatch(given))


def blocks(path: Path) -> Iterator[list[str]]:
    """Each block of shell lines, comments and continuations taken out: of a page, a script or a notebook's cells."""
    text = path.read_text("utf8")
    if path.suffix == ".sh":
        yield _lines(text)
    elif path.suffix == ".ipynb":
        sources = ("".join(cell["source"]) for cell in json.loads(text)["cells"])
        yield from (_lines(source.partition("\n")[2]) for source in sources if source.startswith("%%bash"))
    else:
        for language, body in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
            if language in _SHELLS:
                yield _lines(body)
        plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        for body in re.findall(r"(?:^ {4,}\S.*\n)(?:(?: {4,}.*)?\n)*", plain, re.MULTILINE):
            yield _lines(body)


def _lines(body: str) -> list[str]:
    """Lines of a shell; what a here-document holds is none of them."""
    body = re.sub(r"<<-? *['\"]?(\w+)['\"]?(.*\n)(?:.*\n)*? *\1$", r"\2", body, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", body)
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
    return [line.removeprefix("$ ") for line in lines if line]


def calls(lines: list[str]) -> Iterator[list[str]]:
    """The words of each call of `qrelay` in these lines, without its name: alone, in a pod, or in compose's `cli`."""
    for line in lines:
        if "─" not in line and re.search(r"\b(?:qrelay|cli|trainer) ", line):
            for words in _simple_commands(line):
                yield from _call(words)


def _simple_commands(line: str) -> Iterator[list[str]]:
    """The line divided where a shell divides it; redirections are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for token in lexer:
        if token in ("<", ">", ">>"):
            next(lexer, "")
        elif set(token) <= set("&|;()"):
            yield words
            words = []
        else:
            words.append(token)
    yield words


def _call(words: list[str]) -> Iterator[list[str]]:
    words = list(dropwhile(lambda word: word == "exec" or _ASSIGNMENT.fullmatch(word), words))
    if words[:3] == ["docker", "compose", "run"]:
        service = next(at for at, word in enumerate(words) if at > 2 and not word.startswith("-"))
        words = ["qrelay", *words[service + 1 :]] if words[service] in _COMPOSE else []
    elif words[:1] == ["kubectl"] and "--" in words:
        words = words[words.index("--") + 1 :]
    if words[:1] == ["qrelay"]:
        yield words[1:]


def spans(path: Path) -> Iterator[list[str]]:
    """The words of each `qrelay …` within a sentence of a page, without its name."""
    plain = re.sub(r"^ *```.*?^ *```|^ {4,}\S.*\n", "", path.read_text("utf8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`qrelay ([a-z][^`]*)`", plain):
        yield re.split(r"\s+", span.strip())


def named(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, of groups within groups too, and the words that are left."""
    command: click.Command = qrelay
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words

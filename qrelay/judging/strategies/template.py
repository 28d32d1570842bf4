"""The texts of a rubric with placeholders, parsed before they are filled: what fills one place cannot make another.

Template.parse("Query: {query}\\n\\n{passage}", ("query", "passage"), "template")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Final

from qrelay.errors import ConfigError

PASSAGE: Final = ("passage", "title", "text")
"""Placeholders of a passage; `passage` is title and text in their delimiter."""
METADATA: Final = "metadata.FIELD"
"""Stands for `metadata.` and any field; `{metadata.FIELD:unknown}` says what is there where a passage lacks it."""


def of_passage(name: str) -> bool:
    """Whether a placeholder shows something of the passage."""
    return name in PASSAGE or field_of(name) is not None


def field_of(name: str) -> tuple[str, str] | None:
    """(field, what stands for it where a passage lacks it; "": nothing) of a placeholder of metadata."""
    kind, dot, rest = name.partition(".")
    field, _, instead = rest.partition(":")
    return (field, instead) if kind == "metadata" and dot and field and not set("!{}") & set(rest) else None


@dataclass(frozen=True, slots=True)
class Template:
    """(literal text, the placeholder after it), in order; the last placeholder may be "": none."""

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, known: Sequence[str], where: str) -> Template:
        """`text` with {placeholders} of `known`; {{ and }} are braces.

        Raises:
            ConfigError: an unknown placeholder, or a brace that is none; `where` names the text.
        """
        try:
            parts = [(literal, _name(field, form, how)) for literal, field, form, how in Formatter().parse(text)]
        except ValueError as error:
            raise ConfigError(f"{where}: {error}: write {{{{ and }}}} for braces that are no placeholder") from error
        for _, name in parts:
            if name and name not in known and not (METADATA in known and field_of(name)):
                raise ConfigError(f"{where}: {_unknown(name, known)}")
        return cls(tuple(parts))

    @property
    def names(self) -> list[str]:
        """The placeholders in their order."""
        return [name for _, name in self.parts if name]

    def filled(self, values: Mapping[str, str]) -> str:
        """The text; a placeholder without a value stays."""
        return "".join(literal + (values.get(name, f"{{{name}}}") if name else "") for literal, name in self.parts)

    def source(self, values: Mapping[str, str]) -> str:
        """As `filled`, but for a hash: braces of the text are doubled, so that none looks like a placeholder."""
        doubled = [(literal.replace("{", "{{").replace("}", "}}"), name) for literal, name in self.parts]
        return Template(tuple(doubled)).filled(values)

    def given(self, texts: Mapping[str, str]) -> Template:
        """With these texts in the places of their placeholders, as if they had been written there."""
        return Template(tuple((lit + texts[name], "") if name in texts else (lit, name) for lit, name in self.parts))

    def split(self) -> tuple[Template, Template]:
        """What stands before the first placeholder of the passage, and the rest."""
        for n, (literal, name) in enumerate(self.parts):
            if of_passage(name):
                return Template((*self.parts[:n], (literal, ""))), Template((("", name), *self.parts[n + 1 :]))
        return self, Template(())

    def after(self, placeholder: str) -> Template:
        """What follows this placeholder; all, where it is not there."""
        at = next((n for n, (_, name) in enumerate(self.parts) if name == placeholder), -1)
        return Template(self.parts[at + 1 :])


def _name(field: str | None, form: str | None, how: str | None) -> str:
    """The placeholder's name; "" for none. What stands after a colon is part of it, and known for metadata alone."""
    if field is None:
        return ""
    return f"{field}{'!' if how else ''}{':' if form or not field else ''}{form or ''}"


def _unknown(name: str, known: Sequence[str]) -> str:
    if field_of(name) or name.partition(".")[0] == "metadata":
        return f"{{{name[:40]}}}: write {{metadata.FIELD}}, with a field's name, and in the template alone"
    shown = ", ".join(f"{{{each}}}" for each in known)
    return f"{{{name[:40]}}} is no placeholder: use {shown}, and {{{{ and }}}} for braces"

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
            parts = [
                (literal, _name(field, bool(form or how))) for literal, field, form, how in Formatter().parse(text)
            ]
        except ValueError as error:
            raise ConfigError(f"{where}: {error}: write {{{{ and }}}} for braces that are no placeholder") from error
        for _, name in parts:
            if name and name not in known:
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

    def split(self) -> tuple[Template, Template]:
        """What stands before the passage, and the rest."""
        for n, (literal, name) in enumerate(self.parts):
            if name in PASSAGE:
                return Template((*self.parts[:n], (literal, ""))), Template((("", name), *self.parts[n + 1 :]))
        return self, Template(())


def _name(field: str | None, formatted: bool) -> str:
    """The placeholder's name; "" for none. A format is no part of a name, so that it makes an unknown one."""
    if field is None:
        return ""
    return f"{field}:" if formatted or not field else field


def _unknown(name: str, known: Sequence[str]) -> str:
    if name.partition(".")[0] == "metadata":
        return (
            f"{{{name}}}: passages carry no metadata, only a title and a text: put the field into one of them when "
            "the corpus is written"
        )
    shown = ", ".join(f"{{{each}}}" for each in known)
    return f"{{{name[:40]}}} is no placeholder: use {shown}, and {{{{ and }}}} for braces"

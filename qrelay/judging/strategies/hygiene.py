"""Prompt-injection hygiene: query and passage are data, and must not be able to leave their place.

Three things a passage could do: close its own delimiter, write a chat template's control token (engines
parse those inside message text: llama.cpp reads `<|im_end|>` in a passage as the end of the message), or
simply give orders. The first two are made impossible here; the third is answered by the instructions.
Only the control sequences change, by one space after their first character; no word is lost.
"""

from __future__ import annotations

import re
from typing import Final

from qrelay.types import Passage

VERSION: Final = "hygiene-1"
"""Part of every prompt_hash: change it when the rules below change."""

_CONTROL: Final = re.compile(
    "<(?=[|\uff5c]"  # <|im_end|>, <|eot_id|>, <|fim_prefix|>, and the full-width bars of some templates
    r"|/?(?:passage|query|think|tool_call|tool_response|start_of_turn|end_of_turn|s|bos|eos|pad|unk|sys)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=<SYS>>|</SYS>>)",
    re.IGNORECASE,
)
_UNENCODABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


def as_data(text: str) -> str:
    """`text` without the power to end its delimiter or the message it stands in; stripped at both ends."""
    text = text.strip()
    if "<" in text or "[" in text:
        text = _CONTROL.sub(lambda found: found.group() + " ", text)
    return text if text.isascii() and "\x00" not in text else _UNENCODABLE.sub("\ufffd", text)


def line(text: str) -> str:
    """A value that stands among a prompt's own words: `as_data`, on one line."""
    return as_data(" ".join(text.split()))


def first_words(text: str, words: int) -> str:
    """The first `words` words on one line, and of these at most 16 bytes of UTF-8 a word: scripts without
    blanks between their words would else have no limit. For prompts that show many passages at once."""
    head = " ".join(text.split()[:words])
    return head.encode("utf-8", "replace")[: 16 * words].decode("utf-8", "ignore")


def plain_passage(passage: Passage | None) -> str:
    """Title and text on lines of their own, for prompts that do not chat; what is empty has no line."""
    shown = (passage.title, passage.text) if passage else ()
    return "\n".join(part for each in shown if (part := as_data(each)))


def delimited_passage(title: str, text: str) -> str:
    """The passage as the last part of the user message, its title on the first line."""
    body = f"{as_data(title)}\n{as_data(text)}" if title.strip() else as_data(text)
    return f"<passage>\n{body}\n</passage>"

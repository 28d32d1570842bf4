"""The text of a passage as every model here reads it."""

from __future__ import annotations


def passage_text(title: str, text: str) -> str:
    """What BM25, bi-encoders and cross-encoders read of a passage when they train, are measured and serve: the title,
    which says what a window is about, then the text; the text alone where the title is empty or the same."""
    return f"{title}\n{text}" if title and title != text else text

"""Parts of pages that are generated: between two markers, the rest is written by hand."""

from __future__ import annotations


def filled(page: str, begin: str, end: str, text: str) -> str:
    """The page with this text between its markers. Raises ValueError where these are not there."""
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the page lost its markers {begin} and {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"

"""A report as one HTML file that needs no network: the templates of `templates/` in one frame, with one stylesheet.

All texts are escaped. A page has at most one script, its own, which the page's policy names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any, Final

DASH: Final = "\N{EN DASH}"
"""What is shown for a figure that is not known."""
_TEMPLATES: Final = Path(__file__).with_name("templates")


def render(template: str, *, script: str = "", **values: Any) -> str:
    """The page of a template; `script`: a file beside it that the page runs."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    pages = Environment(autoescape=True, trim_blocks=True, loader=FileSystemLoader(_TEMPLATES))
    pages.filters.update(text=text, fixed=fixed, interval=interval, value=value, base64=_base64)
    pages.tests["known"] = known
    code = (_TEMPLATES / script).read_text("utf8") if script else ""
    digest = _base64(hashlib.sha256(code.encode()).digest())
    return pages.get_template(template).render(
        script=Markup(code),  # noqa: S704 (a file of ours)
        script_hash=digest,
        dash=DASH,
        **values,
    )


def known(found: Any) -> bool:
    """Whether a figure is a number."""
    return isinstance(found, int | float) and math.isfinite(found)


def text(found: Any) -> str:
    """A number as people read it: thousands apart, up to four digits of a fraction; a dash for None."""
    if found is None:
        return DASH
    if isinstance(found, bool) or not isinstance(found, int | float):
        return str(found)
    return f"{found:,}" if isinstance(found, int) else f"{found:.4g}"


def fixed(found: Any, digits: int = 3) -> str:
    """A figure with so many digits after the point; a dash where it is not known."""
    return f"{found:.{digits}f}" if known(found) else DASH


def interval(bounds: Any, digits: int = 3) -> str:
    """Two bounds; empty where they are not known."""
    low, high = bounds or (None, None)
    return f"{fixed(low, digits)} to {fixed(high, digits)}" if known(low) and known(high) else ""


def value(found: Any) -> str:
    """A number that decided something, or several by name."""
    if isinstance(found, dict):
        return ", ".join(f"{key} {value(each)}" for key, each in found.items())
    return fixed(found) if isinstance(found, float) else text(found)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

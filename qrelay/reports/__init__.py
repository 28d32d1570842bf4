"""What reports for people share: one page frame (templates/), one stylesheet, and one kind of diagram.

    page    a template of `templates/` rendered to one HTML file that needs no network; how numbers are shown
    plots   an empty diagram, and its PNG

Needs jinja2 and matplotlib, loaded when a report is written.
"""

from importlib.util import find_spec


def require_libraries(wanted: object = True) -> None:
    """What a command that was asked for a report calls before its work. Raises ModuleNotFoundError where one is not
    installed; nothing where `wanted` is empty."""
    for name in ("jinja2", "matplotlib"):
        if wanted and find_spec(name) is None:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

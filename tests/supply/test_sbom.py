"""Bills of materials: what is in them, who needs whom, and under which licences."""

from __future__ import annotations

from typing import Any

from scripts import sbom

PINS = {
    "torch": "torch==2.0 \\\n    --hash=sha256:aa\n    # via qrelay (pyproject.toml)\n",
    "sympy": "sympy==1.0 \\\n    --hash=sha256:bb\n    # via torch\n",
}
WINDOWS = "pywin32==312 ; sys_platform == 'win32' \\\n    --hash=sha256:cc\n    # via torch\n"


def bill(*names: str, **needs: list[str]) -> dict[str, Any]:
    """A bill whose references are `ref-NAME`."""
    components = [{"name": name, "bom-ref": f"ref-{name}", "description": "a line with hashes"} for name in names]
    return {
        "metadata": {"component": {"bom-ref": "root", "name": "qrelay"}},
        "components": components,
        "dependencies": [{"ref": ref, "dependsOn": found} for ref, found in needs.items()],
    }


def test_a_developers_tool_is_not_in_the_bill_and_nothing_depends_on_it() -> None:
    whole = bill("Torch", "mypy", root=["ref-Torch", "ref-mypy"])
    found = sbom.restricted(whole, {"torch"})
    assert [each["name"] for each in found["components"]] == ["Torch"]
    assert found["dependencies"] == [{"ref": "root", "dependsOn": ["ref-Torch"]}]


def test_an_images_bill_says_who_needs_whom_and_under_which_licence() -> None:
    licences = [{"license": {"id": "BSD-3-Clause"}}]
    found = sbom.completed(bill("torch", "sympy"), PINS, {"torch"}, {"sympy": licences})
    assert {each["ref"]: each["dependsOn"] for each in found["dependencies"]} == {
        "root": ["ref-torch"], "ref-torch": ["ref-sympy"], "ref-sympy": [],
    }  # fmt: skip
    torch, sympy = found["components"]
    assert sympy["licenses"] == licences and "licenses" not in torch


def test_what_other_systems_install_is_not_in_an_image() -> None:
    assert sbom.installed(PINS["torch"])
    assert not sbom.installed(WINDOWS)

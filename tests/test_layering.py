"""What the layout promises beside the layers, which `make check` holds (import-linter, pyproject.toml)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(folder: str) -> list[Path]:
    found = [path for path in sorted((ROOT / folder).rglob("*.py")) if "v1" not in path.parts]
    assert found, folder
    return found


def test_the_command_line_loads_without_model_libraries() -> None:
    heavy = (
        "torch",
        "sentence_transformers",
        "transformers",
        "bm25s",
        "faiss",
        "xllamacpp",
        "datasets",
        "sqlalchemy",
    )
    tops = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in [
            *modules("qrelay/cli"),
            *(ROOT / "services").glob("*/cli.py"),
            ROOT / "qrelay/cli/models/group.py",
        ]
        for node in ast.parse(path.read_text("utf8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        if name.split(".")[0] in heavy
    ]
    assert tops == []


def test_services_are_imported_by_the_name_that_is_installed() -> None:
    """`qrelay/services` is a link to `services/`: by the folder's own name every module would exist twice."""
    folders = ("qrelay", "services", "tests", "benchmarks", "scripts")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in folders
        for path in modules(folder)
        for name in imports(path)
        if name == "services" or name.startswith("services.")
    ]
    assert wrong == []


def test_whoever_loads_settings_says_of_which_data_folder() -> None:
    """Or the record of the installation is passed by, and with it a qualification, a budget, a threshold."""
    calls = [
        (path, call)
        for folder in ("qrelay", "services")
        for path in modules(folder)
        for call in ast.walk(ast.parse(path.read_text("utf8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "load_settings"
    ]
    assert len(calls) > 10
    forgotten = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls
        if not {"data_dir", "environ"} & {keyword.arg for keyword in call.keywords}
    ]
    assert forgotten == []


def test_only_its_adapter_imports_another_tool() -> None:
    tools = {"langchain_core", "llama_index", "haystack", "mlflow", "wandb", "label_studio_sdk", "argilla"}
    adapters = ("langchain", "llamaindex", "haystack", "track_mlflow", "track_wandb")
    found = {
        path.relative_to(ROOT / "qrelay").as_posix()
        for path in modules("qrelay")
        for name in imports(path)
        if name.split(".")[0] in tools or (name.startswith("qrelay.integrations.") and name.split(".")[2] in adapters)
    }
    assert found == {f"integrations/{name}.py" for name in adapters}

"""The layout is the architecture: who may import whom, read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists())
CORE_BANS = ("grpc", "nats", "qrelay.v1", "qrelay.wire", "qrelay.runtime.jetstream", "qrelay.runtime.server")
DOORS = {"service.py", "__main__.py", "cli.py", "doors.py"}


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


def offenders(folder: str, banned: tuple[str, ...], leave_out: frozenset[str] = frozenset()) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        if path.name not in leave_out
        for name in imports(path)
        if any(name == ban or name.startswith(f"{ban}.") for ban in banned)
    ]


def test_the_shared_package_imports_no_service_and_no_trainer() -> None:
    assert offenders("qrelay", ("services", "trainer", "tests", "benchmarks")) == []


def test_a_service_imports_no_other_service_and_no_trainer() -> None:
    assert SERVICES == ["judge", "reranker", "retriever", "sink"]
    for service in SERVICES:
        others = tuple(f"services.{other}" for other in SERVICES if other != service)
        assert offenders(f"services/{service}", (*others, "trainer", "tests")) == []


def test_cores_know_neither_grpc_nor_nats() -> None:
    for service in SERVICES:
        assert offenders(f"services/{service}", CORE_BANS, frozenset(DOORS)) == []


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


def test_whoever_loads_settings_says_of_which_data_folder() -> None:
    """Or the record of the installation is passed by, and with it a qualification, a budget, a threshold."""
    calls = [
        (path, call)
        for folder in ("qrelay", "services", "trainer")
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

"""`python-docs`: the standard library's own documentation, as a corpus that every machine has.

From the running interpreter, always the same for the same one: doc strings of library modules read from
their source without importing it; doc strings of built-in types and C modules, by importing those alone;
and the language reference's topics that `help()` shows (`pydoc_data.topics`). One document a module,
class, function and method, named as a reader would name it: `pathlib.Path.glob(pattern)`.

Left out: private names, tests, and doc strings too short to answer anything.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.index.documents import Document

MIN_CHARS: Final = 24
MAX_SIGNATURE_CHARS: Final = 120
TOPICS: Final = "topics"
BUILTINS: Final = "builtins"

C_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "array": ("array",),
    "asyncio": ("_asyncio",),
    "atexit": ("atexit",),
    "binascii": ("binascii",),
    "builtins": ("builtins",),
    "bz2": ("_bz2",),
    "cmath": ("cmath",),
    "collections": ("_collections",),
    "contextvars": ("_contextvars",),
    "csv": ("_csv",),
    "decimal": ("_decimal",),
    "functools": ("_functools",),
    "gc": ("gc",),
    "io": ("_io",),
    "itertools": ("itertools",),
    "lzma": ("_lzma",),
    "marshal": ("marshal",),
    "math": ("math",),
    "mmap": ("mmap",),
    "operator": ("_operator",),
    "os": ("posix", "nt"),
    "queue": ("_queue",),
    "select": ("select",),
    "signal": ("_signal",),
    "socket": ("_socket",),
    "sqlite3": ("_sqlite3",),
    "ssl": ("_ssl",),
    "struct": ("_struct",),
    "sys": ("sys",),
    "threading": ("_thread",),
    "time": ("time",),
    "unicodedata": ("unicodedata",),
    "weakref": ("_weakref",),
    "zlib": ("zlib",),
}
"""Public modules whose documentation is in C, with the modules that hold it."""

_LEFT_OUT: Final = frozenset(
    {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib", "ntpath", "nturl2path", "posixpath"}
    | {"pydoc_data", "sre_compile", "sre_constants", "sre_parse", "test", "this", "tkinter", "turtle"}
    | {"turtledemo"}
)
_TEST_PARTS: Final = frozenset({"test", "tests", "idle_test", "__main__"})


def read_python_docs(selection: str) -> Iterator[Document]:
    """The documents of `selection`, by id; an empty selection is all.

    selection: modules, or names in them with all that is below (`json,os.path,builtins.str`); or `@FILE`,
    which lists such names, # starting a comment; there, names that this Python does not document are skipped,
    because one list serves several versions of it.

    Raises:
        MalformedInput: naming what does not exist.
    """
    wanted = _wanted(selection)
    known = {*_library(), TOPICS, *C_PARTS}
    modules = {name.partition(".")[0] for name in wanted} or known
    unknown, unused = modules - known, {name for name in wanted if "." in name}
    for name in sorted(modules & known):
        for document in _topics() if name == TOPICS else _module_documents(name):
            chosen = {want for want in wanted if f"{document.doc_id}.".startswith(f"{want}.")}
            unused -= chosen
            if chosen or not wanted:
                yield document
    if selection.startswith("@"):
        unused.clear()
    if missing := sorted(unknown | {name for name in unused if name.partition(".")[0] not in unknown}):
        raise MalformedInput(
            f"not documented in this Python's library: {', '.join(missing)}; give names as in `json` or "
            f"`os.path.join`; built-in types are in {BUILTINS}, the language reference in {TOPICS}"
        )


def _wanted(selection: str) -> set[str]:
    if selection.startswith("@"):
        try:
            lines = Path(selection[1:]).read_text("utf8").splitlines()
        except (OSError, ValueError) as error:
            raise MalformedInput(f"cannot read the list of modules {selection[1:]}: {error}") from error
        selection = ",".join(line.partition("#")[0] for line in lines)
    return {name.strip() for name in selection.split(",") if name.strip()}


def _library() -> Iterator[str]:
    for name in sys.stdlib_module_names:
        if not name.startswith("_") and name not in _LEFT_OUT and _source(name) is not None:
            yield name


def _source(name: str) -> Path | None:
    """The source file of a top-level library module, or its package's __init__.py."""
    library = Path(sysconfig.get_path("stdlib"))
    candidates = (library / f"{name}.py", library / name / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _module_documents(name: str) -> Iterator[Document]:
    """A module's documents by id; of two with the same name the longer text stays."""
    best: dict[str, Document] = {}
    for document in [*_from_source(name), *_from_c(name)]:
        known = best.get(document.doc_id)
        if known is None or len(document.text) > len(known.text):
            best[document.doc_id] = document
    for doc_id in sorted(best):
        yield best[doc_id]


def _document(qualified: str, signature: str, doc: str | None) -> Iterator[Document]:
    text = inspect.cleandoc(doc or "").strip()
    if len(text) >= MIN_CHARS:
        shown = qualified.removeprefix(f"{BUILTINS}.")
        yield Document(qualified, f"{shown}{_shortened(signature)}", text)


def _shortened(signature: str) -> str:
    """The signature on one line; a long one ends at a parameter, because the title is in every passage."""
    line = " ".join(signature.split())
    if len(line) <= MAX_SIGNATURE_CHARS:
        return line
    return line[:MAX_SIGNATURE_CHARS].rpartition(",")[0] + ", …)"


def _from_source(name: str) -> Iterator[Document]:
    source = _source(name)
    if source is None:
        return
    files = {name: source} | ({"os.path": source.with_name("posixpath.py")} if name == "os" else {})
    if source.name == "__init__.py":
        files |= _submodules(name, source.parent)
    trees = {module: ast.parse(path.read_bytes()) for module, path in sorted(files.items())}
    exported = _exports(name, trees)
    for module, tree in trees.items():
        yield from _document(module, "", ast.get_docstring(tree, clean=False))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                owner = name if node.name in exported.get(module, ()) else module
                yield from _from_node(owner, node)


def _submodules(name: str, folder: Path) -> dict[str, Path]:
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        private = any(part.startswith(("_", "test_")) or part in _TEST_PARTS for part in parts)
        if parts and not private:
            found[".".join((name, *parts))] = path
    return found


def _exports(package: str, trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Names that a package takes from its submodules: `asyncio.gather` is written in asyncio.tasks."""
    exported: dict[str, set[str]] = {}
    for node in trees[package].body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            module = f"{package}.{node.module}"
            names = {alias.name for alias in node.names}
            if names == {"*"} and module in trees:
                names = _all_of(trees[module])
            exported.setdefault(module, set()).update(names)
    return exported


def _all_of(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple | ast.List):
            continue
        if any(getattr(target, "id", "") == "__all__" for target in node.targets):
            return {str(e.value) for e in node.value.elts if isinstance(e, ast.Constant)}
    return set()


def _from_node(owner: str, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Document]:
    if node.name.startswith("_"):
        return
    qualified, doc = f"{owner}.{node.name}", ast.get_docstring(node, clean=False)
    if not isinstance(node, ast.ClassDef):
        is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
        yield from _document(qualified, "" if is_property else _signature(node), doc)
        return
    inits = (c for c in node.body if isinstance(c, ast.FunctionDef) and c.name == "__init__")
    yield from _document(qualified, next(map(_signature, inits), ""), doc)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _from_node(qualified, child)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The parameters as written, without `self` and without annotations."""
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        argument.annotation = None
    for star in (arguments.vararg, arguments.kwarg):
        if star is not None:
            star.annotation = None
    return f"({re.sub(r'^(self|cls)(, /)?(, |$)', '', ast.unparse(arguments))})"


def _from_c(name: str) -> Iterator[Document]:
    for part in C_PARTS.get(name, ()):
        try:
            module = importlib.import_module(part)
        except ImportError:
            continue  # of another platform
        yield from _document(name, "", module.__doc__)
        for attribute in sorted(vars(module)):
            yield from _from_object(name, attribute, vars(module)[attribute])


def _from_object(owner: str, name: str, thing: object) -> Iterator[Document]:
    if name.startswith("_") or isinstance(thing, ModuleType) or not (callable(thing) or _is_property(thing)):
        return
    if owner != BUILTINS and getattr(builtins, name, None) is thing:
        return  # `io.open` is `open`
    qualified = f"{owner}.{name}"
    signature, doc = _c_doc(name, thing)
    yield from _document(qualified, signature, doc)
    if isinstance(thing, type):
        for attribute in sorted(vars(thing)):
            yield from _from_object(qualified, attribute, vars(thing)[attribute])


def _is_property(thing: object) -> bool:
    return inspect.isgetsetdescriptor(thing) or inspect.ismemberdescriptor(thing)


def _c_doc(name: str, thing: object) -> tuple[str, str | None]:
    """Signature and text: from `__text_signature__`, or from the doc string's first line where it is one."""
    thing = thing.__func__ if isinstance(thing, staticmethod | classmethod) else thing
    doc = getattr(thing, "__doc__", None)
    doc = doc if isinstance(doc, str) else None
    text_signature = getattr(thing, "__text_signature__", None)
    if isinstance(text_signature, str):
        return re.sub(r"\(\$(self|module|type|cls)(, /)?(, )?", "(", text_signature), doc
    first = (doc or "").strip().splitlines()[:1]
    match = re.match(rf"(?:\w+\.)?{re.escape(name)}(\([^)]*\))", first[0]) if first else None
    return (match.group(1) if match else ""), doc


def _topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        text = str(topics[name]).strip()
        heading = text.splitlines()[0].strip() if text else ""
        if len(text) >= MIN_CHARS:
            yield Document(f"{TOPICS}.{name.replace(' ', '_')}", f"Python language: {heading}", text)

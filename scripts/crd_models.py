"""JSON Schema from Python models that were generated from an operator's CRDs (cloudcoil's packages). The models are
read as text: nothing of them is run."""

from __future__ import annotations

import ast
from typing import Any, Final

Schema = dict[str, Any]

_SIMPLE: Final[dict[str, Schema]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "AwareDatetime": {"type": "string"},
    "Base64Str": {"type": "string"},
    "ObjectMeta": {"type": "object"},
    "Any": {},
}
_NUMBERS: Final = {"ge": "minimum", "le": "maximum", "pattern": "pattern"}
_LENGTHS: Final = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}


class Models:
    """The models of one module.

    Raises:
        ValueError: of `schema`: a field's type is one that this reader does not know.
    """

    def __init__(self, source: str) -> None:
        self._classes = {each.name: each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)}

    def schema(self, name: str) -> Schema:
        """The schema of a class and of all that it contains."""
        body = self._classes[name].body
        fields = {
            each.target.id: each
            for each in body
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and not _is_of_class(each)
        }
        if "root" in fields:
            return self._typed(fields["root"].annotation)
        found: Schema = {"type": "object", "properties": {}}
        for field, node in fields.items():
            found["properties"][_alias(node.annotation) or field] = self._typed(node.annotation)
        found["required"] = [_alias(node.annotation) or field for field, node in fields.items() if node.value is None]
        if any("extra='allow'" in ast.unparse(each) for each in body if isinstance(each, ast.Assign)):
            found["additionalProperties"] = True
        return found

    def _typed(self, node: ast.expr) -> Schema:
        match node:
            case ast.Name(id=name) if name in _SIMPLE:
                return dict(_SIMPLE[name])
            case ast.Name(id=name) if name in self._classes:
                return self.schema(name)
            case ast.BinOp(op=ast.BitOr()):
                options = [self._typed(each) for each in _options(node)]
                return options[0] if len(options) == 1 else {"anyOf": options}
            case ast.Subscript(value=ast.Name(id=name)):
                return self._generic(name, node.slice)
        raise ValueError(f"a type that is not known here: {ast.unparse(node)}")

    def _generic(self, name: str, inside: ast.expr) -> Schema:
        parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        match name:
            case "list":
                return {"type": "array", "items": self._typed(parts[0])}
            case "dict":
                return {"type": "object", "additionalProperties": self._typed(parts[1])}
            case "Literal":
                return {"enum": [ast.literal_eval(each) for each in parts]}
            case "Annotated":
                schema = self._typed(parts[0])
                return schema | _limits(parts[1], str(schema.get("type")))
        raise ValueError(f"a type that is not known here: {name}[{ast.unparse(inside)}]")


def _is_of_class(node: ast.AnnAssign) -> bool:
    return ast.unparse(node.annotation).startswith("ClassVar")


def _options(node: ast.expr) -> list[ast.expr]:
    """The alternatives of `A | B | None`, without None: a manifest leaves a field out."""
    if isinstance(node, ast.BinOp):
        return _options(node.left) + _options(node.right)
    return [] if isinstance(node, ast.Constant) and node.value is None else [node]


def _keywords(call: ast.expr) -> dict[str, Any]:
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return {each.arg: ast.literal_eval(each.value) for each in keywords if each.arg}


def _alias(annotation: ast.expr) -> str:
    """The field's name in a manifest, where the model has another."""
    if not (isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple)):
        return ""
    return str(_keywords(annotation.slice.elts[1]).get("alias", ""))


def _limits(call: ast.expr, kind: str) -> Schema:
    given = _keywords(call)
    least, most = _LENGTHS.get(kind, ("minLength", "maxLength"))
    names = {**_NUMBERS, "min_length": least, "max_length": most}
    return {names[key]: value for key, value in given.items() if key in names}

"""How an encoder reads texts and how its vectors are compared, told from its folder without loading it: prompts and
similarity of a bi-encoder, and maximum lengths.

Vectors of one model under other prompts, another length or another norm are another space, so fingerprints name them,
where they are not what every index had before they were applied: no prompt, at most 256 tokens, unit length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeVar

from qrelay.identity import digest
from qrelay.models.records import ResolvedModel
from qrelay.parsing import json_document

_Kind = TypeVar("_Kind", dict[str, Any], list[Any], str)
CONFIG: Final = "config_sentence_transformers.json"
PAIR_TOKENS: Final = 384
"""Of query and passage together, where neither a cross-encoder's files nor the settings name a length."""
_PLAIN_TOKENS: Final = 256
_MOST_TOKENS: Final = 1 << 20
"""Above it a tokenizer's own limit is the library's word for "none"."""
_PROMPTS: Final = ("query", "document", "passage", "corpus")
"""Those of which `encode_query` and `encode_document` take one."""


def space(model: ResolvedModel) -> str:
    """The identity of the model's vectors, computed in torch."""
    return f"{model.name}@{model.revision}{encoding(model.path)}"


def encoding(folder: Path) -> str:
    """ "" for a model without prompts that reads at most 256 tokens and compares by cosine, else a suffix for its
    fingerprint."""
    config = _read(folder / CONFIG, {})
    told, default = _of(dict, config.get("prompts")), _of(str, config.get("default_prompt_name"))
    prompts = {name: told[name] for name in (*_PROMPTS, default) if told.get(name)}
    tokens, dot = own_length(folder), ["dot"] if config.get("similarity_fn_name") == "dot" else []
    if not prompts and tokens <= _PLAIN_TOKENS and not dot:
        return ""
    return f"+encoding-{digest(json.dumps([prompts, tokens, *dot], sort_keys=True))[:8]}"


def own_length(folder: Path, default: int = _PLAIN_TOKENS) -> int:
    """Tokens of a text, or of a cross-encoder's pair, that the model reads, by the files that sentence-transformers
    reads; `default` where they name no number."""
    first = next(iter(_read(folder / "modules.json", [])), None)
    part = folder / _of(str, _of(dict, first).get("path"))
    named = [_tokens(path, "max_seq_length") for path in _files(part, "sentence_*_config.json")]
    if not any(named):
        limits = {"tokenizer_config.json": "model_max_length", "config.json": "max_position_embeddings"}
        named = [_tokens(part / file, name) for file, name in limits.items()]
    return min((each for each in named if each), default=default)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Those of the folder; none where its name is no path."""
    try:
        return list(folder.glob(pattern))
    except (OSError, ValueError):
        return []


def _tokens(path: Path, name: str) -> int:
    """The length that the file names; 0: none."""
    found = _read(path, {}).get(name)
    return int(found) if isinstance(found, int | float) and 1 <= found <= _MOST_TOKENS else 0


def _of(kind: type[_Kind], value: Any) -> _Kind:
    """The value where it is of the kind, else an empty one."""
    return value if isinstance(value, kind) else kind()


def pair_length(folder: Path, most: int = 0) -> int:
    """Tokens of query and passage together at which a cross-encoder's pair is cut, wherever it is scored: what the
    model reads, and no more than `most`; 0: no limit but its own."""
    own = own_length(folder, most or PAIR_TOKENS)
    return min(own, most or own)


def _read(path: Path, empty: Any) -> Any:
    """The file's JSON; `empty` where it is no such thing: loading the model says what is wrong with it."""
    try:
        found = json_document(path.read_bytes())
    except (OSError, ValueError):
        return empty
    return _of(type(empty), found)

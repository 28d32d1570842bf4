"""How a bi-encoder wants texts encoded, read from its folder without loading it: its prompts and its maximum length.

Vectors of one model under other prompts or another length are another space, so fingerprints name both, where they
are not what every index had before either was applied: no prompt, and at most 256 tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from qrelay.identity import digest
from qrelay.models.records import ResolvedModel
from qrelay.parsing import json_document

_PLAIN_TOKENS: Final = 256
_MOST_TOKENS: Final = 1 << 20
"""Above it a tokenizer's own limit is the library's word for "none"."""
_PROMPTS: Final = ("query", "document", "passage", "corpus")
"""Those of which `encode_query` and `encode_document` take one."""


def space(model: ResolvedModel) -> str:
    """The identity of the model's vectors, computed in torch."""
    return f"{model.name}@{model.revision}{encoding(model.path)}"


def encoding(folder: Path) -> str:
    """ "" for a model without prompts that reads at most 256 tokens, else a suffix for its fingerprint."""
    config = _read(folder / "config_sentence_transformers.json", {})
    told, default = config.get("prompts") or {}, config.get("default_prompt_name") or ""
    prompts = {name: told[name] for name in (*_PROMPTS, default) if told.get(name)}
    tokens = own_length(folder)
    if not prompts and tokens <= _PLAIN_TOKENS:
        return ""
    return f"+encoding-{digest(json.dumps([prompts, tokens], sort_keys=True))[:8]}"


def own_length(folder: Path, default: int = _PLAIN_TOKENS) -> int:
    """Tokens of a text, or of a cross-encoder's pair, that the model reads, by the files that sentence-transformers
    reads; `default` where they name no number."""
    part = folder / next((each.get("path", "") for each in _read(folder / "modules.json", [])), "")
    named = [_read(path, {}).get("max_seq_length") for path in part.glob("sentence_*_config.json")]
    if not any(named):
        limits = {"tokenizer_config.json": "model_max_length", "config.json": "max_position_embeddings"}
        named = [_read(part / file, {}).get(name) for file, name in limits.items()]
    return min((int(each) for each in named if each and 0 < each <= _MOST_TOKENS), default=default)


def _read(path: Path, empty: Any) -> Any:
    """The file's JSON; `empty` where it is no such thing: loading the model says what is wrong with it."""
    try:
        found = json_document(path.read_bytes())
    except (OSError, ValueError):
        return empty
    return found if isinstance(found, type(empty)) else empty

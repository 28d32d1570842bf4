"""Which family a language model is of, by its name and what the catalogue says of its origin.

A judge grades answers of its own family higher (Panickssery et al., "LLM evaluators recognize and favor their own
generations", NeurIPS 2024), and shares its errors, so the grader must
not be of the family of the judge that labelled the training data.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from qrelay.errors import ConfigError

_SPELLINGS: Final = {
    "qwen": ("qwen", "qwq"),
    "smollm": ("smollm",),
    "llama": ("llama", "vicuna", "alpaca", "tulu"),
    "mistral": ("mistral", "mixtral", "ministral", "magistral", "codestral", "zephyr"),
    "google": ("gemma", "gemini", "flan", "t5"),
    "phi": ("phi",),
    "openai": ("gpt", "gpt4o", "openai", "o1", "o3", "o4", "chatgpt"),
    "anthropic": ("claude", "anthropic"),
    "deepseek": ("deepseek",),
    "cohere": ("command", "cohere", "aya"),
    "falcon": ("falcon",),
    "olmo": ("olmo", "olmoe"),
    "granite": ("granite",),
    "glm": ("glm", "chatglm"),
    "yi": ("yi",),
    "nemotron": ("nemotron",),
    "kimi": ("kimi", "moonshot"),
    "internlm": ("internlm",),
    "fake": ("fake",),
}
_WORD: Final = re.compile(r"[a-z0-9]+")


def families(model: str) -> frozenset[str]:
    """The families of a model: several where it is distilled from another's ("deepseek-r1-distill-qwen-7b"). A name
    that says none is a family of its own, by its first word. model: a catalogue name, `path:…`, or an endpoint's."""
    own = PurePosixPath(model.removeprefix("path:")).name if model.startswith("path:") else model
    words = {word for each in (own, *_origins(model)) for word in _words(each)}
    known = {
        family
        for family, spellings in _SPELLINGS.items()
        if any(_spells(word, each) for word in words for each in spellings)
    }
    return frozenset(known) or frozenset({next(iter(_words(PurePosixPath(own).name)), model.lower())})


def refuse_kin(grader: str, miners: tuple[str, ...]) -> None:
    """Raises ConfigError: the grader is of a family of one of the judges that mined."""
    for miner in miners:
        if shared := families(grader) & families(miner):
            raise ConfigError(
                f"the grader {grader} is of the family {', '.join(sorted(shared))}, as the judge {miner} that"
                " labelled the training data: it would favour what a related model labelled. Name a --grader of"
                " another family, or give --same-family"
            )


def _origins(model: str) -> tuple[str, ...]:
    """The hub's names of a catalogue model."""
    from qrelay.models.catalogue import load_catalogue

    entry = load_catalogue().get(model)
    return tuple(source.hub.repo for source in entry.sources if source.hub) if entry else ()


def _words(name: str) -> list[str]:
    """Runs of letters and digits: "Qwen2.5-Coder" -> qwen2, 5, coder."""
    return _WORD.findall(name.lower())


def _spells(word: str, family: str) -> bool:
    """Whether a word of a name says the family: the word, a version behind it, or a long one within it."""
    return family in (word, word.rstrip("0123456789")) or (len(family) > 3 and family in word)

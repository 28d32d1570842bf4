"""Texts to token ids and back with a model's own tokenizer, for the engines that take ids.

Context and target are tokenised apart and joined, so that a target's tokens are the same after every context and
exactly its own log-probabilities are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from qrelay.errors import MalformedInput, ModelError, Oversized, QrelayError
from qrelay.llm.exchange import GENERATION, PROMPT_LOGPROBS, TOKEN_LOGPROBS
from qrelay.llm.prefixes import TokenQuery
from qrelay.llm.replies import encodable

_SAY = "be kind"


class Tokens:
    """See the module."""

    def __init__(self, tokenizer: Any, context_tokens: int, remedy: str) -> None:
        """tokenizer: of transformers. context_tokens: of one question; `remedy` names the setting to raise."""
        self._tokenizer = tokenizer
        self._limit = context_tokens
        self._remedy = remedy
        self.has_template = bool(tokenizer.chat_template)
        """Whether the model can chat."""
        self._takes_system = self.has_template and self._renders_system()
        bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        self._start = next((each for each in (bos, eos, pad) if each is not None), 0)
        given = tokenizer(_SAY).input_ids
        self._spellings: dict[tuple[str, ...], frozenset[int]] = {}
        self._always_starts = bos is not None and given[:1] == [bos]

    @classmethod
    def load(cls, folder: Path, context_tokens: int, remedy: str) -> Self:
        """The tokenizer of a Hugging Face folder.

        Raises:
            ModelError: there is none.
        """
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), context_tokens, remedy)
        except Exception as error:
            raise ModelError(
                f"transformers finds no usable tokenizer in {folder} ({type(error).__name__}): give a complete folder"
            ) from error

    @property
    def start_name(self) -> str:
        """How a target without context begins, for the decoding's text."""
        return str(self.text([self._start]))

    def decodings(self, engine: str, *, top: str, generates: bool = True) -> dict[str, str]:
        """capability -> decoding of an engine that reads these tokens. top: what it reads of a first token;
        generates: whether it writes replies too, where the model can chat."""
        named = {PROMPT_LOGPROBS: f"{engine};start={self.start_name};temperature=1"}
        if self.has_template:
            chat = f"{engine};chat-template=model;temperature=0"
            named[TOKEN_LOGPROBS] = f"{chat};max_tokens=1;top_logprobs={top}"
            if generates:
                named[GENERATION] = f"{chat};thinking=off"
        return named

    def of_chat(self, messages: Sequence[dict[str, str]], *, room: int = 1) -> TokenQuery | QrelayError:
        """The ids of a chat in the model's template, thinking off, up to where the reply begins. `room`: tokens
        that the reply may take."""
        said = [{"role": each["role"], "content": encodable(each["content"])} for each in messages]
        if not self._takes_system:
            said = _without_system(said)
        try:
            ids = self._tokenizer.apply_chat_template(
                said, add_generation_prompt=True, enable_thinking=False, return_dict=False
            )
        except Exception as error:  # a template is a program of the model's author
            return MalformedInput(f"the model's chat template refused the messages ({type(error).__name__})")
        return self._checked(tuple(ids), range(len(ids) - 1, len(ids)), room)

    def of_continuation(self, context: str, target: str, *, shared: bool = False) -> TokenQuery | QrelayError:
        """The ids of both, joined; read before each of the target's tokens. shared: see `TokenQuery`."""
        head, tail = self._plain(context), self._plain(target)
        if not tail:
            return MalformedInput("the target has no tokens: give one that is not empty")
        if self._always_starts or not head:
            head = (self._start, *head)
        return self._checked(head + tail, range(len(head) - 1, len(head) + len(tail) - 1), 0, shared)

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(encodable(text), add_special_tokens=False, split_special_tokens=True).input_ids)

    def _checked(
        self, ids: tuple[int, ...], wanted: range, room: int, shared: bool = False
    ) -> TokenQuery | QrelayError:
        if len(ids) + room > self._limit:
            return Oversized(
                f"the question has {len(ids) + room} tokens and does not fit the context of {self._limit}: shorten "
                f"the passages or {self._remedy}"
            )
        return TokenQuery(ids, wanted, shared)

    def text(self, ids: Sequence[int]) -> str:
        """What the ids spell, control tokens included; the end of a reply is not among them."""
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def spellings(self, labels: tuple[str, ...]) -> frozenset[int]:
        """The ids of the labels, with and without a blank before, that are one token."""
        found = self._spellings.get(labels)
        if found is None:
            read = [self._plain(before + label) for label in labels for before in ("", " ")]
            found = self._spellings[labels] = frozenset(ids[0] for ids in read if len(ids) == 1)
        return found

    def ends(self, models: int | list[int] | None) -> list[int]:
        """The ids that end a reply: those that the model names, and the tokenizer's."""
        named = models if isinstance(models, list) else [models]
        found = [each for each in (self._tokenizer.eos_token_id, *named) if each is not None]
        return list(dict.fromkeys(found)) or [self._start]

    def guide(self, choices: Iterable[str], prompt_tokens: int, end: int) -> Callable[[int, Any], list[int]]:
        """For `generate(prefix_allowed_tokens_fn=)`: after what is written, the tokens that lead to a choice."""
        paths = [(*self._plain(choice), end) for choice in choices]

        def allowed(_: int, written: Any) -> list[int]:
            so_far = tuple(written[prompt_tokens:].tolist())
            steps = {path[len(so_far)] for path in paths if path[: len(so_far)] == so_far and len(path) > len(so_far)}
            return sorted(steps) or [end]

        return allowed

    def _renders_system(self) -> bool:
        chat = [{"role": "system", "content": _SAY}, {"role": "user", "content": "hello"}]
        try:
            return _SAY in self._tokenizer.apply_chat_template(chat, tokenize=False)
        except Exception:  # Gemma's template raises at a system message
            return False


def _without_system(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """System messages at the head of the user's message that follows."""
    merged, before = list[dict[str, str]](), ""
    for each in messages:
        if each["role"] == "system":
            before += f"{each['content']}\n\n"
        else:
            merged.append({"role": each["role"], "content": before + each["content"]})
            before = ""
    return merged

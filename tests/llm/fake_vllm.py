"""An HTTP endpoint that answers as vLLM's server does, without a model, and that goes wrong as asked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from tests.llm.endpoint import Answer, ScriptedEndpoint, answer

# fmt: off
NEXT: Final = {
    "The": 0.5, "3": 0.2, " 3": 0.1, "2": 0.05, "YES": 0.04, "yes": 0.03, " NO": 0.02, "1": 0.01, "0": 0.003,
}
# fmt: on
"""What comes next, whatever came before; every other token has RARE."""
RARE: Final = 1e-4
TOKEN: Final = re.compile(r" ?\w+|\s|[^\w\s]")
CONTEXT: Final = 400
"""Tokens of its context."""

NO_TOKENIZE: Final = "no /tokenize"
OTHER_TOKENIZE: Final = "a /tokenize that answers otherwise"
IDS_IGNORED: Final = "logprob_token_ids ignored"
IDS_REFUSED: Final = "logprob_token_ids refused"
IDS_RENORMALISED: Final = "probabilities over the asked ids alone"
IDS_LACKING: Final = "-9999 for an id"
NO_SCORING: Final = "no /generative_scoring"
SCORING_RENORMALISED: Final = "a share of the asked ids alone"
PROMPT_IGNORED: Final = "prompt_logprobs ignored"
PROMPT_SHIFTED: Final = "each token's log-probability is its neighbour's"
ECHO_BARE: Final = "an echo without log-probabilities"
ECHO_REFUSED: Final = "echo refused"
NO_COMPLETIONS: Final = "no /v1/completions"
NO_LOGPROBS: Final = "logprobs refused"
DOWN: Final = "503"
WRONG_KEY: Final = "401"


class FakeVllm(ScriptedEndpoint):
    """See the module. `faults`: what goes wrong, of the constants above."""

    def __init__(self, *faults: str) -> None:
        super().__init__()
        self.faults = set(faults)
        self.default = self._answer
        self._ids: dict[str, int] = {}

    def ids(self, text: str) -> list[int]:
        """The tokens of a text."""
        return [self._ids.setdefault(token, 100 + len(self._ids)) for token in TOKEN.findall(text)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.asked)  # type: ignore[attr-defined]
        found: Callable[[Any], Answer] | None = {
            "/tokenize": self._tokenize,
            "/generative_scoring": self._scoring,
            "/v1/completions": self._completion,
            "/v1/chat/completions": self._completion,
            "/version": lambda _: answer(200, {"version": "0.32.0"}),
        }.get(handler.path)
        if DOWN in self.faults:
            return answer(503, {"error": {"message": "starting"}})(handler)
        if WRONG_KEY in self.faults:
            return answer(401, {"error": {"message": "who are you"}})(handler)
        return (found(asked) if found else answer(404, {"detail": "Not Found"}))(handler)

    def _tokenize(self, asked: Any) -> Answer:
        if NO_TOKENIZE in self.faults:
            return answer(404, {"detail": "Not Found"})
        if OTHER_TOKENIZE in self.faults:  # llama.cpp's, which reads `content`
            return answer(200, {"tokens": []})
        ids = self.ids(_text(asked))
        shown = self._shown(ids)
        return answer(200, {"count": len(ids), "max_model_len": CONTEXT, "tokens": ids, "token_strs": shown})

    def _shown(self, ids: list[int]) -> list[str]:
        texts = {number: text for text, number in self._ids.items()}
        return [texts[each].replace(" ", "\u0120").replace("\n", "\u010a") for each in ids]

    def _p(self, number: int) -> float:
        texts = {each: text for text, each in self._ids.items()}
        return NEXT.get(texts.get(number, ""), RARE)

    def _scoring(self, asked: Any) -> Answer:
        if NO_SCORING in self.faults:
            return answer(404, {"detail": "Not Found"})
        assert asked["apply_softmax"] is False
        share = 1.0 if SCORING_RENORMALISED in self.faults else self._p(asked["label_token_ids"][0])
        return answer(200, {"model": "m", "data": [{"index": 0, "object": "score", "score": share}]})

    def _completion(self, asked: Any) -> Answer:
        chat = "messages" in asked
        if not chat and NO_COMPLETIONS in self.faults:
            return answer(404, {"detail": "Not Found"})
        wrong = {"logprobs": NO_LOGPROBS, "logprob_token_ids": IDS_REFUSED, "echo": ECHO_REFUSED}
        refused = next((name for name, fault in wrong.items() if name in asked and fault in self.faults), "")
        if refused:
            return answer(400, {"error": {"message": f"{refused} is not supported", "param": refused}})
        prompt = asked.get("prompt")
        ids = prompt if isinstance(prompt, list) else self.ids(_text(asked))
        choice = self._chat_choice(asked) if chat else self._text_choice(asked, ids)
        if asked.get("prompt_logprobs") is not None and PROMPT_IGNORED not in self.faults:
            choice["prompt_logprobs"] = self._of_prompt(ids)
        return answer(200, {"model": "m", "choices": [choice], "usage": {"prompt_tokens": len(ids)}})

    def _of_prompt(self, ids: list[int]) -> list[Any]:
        read = [ids[-1], *ids[:-1]] if PROMPT_SHIFTED in self.faults else ids
        rows = [{str(each): {"logprob": math.log(self._p(of))}} for each, of in zip(ids, read, strict=True)]
        return [None, *rows[1:]]

    def _listed(self, asked: Any) -> dict[str, float]:
        """Token -> log-probability of what is asked for: the likeliest, or the ids and the chosen one."""
        wanted = [] if IDS_IGNORED in self.faults else asked.get("logprob_token_ids") or []
        if not wanted:
            top = asked.get("top_logprobs") or asked.get("logprobs") or 0
            return {text: math.log(p) for text, p in list(NEXT.items())[: int(top)]}
        shares = {each: self._p(each) for each in dict.fromkeys([*self.ids("The"), *wanted])}
        if IDS_RENORMALISED in self.faults:
            total = sum(self._p(each) for each in wanted)
            shares |= {each: self._p(each) / total for each in wanted}
        found = {f"token_id:{each}": math.log(share) for each, share in shares.items()}
        if IDS_LACKING in self.faults:
            found[f"token_id:{wanted[-1]}"] = -9999.0
        return found

    def _chat_choice(self, asked: Any) -> dict[str, Any]:
        choice: dict[str, Any] = {"message": {"content": "The"}, "finish_reason": "length", "logprobs": None}
        if asked.get("logprobs"):
            top = [{"token": text, "logprob": value, "bytes": list(text.encode())} for text, value in
                   self._listed(asked).items()]  # fmt: skip
            choice["logprobs"] = {"content": [{"token": "The", "logprob": math.log(0.5), "top_logprobs": top}]}
        return choice

    def _text_choice(self, asked: Any, ids: list[int]) -> dict[str, Any]:
        name = f"token_id:{self.ids('The')[0]}" if asked.get("return_tokens_as_token_ids") else "The"
        tokens, values, text = [name], [math.log(0.5)], "The"
        if asked.get("echo"):
            before = TOKEN.findall(_text(asked))
            tokens, text = [*before, *tokens], _text(asked) + text
            values = [None, *(math.log(self._p(each)) for each in ids[1:]), *values]  # type: ignore[list-item]
        bare = asked.get("logprobs") is None or (asked.get("echo") and ECHO_BARE in self.faults)
        shown = {"tokens": tokens, "token_logprobs": values, "top_logprobs": [self._listed(asked)]}
        return {"text": text, "finish_reason": "length", "logprobs": None if bare else shown}


def _text(asked: Any) -> str:
    """What a request says, its chat in a template of lines."""
    if "messages" in asked:
        return "\n".join(each["content"] for each in asked["messages"]) + "\n"
    return str(asked["prompt"])

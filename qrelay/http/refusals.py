"""The one place where an endpoint's refusal is classified: status, codes and words become an error.

    408, 409, 423 to 425, 5xx             BackendUnavailable   tried again
    429                                   RateLimited          tried again, after the pause that it asks for
    content filter                        ContentFiltered      this passage is missing at once
    413, "context length"                 Oversized            this passage is missing at once
    400 or 422 that names a parameter     ParameterRefused     whoever asked may ask otherwise, see `Connection.ask`
    401 to 405, 410, 3xx, a used-up quota EndpointRefuses      no passage's fault: held until somebody acts
    any other 4xx                         Unexplained          the passage's fault where others are answered

Endpoints say the same in many ways: an `error` object or a text, in the body, beside it (FastAPI's `detail`), in a
list, in a choice, or with status 200. Codes, types and parameter names are shown, as they hold no passage; an
endpoint's sentences are shown only where it refuses the account.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from qrelay.errors import (
    BackendUnavailable,
    ContentFiltered,
    EndpointRefuses,
    Oversized,
    QrelayError,
    RateLimited,
    RequestRefused,
)
from qrelay.http.names import Names
from qrelay.http.ratelimits import Wait

_TOO_LONG: Final = (
    "exceed_context_size_error",
    "context_length_exceeded",
    "context_window_exceeded",
    "string_above_max_length",
    "request_too_large",
    "maximum context length",
    "max_model_len",
    "prompt is too long",
    "input is too long",
)
_FILTER: Final = re.compile(
    r"content_?filter|content_?policy|responsibleai|moderation|prohibited_?content|data_?inspection|safety|flagged"
)
_QUOTA: Final = re.compile(
    r"insufficient_|billing|arrearage|account_(deactivated|suspended)|out_of_credits|payment_required"
)
_ACCOUNT: Final = re.compile(r"invalid_api_key|authentication|permission_?(error|denied)|model_not_found")
_ACCOUNT_SAYS: Final = re.compile(
    r"(?i)credit balance is|insufficient (balance|credits)|api key (is )?(not valid|invalid|expired)|invalid api key"
    r"|account .{0,40}(good standing|overdue|suspended|deactivated)"
)
"""What endpoints say of the account without a code for it, in a plain sentence that holds no passage."""
_TRANSIENT: Final = frozenset({408, 409, 423, 424, 425})
_REFUSES: Final = frozenset({401, 402, 403, 404, 405, 410})
_BAD_REQUEST: Final = re.compile(r"invalid_?(request|argument|parameter)|bad_?request|unsupported|unknown_parameter")
_NEVER_PARAMETERS: Final = frozenset({"model", "messages", "prompt", "input", "inputs"})
_WORD: Final = re.compile(r"[\w.\-\[\]/:]{1,64}")
_SAYS_NO: Final = (
    r"unsupported|not supported|not support|unknown|unrecogni[sz]ed|unexpected|extra|invalid|must be|only|"
    r"not permitted|not allowed|at most|maximum|less than|range|deprecated|between|exceeds|expected"
)
_READ_CHARS: Final = 400
_SHOWN_CHARS: Final = 200
_REPEATED: Final = 12
"""Characters that a message has in common with a request only by quoting it."""
_DEEPEST: Final = 6


class ParameterRefused(Exception):
    """The endpoint refuses a parameter of the request. limit: the largest value that it says it takes, else None."""

    def __init__(self, parameter: str, limit: int | None, shown: str) -> None:
        super().__init__(shown)
        self.parameter, self.limit = parameter, limit


class Unexplained(RequestRefused):
    """A request that was not answered, without a reason. otherwise: the error where no other request is answered
    either, so that the endpoint is to blame and not the passage."""

    def __init__(self, message: str, otherwise: QrelayError) -> None:
        super().__init__(message)
        self.otherwise = otherwise


def failure_of(status: int, body: Any) -> tuple[int, dict[str, Any]] | None:
    """The status and error object of an answer that is a refusal; None: it is none. A status of 200 with an error in
    its body gets the one that the error names."""
    failure = _error_object(body)
    if status < 300:
        if failure is None:
            return None
        status = _status_in(failure)
    elif failure is None:
        failure = body if isinstance(body, dict) else {}
    return status, failure


def _error_object(body: Any) -> dict[str, Any] | None:
    if isinstance(body, list) and body:
        return _error_object(body[0])
    if not isinstance(body, dict):
        return None
    found = body.get("error")
    choices = body.get("choices")
    if not found and isinstance(choices, list) and choices and isinstance(choices[0], dict):
        found = choices[0].get("error")
    if not found and body.get("object") == "error":
        found = body
    if not found:
        return None
    return found if isinstance(found, dict) else {"message": str(found)}


def _status_in(failure: Mapping[str, Any]) -> int:
    """The HTTP status that an error object names; where it names none, what its codes amount to."""
    named = [str(failure.get(key)) for key in ("code", "status")]
    found = next((int(each) for each in named if re.fullmatch(r"[45]\d\d", each, re.ASCII)), 0)
    return found or (400 if _BAD_REQUEST.search(" ".join(_codes(failure)).lower()) else 500)


def classified(
    status: int,
    failure: Mapping[str, Any],
    request: Mapping[str, Any],
    wait: Wait | None,
    *,
    names: Names,
    secret: str,
    retry_s: float,
) -> Exception:
    """The error of a refusal of `request`. secret: the API key, shown nowhere. retry_s: seconds after which an
    endpoint that refuses the account is asked again."""
    shown = described(status, failure)
    codes = " ".join(_codes(failure)).lower()
    seconds = None if wait is None else wait.seconds
    if _FILTER.search(codes) or _flagged(failure):
        return ContentFiltered(f"the endpoint's content filter refused the {names.one}: {shown}")
    if is_too_long(failure):
        return too_long(failure, "use a model with a longer context")
    if status == 413:
        return Oversized(f"the request is too large for the endpoint ({shown}): shorten the {names.one}s")
    accused = _QUOTA.search(codes) or _ACCOUNT.search(codes) or (status == 400 and _accuses(failure.get("message")))
    if status in _REFUSES or 300 <= status < 400 or accused:
        said = _quotable(failure, request, secret)
        return EndpointRefuses(_account(status, said, failure, shown, names), retry_after_s=retry_s)
    asked = "" if wait is None else f", {wait.header}"
    if status == 429:
        return RateLimited(f"the endpoint answered {shown}, too many requests{asked}", retry_after_s=seconds)
    if status in _TRANSIENT or status >= 500:
        return BackendUnavailable(f"the endpoint answered {shown}{asked}", retry_after_s=seconds)
    parameter = _parameter(failure, request)
    if parameter:
        return ParameterRefused(parameter, _limit(failure, request[parameter]), shown)
    everything = f"the endpoint refuses every request with {shown}: check {names.model} and {names.section}"
    this = f"the endpoint refused the request with {shown}, though it answers others"
    return Unexplained(this, EndpointRefuses(everything, retry_after_s=retry_s))


def described(status: int, failure: Mapping[str, Any]) -> str:
    """Status, code, type and parameter of a refusal: "400 (unsupported_value, param temperature)"."""
    words = [word for word in _codes(failure) if not word.isdigit()]
    parameter = str(failure.get("param") or "")
    if _WORD.fullmatch(parameter):
        words.append(f"param {parameter}")
    return f"{status} ({', '.join(dict.fromkeys(words))})" if words else str(status)


def _codes(failure: Mapping[str, Any]) -> list[str]:
    """The codes of an error object, each one word."""
    inner = failure.get("innererror") or failure.get("inner_error")
    given = [failure.get(key) for key in ("code", "type", "status")]
    given += [inner.get("code")] if isinstance(inner, dict) else []
    return [str(each) for each in given if each is not None and _WORD.fullmatch(str(each))]


def _flagged(failure: Mapping[str, Any]) -> bool:
    """Whether a router's moderation flagged the input."""
    metadata = failure.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("flagged_input") or metadata.get("reasons"))


def _quotable(failure: Mapping[str, Any], request: Mapping[str, Any], secret: str) -> str:
    """What an endpoint says, without the key; nothing of a message that repeats a part of what it was asked."""
    said = str(failure.get("message") or "")[:_SHOWN_CHARS]
    asked = "\n".join(each for name, value in request.items() if name != "model" for each in _texts(value))
    if any(said[at : at + _REPEATED] in asked for at in range(len(said) - _REPEATED + 1)):
        return "it repeats the request, which is not shown"
    return said.replace(secret, "***") if secret else said


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from _texts(each)
        case list() | tuple():
            for each in value:
                yield from _texts(each)


def _account(status: int, said: str, failure: Mapping[str, Any], shown: str, names: Names) -> str:
    if 300 <= status < 400:
        return f"the endpoint answered {shown}, it moved: set {names.section}.url to where it is now"
    if status in (402, 429) or _QUOTA.search(" ".join(_codes(failure)).lower()):
        return f"the endpoint answered {shown} ({said}): the account's quota is used up or unpaid"
    return (
        f"the endpoint answered {shown} ({said}): check {names.model}, {names.section}.url and the key in the "
        f"variable or file that {names.section}.api_key_env or api_key_file names"
    )


def _accuses(message: object) -> bool:
    """Whether a short sentence says that the account or its key is refused."""
    return isinstance(message, str) and len(message) < _SHOWN_CHARS and bool(_ACCOUNT_SAYS.search(message))


def _said(failure: Mapping[str, Any]) -> str:
    return str(failure.get("message") or failure.get("detail") or "")[:_READ_CHARS]


def _parameter(failure: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """The parameter of `request` that a refusal names in its `param`, its locations or its words; "" for none."""
    sent = sorted((name for name in request if name not in _NEVER_PARAMETERS), key=len, reverse=True)
    param = str(failure.get("param") or "")
    if param:
        return next((name for name in sent if re.split(r"[.\[]", param)[0] == name), "")
    located = set(_locations(failure, _DEEPEST))
    named = next((name for name in sent if name in located), "")
    said = str(failure.get("message") or failure.get("detail") or "")[:_READ_CHARS]
    return named or next((name for name in sent if _refuses(said, name)), "")


def _locations(value: Any, depth: int) -> Iterator[str]:
    """What `loc` lists name, as validators write them: {"loc": ["body", "logprobs"]}."""
    if depth and isinstance(value, list):
        for each in value:
            yield from _locations(each, depth - 1)
    elif depth and isinstance(value, dict):
        for key, each in value.items():
            if key == "loc" and isinstance(each, list):
                yield from map(str, each)
            else:
                yield from _locations(each, depth - 1)


def _refuses(said: str, name: str) -> bool:
    """Whether a sentence refuses the parameter; a name that is also an English word must look like a parameter's."""
    quoted = re.escape(name)
    plain = name.isalpha() and name != "logprobs"
    mention = rf"['\"`]{quoted}['\"`]|\b{quoted}\b\s*[:=]|parameter:?\s+{quoted}\b" if plain else rf"\b{quoted}\b"
    either = rf"(?i)(?:{_SAYS_NO}).{{0,60}}?(?:{mention})|(?:{mention}).{{0,60}}?(?:{_SAYS_NO})"
    return re.search(either, said) is not None


def _limit(failure: Mapping[str, Any], asked: Any) -> int | None:
    """The largest number below the one asked for that the refusal mentions."""
    if not isinstance(asked, int) or isinstance(asked, bool):
        asked = 1 << 10
    said = _said(failure)
    numbers = [int(each) for each in re.findall(r"(?<![\w.])\d{1,3}(?![\w%]|\.\d)", said)]
    return max((each for each in numbers if 1 <= each < asked), default=None)


def is_too_long(error: Any) -> bool:
    """Whether an error object says that the prompt does not fit the context."""
    parts = [error.get(key) for key in ("code", "type", "message")] if isinstance(error, dict) else [error]
    shown = " ".join(map(str, parts))
    return any(sign in shown for sign in _TOO_LONG)


def too_long(error: Any, remedy: str) -> Oversized:
    """The error of a prompt that does not fit; `remedy` names what to change."""
    counts = error if isinstance(error, dict) else {}
    size = f"{counts['n_prompt_tokens']} tokens" if "n_prompt_tokens" in counts else "too many tokens"
    limit = f" of {counts['n_ctx']}" if "n_ctx" in counts else ""
    return Oversized(f"the prompt has {size} and does not fit the context{limit}: shorten the passages or {remedy}")

"""People's tokens: a YAML file of names, roles, expiry, the token's SHA-256 and a public key of it (`statements.py`).
No file holds a token.

    tokens:
    - {name: ana, sha256: 8b1f…, key: 77ad…, roles: [labeller], expires: 2027-01-01T00:00:00+00:00}

A token is 256 random bits. So a plain SHA-256 hides it: a slow or salted hash is for secrets that can be guessed, and
nobody tries 2^256. The file is read again when it changes; one that is gone or broken lets nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import AwareDatetime, Field, ValidationError

from qrelay.config import Role, Section
from qrelay.errors import BackendUnavailable, ConfigError, InputError, Unauthenticated
from qrelay.files import held, write_atomic
from qrelay.parsing import yaml_document
from qrelay.security import statements

log = logging.getLogger(__name__)

PREFIX: Final = "qrelay_"
"""What a token begins with: scanners of secrets find one that was committed somewhere."""
_BYTES: Final = 32
_MOST: Final = 1000
_HOW: Final = "`qrelay tokens add NAME --role ROLE --file FILE` makes one"


class Entry(Section):
    """One token: whose it is, what it allows, and until when."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    expires: AwareDatetime
    key: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """Checks what the console says for the token (`statements.py`); "": made before there were such keys."""


class _File(Section):
    tokens: Annotated[tuple[Entry, ...], Field(max_length=_MOST)] = ()


class Tokens:
    """The file's tokens as they are now."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises ConfigError: the file cannot be read."""
        self._path, self._now = path, now
        self._seen = _state(path)
        self._entries = read(path)

    def holder(self, token: str) -> Entry:
        """Whose token this is. Every entry is compared, in constant time.

        Raises:
            Unauthenticated: nobody's, or it is expired.
        """
        digest, found = _hash(token), None
        for each in self._current():
            if hmac.compare_digest(each.sha256, digest):
                found = each
        return self._valid(found)

    def spoken_for(self, said: str, service: str) -> Entry:
        """For whose token the console speaks, to the service of this gRPC name. Raises Unauthenticated: nobody's, it
        is expired, or the statement does not hold."""
        key = statements.named_key(said)
        found = self._valid(next((each for each in self._current() if key and each.key == key), None))
        statements.check(said, found.key, service)
        return found

    def knows(self, key: str) -> bool:
        """Whether some entry has this public key."""
        return any(each.key == key for each in self._current())

    def _valid(self, found: Entry | None) -> Entry:
        if found is None:
            raise Unauthenticated(f"this token is nobody's, or was revoked: {_HOW}")
        if found.expires <= self._now():
            raise Unauthenticated(f"the token of {found.name} expired at {found.expires:%Y-%m-%d %H:%M} UTC: {_HOW}")
        return found

    def _current(self) -> Sequence[Entry]:
        state = _state(self._path)
        if state != self._seen:
            try:
                self._entries = read(self._path)
            except ConfigError as error:
                log.error("no token is valid: %s", error)
                self._entries = ()
            self._seen = state
        return self._entries


def read(path: Path) -> tuple[Entry, ...]:
    """The entries of a file. Raises ConfigError: it cannot be read, or is none."""
    try:
        return _File.model_validate(yaml_document(path.read_bytes()) or {}).tokens
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path} is no file of tokens: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"access.tokens {path} cannot be read: {error}: {_HOW}") from error


def add(path: Path, name: str, roles: Sequence[Role], days: float) -> tuple[str, datetime]:
    """A new token, which is nowhere but in the answer, and when it expires. Earlier ones of the name stay.

    Raises:
        InputError: a name that cannot be.
        ConfigError: the file is none, or cannot be written.
    """
    if not name.isprintable() or name != name.strip() or not 0 < len(name) <= 80:
        raise InputError(f"{name[:80]!r} cannot be a name: give one line of 1 to 80 characters")
    token, expires = PREFIX + secrets.token_urlsafe(_BYTES), datetime.now(UTC) + timedelta(days=days)
    entry = Entry(
        name=name, sha256=_hash(token), key=statements.key_of(token), roles=tuple(roles),
        expires=expires.replace(microsecond=0),
    )  # fmt: skip
    with _alone(path):
        _write(path, (*(read(path) if path.exists() else ()), entry))
    return token, entry.expires


def revoke(path: Path, name: str) -> int:
    """Takes every token of the name back; how many. Raises InputError: there is none. ConfigError: as `read`."""
    with _alone(path):
        entries = read(path)
        kept = tuple(each for each in entries if each.name != name)
        if len(kept) == len(entries):
            raise InputError(f"{path} has no token of {name[:80]!r}: `qrelay tokens list` names them")
        _write(path, kept)
    return len(entries) - len(kept)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    busy = BackendUnavailable(f"another command changes {path}: run this one again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), busy):
        yield


def _write(path: Path, entries: Sequence[Entry]) -> None:
    text = yaml.safe_dump({"tokens": [each.model_dump(mode="json") for each in entries]}, sort_keys=False)
    write_atomic(path, text)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf8", "replace")).hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    """What changes with the file; zeros where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size

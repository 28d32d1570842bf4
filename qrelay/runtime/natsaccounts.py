"""NATS users: for each process one that may do its own work and nothing else.

Who may do what is computed from `topology.py`; no other place says it, and docs/security.md shows it.

    folder = accounts_of(data_dir)
    write_accounts(folder)        # accounts.conf for the server, USER.nk for each user, kustomization.yaml

A user is an NKey: its seed stays in a file that only its owner may read, the server knows its public key. Answers
come to an inbox that is named after the public key, so a seed is all that a client needs. All are of one account, the
server's own: queues from before it had users stay. The system account has no user, and nobody comes in without a key.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from qrelay.config import NatsSettings
from qrelay.errors import ConfigError
from qrelay.files import AtomicFiles, disk_refusal
from qrelay.runtime.topology import Lane, Queue, letters

CONFIG_NAME: Final = "accounts.conf"
_SEED_BYTES: Final = 1024
"""Read of a seed's file, which holds 58 and a line break."""
_API: Final = "$JS.API"
_HEAD: Final = (
    "# Written by `qrelay nats accounts`, for `include` in a server's configuration. Public keys alone: seeds are in"
    " USER.nk.\n"
)
_KUSTOMIZATION: Final = """\
# Written by `qrelay nats accounts`: `kubectl apply -k` makes the Secrets of the component nats-auth.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: qrelay
generatorOptions:
  disableNameSuffixHash: true
  labels:
    app.kubernetes.io/name: nats
    app.kubernetes.io/component: queue
    app.kubernetes.io/instance: qrelay
    app.kubernetes.io/part-of: qrelay
    app.kubernetes.io/managed-by: kustomize
secretGenerator:
"""


class User(enum.StrEnum):
    """Who connects."""

    RETRIEVER = "retriever"
    RERANKER = "reranker"
    JUDGE = "judge"
    SINK = "sink"
    FEEDER = "feeder"
    CONSOLE = "console"
    OPERATOR = "operator"
    DECLARER = "declarer"


_ACTS_AS: Final = {
    "feed": User.FEEDER,
    "wait": User.FEEDER,
    "bench": User.FEEDER,
    "top": User.OPERATOR,
    "reconcile": User.OPERATOR,
    "forget": User.OPERATOR,
    "declare": User.DECLARER,
}
"""What a connection is for -> its user, where that is not its name."""
_WAY: Final = (Queue.QUERIES, Queue.RETRIEVED, Queue.RERANKED, Queue.JUDGED)
_READS: Final = {
    User.RETRIEVER: (Queue.QUERIES,),
    User.RERANKER: (Queue.RETRIEVED,),
    User.JUDGE: (Queue.RERANKED,),
    User.SINK: (Queue.JUDGED, Queue.DLQ),
}
"""A service -> the queues that it takes messages from."""
_FEEDS: Final = {
    User.FEEDER: (Queue.QUERIES, Queue.RERANKED),
    User.OPERATOR: (Queue.QUERIES, Queue.RERANKED),
    User.CONSOLE: (Queue.QUERIES,),
    User.SINK: tuple(Queue),
}
"""A user -> the queues that it publishes to beside a stage's own way: feeding, and replaying dead letters."""


class Permissions(NamedTuple):
    """Subjects, in which `*` is one token and `>` the rest."""

    publish: Sequence[str]
    subscribe: Sequence[str]


class Identity(NamedTuple):
    """What a client shows. `seed` is a secret."""

    seed: str
    inbox: str


def permissions(user: User, public_key: str) -> Permissions:
    """All that a user may do."""
    allowed = list(_look())
    for lane in (lane for queue in _READS.get(user, ()) for lane in queue.lanes):
        allowed += [next_subject(lane), f"{ack_subject(lane)}.>"]
    if user in _READS:
        source = _READS[user][0]
        allowed += [letters("*", source.consumer), *_next_queue(source)]
    for queue in _FEEDS.get(user, ()):
        allowed += queue.subjects()
    if user is User.OPERATOR:
        allowed += [f"{_API}.STREAM.MSG.{verb}.{queue.stream}" for verb in ("GET", "DELETE") for queue in Queue]
    if user is User.DECLARER:
        allowed += _declare()
    return Permissions(list(dict.fromkeys(allowed)), [f"{inbox(public_key)}.>"])


def next_subject(lane: Lane) -> str:
    """Where a lane's reader asks for messages; the first lane's is what a queue's others begin with."""
    return f"{_API}.CONSUMER.MSG.NEXT.{lane.stream}.{lane.consumer}"


def ack_subject(lane: Lane) -> str:
    """What the addresses begin with where a lane's messages are acked."""
    return f"$JS.ACK.{lane.stream}.{lane.consumer}"


def inbox(public_key: str) -> str:
    """What the subjects begin with where a user's answers come."""
    return f"_INBOX_{public_key}"


def _next_queue(source: Queue) -> Iterable[str]:
    """Where the reader of a queue publishes its output."""
    after = _WAY[_WAY.index(source) + 1 :]
    return after[0].subjects() if after else ()


def _look() -> Iterable[str]:
    """Everybody: how long the queues are, and whether they are there. No message."""
    yield f"{_API}.INFO"
    for queue in Queue:
        yield f"{_API}.STREAM.INFO.{queue.stream}"
        yield from (f"{_API}.CONSUMER.INFO.{lane.stream}.{lane.consumer}" for lane in queue.lanes)


def _declare() -> Iterable[str]:
    for queue in Queue:
        yield f"{_API}.STREAM.CREATE.{queue.stream}"
        yield f"{_API}.STREAM.UPDATE.{queue.stream}"
        yield from (f"{_API}.CONSUMER.DURABLE.CREATE.{lane.stream}.{lane.consumer}" for lane in queue.lanes)


def accounts_of(data_dir: Path) -> Path:
    """Where an installation's users are kept. The server of `qrelay up` has accounts where this folder is there."""
    return data_dir / "nats" / "accounts"


def secure_nats(data_dir: Path) -> Path:
    """Makes an installation's users, or keeps those that it has; their folder. Raises ConfigError: not writable."""
    folder = accounts_of(data_dir)
    write_accounts(folder)
    return folder


def with_seeds(nats: NatsSettings, data_dir: Path) -> NatsSettings:
    """The settings for the server that runs from the data folder: with its users' seeds, unless some are named."""
    folder = accounts_of(data_dir)
    return nats if nats.nkey_seed or not folder.is_dir() else nats.model_copy(update={"nkey_seed": folder})


def write_accounts(folder: Path, rotate: Sequence[User] = ()) -> None:
    """Writes `accounts.conf` and the seeds; a seed that is there stays, unless it is to be rotated.

    Raises:
        ConfigError: the folder cannot be written, or a file in it holds no seed.
    """
    seeds = {user: _kept(folder, user) if user not in rotate else "" for user in User}
    made = {user: _encoded(os.urandom(32)) for user in User}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with AtomicFiles() as files:
            for user in User:
                if not seeds[user]:
                    file = files.open(seed_file(folder, user))
                    os.fchmod(file.fileno(), 0o600)
                    file.write(f"{made[user]}\n".encode())
            keys = {user: _public_key(seeds[user] or made[user]) for user in User}
            files.open(folder / CONFIG_NAME).write(_config(keys).encode())
            files.open(folder / "kustomization.yaml").write(_kustomization().encode())
            files.commit()
    except OSError as error:
        raise disk_refusal(error, folder) or error from error


def seed_file(folder: Path, user: User) -> Path:
    """Where a user's seed is."""
    return folder / f"{user}.nk"


def identity(given: Path, purpose: str) -> Identity:
    """What a connection for this purpose shows. given: a seed's file, or the folder of all.

    Raises:
        ConfigError: no file, or no seed in it.
    """
    path = given / f"{_ACTS_AS.get(purpose, purpose)}.nk" if given.is_dir() else given
    seed = _seed(path)
    return Identity(seed, inbox(_public_key(seed)))


def _kept(folder: Path, user: User) -> str:
    path = seed_file(folder, user)
    return _seed(path) if path.exists() else ""


def _seed(path: Path) -> str:
    import nkeys

    try:
        with path.open("rb") as file:
            seed = file.read(_SEED_BYTES).decode("ascii").strip()
        if _encoded(nkeys.decode_seed(seed.encode())[1]) == seed:  # with the checksum, which nkeys ignores
            return seed
    except OSError as error:
        raise ConfigError(f"nats.nkey_seed: {path} cannot be read: {error.strerror}") from None
    except (ValueError, nkeys.NkeysError):  # an error's text could hold a part of the seed
        pass
    raise ConfigError(f"nats.nkey_seed: {path} holds no user's NKey seed: `qrelay nats accounts` writes them")


def _encoded(raw: bytes) -> str:
    """32 bytes as a user's seed."""
    import nkeys

    seed: bytes = nkeys.encode_seed(bytes(raw), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def _public_key(seed: str) -> str:
    import nkeys

    key: bytes = nkeys.from_seed(bytearray(seed.encode())).public_key
    return key.decode()


def _config(keys: dict[User, str]) -> str:
    users = []
    for user, key in keys.items():
        allowed = permissions(user, key)
        rules = {"publish": {"allow": allowed.publish}, "subscribe": {"allow": allowed.subscribe}}
        users.append(f"# {user}\n{json.dumps({'nkey': key, 'permissions': rules}, indent=2)}\n")
    return f"{_HEAD}authorization: {{\ntimeout: 10\nusers: [\n{''.join(users)}]\n}}\n"


def _kustomization() -> str:
    secrets = [("nats-accounts", CONFIG_NAME), *((f"nats-seed-{user}", f"nats.nk={user}.nk") for user in User)]
    return _KUSTOMIZATION + "".join(f"  - {{name: {name}, files: [{file}]}}\n" for name, file in secrets)

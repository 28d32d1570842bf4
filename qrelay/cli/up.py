"""`qrelay up`: the four services and the console as processes, with an embedded NATS or an external one.

A service that dies is started again, with a growing pause; one that exits with 78 (settings, model, index, port)
before it was ever ready stops everything, because starting it again cannot help. Ctrl-C or SIGTERM drains: services
first, each within its `worker.drain_s`, then NATS. Nothing is lost in either case: streams and ledger are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Final

import click
from filelock import FileLock, Timeout
from rich.console import Console

from qrelay.cli import orphans
from qrelay.cli.checks import checked_settings, refuse_taken
from qrelay.cli.down import LOCK, PID_FILE
from qrelay.cli.group import example
from qrelay.cli.models.preparing import choose_if_open
from qrelay.cli.options import INSECURE, config_option, data_dir_option, insecure_given, insecure_option
from qrelay.config import PLAIN, NatsSettings, ServiceSettings, TlsSettings, Transport
from qrelay.errors import ConfigError, QrelayError, SetupError, TransientError
from qrelay.exitcodes import EXIT_FAILED, EXIT_SETUP
from qrelay.files import write_atomic
from qrelay.progress import on_terminal, plainly, shown
from qrelay.rundir import endpoints
from qrelay.runtime.lookout import LOOK_S
from qrelay.runtime.natsaccounts import accounts_of, secure_nats
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.supervisor import Child, Supervisor, service_environ
from qrelay.security.tls import files_of
from qrelay.settings import find
from qrelay.settings.effective import Effective, renewed
from qrelay.settings.record import changes, own_environ, recorded_environ, write_record
from qrelay.settings.sections import CONSOLE, SERVICES, settings_classes, settings_of

_POLL_S: Final = 0.2
_ALL_READY = "all ready"
_NATS: Final = "QRELAY_UP_NATS"
"""Variable in which --detach hands on --nats: everybody may read arguments, and a URL may hold a password."""
_STILL_STARTING: Final = "it continues to start in the background: `qrelay top` shows it, `qrelay down` stops it"

ORDER = ("sink", "judge", "reranker", "retriever", CONSOLE)
"""Start from the end of the line, so that the first query finds its whole way open."""
CERTIFICATES: Final = "tls"
"""Folder of a development authority and its certificates, in the data folder: where they are, they are used."""
PROCESSES = (*SERVICES, CONSOLE)
_CONSOLE_LIBRARIES: Final = ("starlette", "uvicorn", "mcp", "jinja2", "sqlalchemy")


def build(data_dir: Path, nats_url: str | None, nats_port: int | None, port_base: int,
          services: tuple[str, ...], say: Callable[[str], None], transport: Transport = PLAIN,
) -> Supervisor:  # fmt: skip
    """The supervisor with nothing started yet; services run with what is recorded. Port base 0: free ports.
    transport: how the services are asked whether they are ready."""
    if nats_port is None:
        nats_port = port_base
    seeds = None if nats_url or not accounts_of(data_dir).is_dir() else secure_nats(data_dir)
    tls = nats_tls(data_dir)
    nats = None if nats_url else NatsServer(data_dir / "nats", port=nats_port, tls=tls, accounts=seeds)
    if nats and not nats_port:
        nats.reserve_port()
    base = {**recorded_environ(os.environ, data_dir), orphans.MARK: str(data_dir / "run")}
    if seeds:
        base["QRELAY_ALL__NATS__NKEY_SEED"] = str(seeds)
    if insecure_given():
        base[INSECURE] = "true"
    children = []
    for number, name in enumerate(("retriever", "reranker", "judge", "sink", CONSOLE), 1):
        if name not in services:
            continue
        ports = (port_base + number, port_base + 10 + number) if port_base else (0, 0)
        own = own_environ(base, data_dir, name)
        environ = service_environ(own, name, data_dir, nats_url or (nats.url if nats else ""), ports)
        children.append(Child(name, data_dir / "logs" / f"{name}.log", environ, transport=transport))
    children.sort(key=lambda child: ORDER.index(child.name))
    return Supervisor(children, nats, say)


def nats_tls(data_dir: Path) -> TlsSettings | None:
    """The embedded server's certificate, by the development authority; without one it listens here, in plain text."""
    folder = data_dir / CERTIFICATES / "nats"
    return files_of(folder) if folder.is_dir() and _is_ours(data_dir / CERTIFICATES) else None


def _is_ours(folder: Path) -> bool:
    """Whether the certificates there are a development authority's, and not an operator's own."""
    if not folder.is_dir():
        return False
    from qrelay.security.certs import is_development

    return is_development(folder)


def secured(data_dir: Path, settings: Effective, say: Callable[[str], None]) -> None:
    """Development certificates and users of NATS into the data folder, and into the settings of this process and
    those that it starts. Certificates are new at each start; the authority and the users stay. `settings` that say
    who may do what are kept."""
    from qrelay.security.certs import KEY_TO_CONSOLE, TOKENS, access, development, user, variables

    folder, person = data_dir / CERTIFICATES, user()
    secure_nats(data_dir)
    development(folder, people=[person])
    os.environ.update(variables(folder, person))
    say(f"TLS everywhere, by the certificates in {folder}; commands on this data folder are {person}'s")
    if _has_other_access(settings, folder / TOKENS):
        say(f"access is as the settings say: no token for the console is made, one in {folder} counts for nothing")
        return
    os.environ.update(access(folder, person))
    say(f"the console's token is in {folder / KEY_TO_CONSOLE}")


def _has_other_access(settings: Effective, tokens: Path) -> bool:
    """Whether any section says who may do what, other than by the file of tokens that `secured` writes."""
    found = [settings.settings(each, section).access for section, each in settings_classes().items()]
    return any(each.on and not _is_same(each.tokens, tokens) for each in found)


def _is_same(named: Path | None, tokens: Path) -> bool:
    """Whether it is that file, or was, before the data folder came here."""
    return named == tokens or bool(named and named.parts[-2:] == tokens.parts[-2:] and not named.exists())


@click.command(epilog=example("qrelay up --detach"))
@data_dir_option()
@config_option()
@click.option("--nats", "nats_url", envvar=_NATS, help="URL of a NATS server to use instead of the embedded one.")
@click.option("--nats-port", type=int, help="Port of the embedded NATS.  [default: the port base]")
@click.option("--port-base", type=int, default=7400, show_default=True,
              help="Services listen on base+1…4, the console on base+5, metrics on base+11…15; 0: free "
                   "ports.")  # fmt: skip
@click.option("--only", "services", multiple=True, type=click.Choice(PROCESSES),
              help="Start just this service (repeatable).")  # fmt: skip
@click.option("--secure", is_flag=True, help="TLS everywhere, by certificates of an authority that is made in the "
              "data folder, and users of NATS; from then on always.")  # fmt: skip
@insecure_option()
@click.option("--detach", is_flag=True, help="Return when all are ready; `qrelay down` stops them.")
@click.option("--detached", is_flag=True, hidden=True, help="This is the process that --detach left running.")
@click.option("--while-stdin", is_flag=True, hidden=True, help="Stop when standard input ends, with who writes it.")
def up(data_dir: Path, config: Path | None, nats_url: str | None, nats_port: int | None, port_base: int,
       services: tuple[str, ...], secure: bool, detach: bool, detached: bool,
       while_stdin: bool) -> None:  # fmt: skip
    """Run the four services and the console here until Ctrl-C.

    Settings and ports are checked before anything starts. No time limit: what each service does is
    shown, and if one ends with an error before it was ever ready, all end with that error.
    """
    console = Console(stderr=True)
    if while_stdin:
        threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    data_dir = data_dir.resolve()
    settings, classes = find(config, data_dir), settings_classes()
    renewed(settings).check(classes)
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"another `qrelay up` runs on {data_dir}: stop it, or choose --data-dir") from None
    if detach:
        lock.release()
        _detach(data_dir / "logs" / "up.log")
        return
    (data_dir / PID_FILE).write_text(str(os.getpid()))
    say = plainly(console)
    with shown(console):
        for line in choose_if_open(data_dir, config):
            say(line)
    if secure or _is_ours(data_dir / CERTIFICATES):
        secured(data_dir, renewed(find(config, data_dir)), say)
    settings = find(config, data_dir)
    for line in changes(settings, classes):
        say(line)
    write_record(_lasting(renewed(settings)), classes)
    wanted = services or (PROCESSES if _with_console(settings, say) else SERVICES)
    transport = settings.settings(ServiceSettings, "all").transport
    supervisor = build(data_dir, nats_url, nats_port, port_base, wanted, say, transport)
    nats = _check(supervisor, data_dir, port_base if nats_port is None else nats_port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(supervisor, "stopping", True))
    stops = "`qrelay down` stops" if detached else "Ctrl-C or `qrelay down` stops"
    failed: QrelayError | None = None
    try:
        _run(supervisor, data_dir, console, stops, nats)
    except QrelayError as error:  # said now: to stop what runs takes a while
        failed = error
        click.secho(f"error: {error}", fg="red", err=True)
    finally:
        say("stopping: services finish or return what they hold")
        supervisor.stop()
        lock.release()
    say("stopped")
    if failed:
        raise SystemExit(EXIT_SETUP if isinstance(failed, SetupError) else EXIT_FAILED)


def _lasting(settings: Effective) -> Effective:
    """What is recorded: --insecure is said for one run alone."""
    if not insecure_given():
        return settings
    return replace(settings, variables=settings.variables.without([("all", "insecure")]))


def _with_console(settings: Effective, say: Callable[[str], None]) -> bool:
    """Whether the console is wanted, and can be started: labelling goes on without it."""
    if not getattr(settings.settings(settings_of(CONSOLE), CONSOLE), "enabled", False):
        return False
    if all(map(find_spec, _CONSOLE_LIBRARIES)):
        return True
    say("the console is left out, its libraries are not installed: pip install 'qrelay[console]' brings them")
    return False


def _end_with_stdin() -> None:
    """SIGTERM to this process when nobody holds the other end of standard input any more, killed or not."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _check(supervisor: Supervisor, data_dir: Path, nats_port: int) -> NatsSettings:
    """All that can be checked before anything is started, and a former run's leftovers ended; where the queues will
    be. Raises SetupError."""
    settings = checked_settings({child.name: child.environ for child in supervisor.children})
    for child in supervisor.children:
        its = settings[child.name]
        child.drain_s = its.worker.drain_s
        if its.tls.enabled != child.transport.tls.enabled:  # certificates of its section alone, or none there
            child.transport = its.transport
    orphans.end(orphans.left_behind(data_dir), supervisor.say)
    for stale in (data_dir / "run").glob("*.json"):
        stale.unlink()
    addresses = [(f"{name}'s {what}", address) for name, its in settings.items()
                 for what, address in (_door(its), ("metrics", its.telemetry.metrics_bind))]  # fmt: skip
    if supervisor.nats:
        addresses.append(("NATS", f"127.0.0.1:{nats_port}"))
        for its in settings.values():
            supervisor.nats.make_room(its.nats)
    refuse_taken(addresses)
    nats = next(iter(settings.values())).nats
    if not supervisor.nats and not nats.nkey_seed:
        asyncio.run(_declare(nats, supervisor.say))
    return nats


def _door(settings: ServiceSettings) -> tuple[str, str]:
    """What it listens for, and where."""
    own = getattr(settings, "bind", "")
    return ("HTTP", own) if own else ("gRPC", settings.grpc.bind)


def _declaring(settings: NatsSettings, say: Callable[[str], None]) -> Future[None]:
    """Declares the queues of its own server, however long that takes: where NATS has users, nobody else does."""
    from qrelay.runtime.jetstream import JetStreamBroker

    done, said = Future[None](), set[str]()

    def hear(error: Exception) -> None:
        if str(error) not in said:
            said.add(str(error))
            say(f"warning: the queues are not declared yet, trying again: {error}")

    async def declare() -> None:
        async with await JetStreamBroker.connect(settings, name="declare", owner=True, failed=hear):
            pass

    def work() -> None:
        try:
            done.set_result(asyncio.run(declare()))
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=work, name="declare", daemon=True).start()
    return done


async def _declare(settings: NatsSettings, say: Callable[[str], None]) -> None:
    """As the services are about to: what somebody else's server does not allow is said before they start. Raises
    ConfigError: it allows too little."""
    from qrelay.runtime.jetstream import JetStreamBroker
    from qrelay.runtime.natsclient import ATTEMPTS

    try:
        async with await JetStreamBroker.connect(settings, name="declare", attempts=ATTEMPTS, owner=True):
            pass
    except TransientError as error:
        say(f"warning: {error}\nThe services start, and wait for it")


def _without_nats(arguments: Iterable[str]) -> list[str]:
    """The arguments but --nats and its value."""
    kept, words = list[str](), iter(arguments)
    for word in words:
        if word == "--nats":
            next(words, None)
        elif not word.startswith("--nats="):
            kept.append(word)
    return kept


def _detach(log: Path) -> None:
    """The same command in a session of its own; returns when it says that all are ready, and passes on what it says
    until then. Ends with its exit code where it ends instead."""
    log.parent.mkdir(parents=True, exist_ok=True)
    address = click.get_current_context().params["nats_url"]
    arguments = _without_nats("--detached" if argument == "--detach" else argument for argument in sys.argv[1:])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "qrelay.cli.main", *arguments],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **({_NATS: address} if address else {})},
        )
    with log.open("rb") as said:
        try:
            _pass_on(said, process)
        except KeyboardInterrupt:
            click.echo(f"\nnot waited for: {_STILL_STARTING}", err=True)
            raise click.Abort from None


def _pass_on(said: BinaryIO, process: subprocess.Popen[bytes]) -> None:
    shown_so_far = b""
    while _ALL_READY.encode() not in shown_so_far:
        code = process.poll()  # before the read, so that its last words are in it
        if new := said.read():
            sys.stderr.buffer.write(new)
            sys.stderr.flush()
            shown_so_far += new
        elif code is not None:
            raise SystemExit(code or EXIT_FAILED)
        else:
            time.sleep(_POLL_S)


def _run(supervisor: Supervisor, data_dir: Path, console: Console, stops: str, nats: NatsSettings) -> None:
    """Start all, and keep them running until told to stop. A start without a sign of life ends; on a terminal it
    is only told, and a person decides."""
    say = supervisor.say
    with contextlib.ExitStack() as starting:
        starting.enter_context(shown(console))
        supervisor.start()
        users = supervisor.nats and supervisor.nats.accounts
        declaring = _declaring(nats, say) if users else None
        if supervisor.nats:
            _announce_nats(data_dir, supervisor.nats)
            say(f"nats      {supervisor.nats.url}  (store: {data_dir / 'nats'})")
        all_ready, next_look = False, 0.0
        while not supervisor.stopping:
            supervisor.watch_once()
            if supervisor.nats:
                _announce_nats(data_dir, supervisor.nats)
            if time.monotonic() >= next_look:
                _look(supervisor, data_dir)
                if not on_terminal(console):
                    supervisor.refuse_stillness()
                next_look = time.monotonic() + LOOK_S
            declared = declaring is None or (declaring.done() and declaring.result() is None)
            if supervisor.ready and declared and not all_ready:
                all_ready = True
                starting.close()
                say(f"{_ALL_READY}: `qrelay feed FILE --collection NAME`, `qrelay top`; {stops}")
            time.sleep(_POLL_S)


def _look(supervisor: Supervisor, data_dir: Path) -> None:
    found = endpoints(data_dir)
    for child in supervisor.look(found):
        at = found[child.service]
        where, scheme = at.grpc if at.http else f"grpc {at.grpc}", "https" if child.transport.tls.enabled else "http"
        supervisor.say(f"{child.name:<9} ready  {where}  metrics {scheme}://{at.metrics}/metrics")


def _announce_nats(data_dir: Path, nats: NatsServer) -> None:
    file = data_dir / "run" / "nats.json"
    entry = f'{{"service": "nats", "pid": {nats.pid}, "grpc": "{nats.url}", "metrics": ""}}'.encode()
    if not file.exists() or file.read_bytes() != entry:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, entry)

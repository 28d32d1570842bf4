"""`qrelay certs`: certificates for one machine, for trying things out, for a first cluster."""

from __future__ import annotations

from pathlib import Path

import click

from qrelay.cli.group import Group, example


@click.group(cls=Group, epilog=example("qrelay certs dev --out certs"))
def certs() -> None:
    """Make certificates. In production they come from your own authority: see docs/security.md."""


@certs.command(epilog=example("qrelay certs dev --out certs --person ana --dns judge.qrelay.svc"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Folder for the authority and, in a folder each, the certificates.")  # fmt: skip
@click.option(
    "--person", "people", multiple=True, metavar="NAME", help="A certificate for a person too (repeatable)."
)
@click.option("--dns", "hosts", multiple=True, metavar="HOST",
              help="A further name or address that every service answers as (repeatable).")  # fmt: skip
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), default=365, show_default=True,
              help="Days that a certificate holds.")  # fmt: skip
def dev(out: Path, people: tuple[str, ...], hosts: tuple[str, ...], days: float) -> None:
    """Make a development authority, and a certificate for each service and each --person.

    Run it again to renew: the authority stays, all certificates are new, and running services take them without a
    restart. Whoever has OUT/ca.key can be anybody: keep it off the machines that only use certificates.
    """
    from qrelay.security.certs import development

    made = development(out, people=people, hosts=hosts, days=days)
    click.echo(f"{out}: ca.crt, ca.key and a folder each for {', '.join(made)}: tls.crt, tls.key, ca.crt")
    click.echo(
        f"settings: judge: {{tls: {{certificate: {out}/judge/tls.crt, key: {out}/judge/tls.key, "
        f"authority: {out}/judge/ca.crt}}}}, and so on; section `all` is what commands show"
    )

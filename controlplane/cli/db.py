# The database's schema.
from __future__ import annotations

import click

from controlplane.cli.output import emit
from controlplane.cli.session import Local, Noun, Session, pass_session, say


@click.group(cls=Noun)
def db() -> None:
    """Upgrade and check the database's schema."""


@db.command(cls=click.Command)
def upgrade() -> None:
    """Bring the database of the settings to this program's schema."""
    from controlplane.settings import load_settings
    from controlplane.storage import migrate
    from controlplane.wiring import open_storage

    settings = load_settings()
    storage = open_storage(settings)
    if storage.database.path is not None:
        storage.database.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = migrate.current(storage.database)
    migrate.upgrade(storage.database)
    after = migrate.current(storage.database)
    say(f"the schema is {after} already" if before == after else f"upgraded from {before or 'nothing'} to {after}")


@db.command(cls=Local)
@pass_session
def check(session: Session) -> None:
    """Check that the database answers and has this program's schema."""
    from controlplane.settings import load_settings
    from controlplane.storage import migrate
    from controlplane.wiring import open_storage

    migrate.check_ready(open_storage(load_settings()).database)
    found = {"ready": True, "schema": migrate.head()}
    emit(session, found, lambda: say(f"ready, schema {found['schema']}"))

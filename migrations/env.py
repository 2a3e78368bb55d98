# Alembic's entry: runs migrations on the connection that storage/migrate.py gives, or on $TRITONCTL_DATABASE__URL.
from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection

# Importing the unit of work imports every store, and with them every table.
import controlplane.storage.unit_of_work  # noqa: F401
from controlplane.storage.database import create_database
from controlplane.storage.migrate import VERSION_TABLE
from controlplane.storage.types import Base


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    # A developer at the alembic command, for example `alembic revision --autogenerate -m "Add sweeps"`.
    with create_database(os.environ["TRITONCTL_DATABASE__URL"]).writing(schema_change=True) as own:
        run(own)

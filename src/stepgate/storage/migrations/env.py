"""What alembic executes when Stepgate migrates its database itself; the caller has opened the connection."""

from alembic import context

from stepgate.storage.migrations.environment import run

run(context.config.attributes["connection"])

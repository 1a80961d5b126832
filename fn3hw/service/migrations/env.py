"""How Alembic reaches the database: over the connection that `fn3hw.service.database` has opened."""

from __future__ import annotations

from alembic import context

from fn3hw.service.models import Base


def _ours(_: object, name: str | None, kind: str, *__: object) -> bool:
    """The tables of DBOS lie beside ours and are its own."""
    return kind != "table" or (name or "").startswith("fn3hw_")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table="fn3hw_schema",
    include_object=_ours,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

"""Brings the database to what this release needs. Only adds: the release before it goes on working meanwhile."""

import psycopg

STEPS = [
    "create table if not exists entries (id bigserial primary key, text text not null)",
    "alter table entries add column if not exists at timestamptz not null default now()",
]

# The connection's settings are in PGHOST, PGUSER, PGPASSWORD and PGDATABASE.
with psycopg.connect(connect_timeout=5) as connection:
    # Two at once wait for one another.
    connection.execute("select pg_advisory_xact_lock(1)")
    for step in STEPS:
        connection.execute(step)
print(f"{len(STEPS)} steps: the database is up to date")

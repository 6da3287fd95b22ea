//! The database's schema, as a list of migrations.
//!
//! Owns: every `CREATE` and `ALTER`, and `PRAGMA user_version`. Never: reads or writes rows.
//!
//! The version of a database is the number of migrations that it has seen. Each migration runs in a transaction of its
//! own together with the new version number, so that a crash leaves a whole version behind, never half of one. A
//! migration that shipped isn't edited any more: what it should have been is a further one. A database that has seen
//! more migrations than this program knows belongs to a newer Bulsa and is refused untouched.

use rusqlite::Connection;

use super::StoreError;

/// Every migration, oldest first.
pub(super) const MIGRATIONS: &[&str] = &[
    // 1: the keel.
    "
    CREATE TABLE projects (
        name TEXT PRIMARY KEY,
        live_release INTEGER
    ) STRICT;

    CREATE TABLE releases (
        project TEXT NOT NULL,
        id INTEGER NOT NULL,
        spec TEXT NOT NULL,
        content_hash TEXT NOT NULL,
        sources TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (project, id)
    ) STRICT;

    CREATE TABLE deployments (
        project TEXT NOT NULL,
        id INTEGER NOT NULL,
        kind TEXT NOT NULL,
        candidate INTEGER NOT NULL,
        previous INTEGER,
        phase TEXT NOT NULL,
        started_at_ms INTEGER NOT NULL,
        switched_at_ms INTEGER,
        finished_at_ms INTEGER,
        outcome TEXT,
        exit_code INTEGER,
        reason TEXT,
        PRIMARY KEY (project, id)
    ) STRICT;

    CREATE TABLE wishes (
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        kind TEXT NOT NULL,
        value TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (project, service, kind)
    ) STRICT;

    CREATE TABLE kv (
        project TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (project, key)
    ) STRICT;

    CREATE TABLE ledger (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        release INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        cause TEXT NOT NULL,
        exit TEXT,
        ready_for_ms INTEGER
    ) STRICT;

    CREATE TABLE incidents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        replica TEXT NOT NULL,
        cause TEXT NOT NULL,
        evidence TEXT NOT NULL,
        detected_at_ms INTEGER NOT NULL,
        recovered_at_ms INTEGER,
        requests_lost INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        project TEXT NOT NULL,
        kind TEXT NOT NULL,
        service TEXT,
        replica TEXT,
        text TEXT NOT NULL,
        json TEXT
    ) STRICT;
    ",
    // 2: what humans took away through the Engine; how a replica ended, for the program.
    "
    CREATE TABLE withheld (
        project TEXT NOT NULL,
        release INTEGER NOT NULL,
        service TEXT NOT NULL,
        ordinal INTEGER NOT NULL,
        PRIMARY KEY (project, release, service, ordinal)
    ) STRICT;

    ALTER TABLE ledger ADD COLUMN status TEXT;
    ",
    // 3: when agents lived, and when services were served.
    "
    CREATE TABLE watches (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        from_ms INTEGER NOT NULL,
        until_ms INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE service_changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        watch INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        project TEXT NOT NULL,
        service TEXT NOT NULL,
        state TEXT NOT NULL
    ) STRICT;

    CREATE INDEX service_changes_by_service ON service_changes (project, service, id);
    ",
];

/// Brings the database to the newest of `migrations`.
///
/// # Errors
/// When the database is newer than `migrations`, or when SQLite can't run one; the versions before it stay.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut version = 0;
    for sql in migrations {
        version += 1;
        if version <= found {
            continue;
        }
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    if found > version { Err(StoreError::TooNew { found, known: version }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: u32 = MIGRATIONS.len() as u32;

    fn version(connection: &Connection) -> u32 {
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_older_version_is_brought_to_the_newest() {
        for start in 0..=MIGRATIONS.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            migrate(&mut connection, &MIGRATIONS[..start]).unwrap();
            assert_eq!(version(&connection), u32::try_from(start).unwrap());
            migrate(&mut connection, MIGRATIONS).unwrap();
            assert_eq!(version(&connection), NEWEST);
            connection.execute("INSERT INTO projects (name) VALUES ('shop')", []).unwrap();
        }
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_before_it_whole() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); SELECT nonsense FROM nowhere"];
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!(version(&connection), 1);
        let tables: u32 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 1, "table b must be gone with its migration");
    }

    #[test]
    fn a_newer_database_is_refused_with_both_versions_named() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "user_version", NEWEST + 3).unwrap();
        let error = migrate(&mut connection, MIGRATIONS).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&(NEWEST + 3).to_string()) && text.contains("newer"), "{text}");
        assert_eq!(version(&connection), NEWEST + 3, "it stays as it was");
    }
}

//! Secrets of the service itself: made once, kept with the data that depends on them.

use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

impl Store {
    /// The secret of this name. The first time it is asked for, `candidate` becomes it: also when several
    /// processes ask at once, all get the same.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn secret(&self, name: &'static str, candidate: String) -> Result<String, StoreError> {
        let query = statement::query_scalar("SELECT value FROM secrets WHERE name = $1").bind(name);
        if let Some(value) = query.fetch_optional(&self.readers).await? {
            return Ok(value);
        }
        self.write(Ensure { name, candidate }).await
    }
}

struct Ensure {
    name: &'static str,
    candidate: String,
}

impl Write for Ensure {
    type Out = String;

    async fn run(&self, conn: &mut Conn) -> Result<String, StoreError> {
        statement::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
            .bind(self.name)
            .bind(&self.candidate)
            .execute(&mut *conn)
            .await?;
        let query = statement::query_scalar("SELECT value FROM secrets WHERE name = $1").bind(self.name);
        Ok(query.fetch_one(conn).await?)
    }
}

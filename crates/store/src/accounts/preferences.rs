//! Preferences of accounts: names with JSON values, which clients store and the service does not interpret.

use std::collections::BTreeMap;

use pinfold_model::{AccountId, Preference};
use sqlx::FromRow;

use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

impl Store {
    /// The account's preferences, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preferences(&self, account: AccountId) -> Result<Vec<Preference>, StoreError> {
        let query = statement::query_as::<PreferenceRow>(SELECT).bind(account.0);
        Ok(query.fetch_all(&self.readers).await?.into_iter().map(Preference::from).collect())
    }

    /// Sets preferences, deletes those without a value, and returns all preferences. `None`, without changes, if the
    /// total size of all names and values would exceed `bytes_max`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn merge_preferences(
        &self,
        account: AccountId,
        changes: Vec<(String, Option<String>)>,
        bytes_max: usize,
    ) -> Result<Option<Vec<Preference>>, StoreError> {
        self.write(Merge { account, changes, bytes_max }).await
    }
}

const SELECT: &str = "SELECT name, value FROM preferences WHERE account_id = $1 ORDER BY name";

#[derive(FromRow)]
struct PreferenceRow {
    name: String,
    value: String,
}

impl From<PreferenceRow> for Preference {
    fn from(PreferenceRow { name, value }: PreferenceRow) -> Self {
        Self { name, value }
    }
}

struct Merge {
    account: AccountId,
    changes: Vec<(String, Option<String>)>,
    bytes_max: usize,
}

impl Write for Merge {
    type Out = Option<Vec<Preference>>;

    async fn run(&self, conn: &mut Conn) -> Result<Self::Out, StoreError> {
        let rows: Vec<PreferenceRow> =
            statement::query_as(SELECT).bind(self.account.0).fetch_all(&mut *conn).await?;
        let mut all: BTreeMap<_, _> = rows.into_iter().map(|row| (row.name, row.value)).collect();
        for (name, value) in &self.changes {
            match value {
                Some(value) => all.insert(name.clone(), value.clone()),
                None => all.remove(name),
            };
        }
        if all.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > self.bytes_max {
            return Ok(None);
        }
        for (name, value) in &self.changes {
            change(conn, self.account, name, value.as_deref()).await?;
        }
        Ok(Some(all.into_iter().map(|(name, value)| Preference { name, value }).collect()))
    }
}

async fn change(
    conn: &mut Conn,
    account: AccountId,
    name: &str,
    value: Option<&str>,
) -> Result<(), StoreError> {
    let query = match value {
        Some(value) => statement::query(
            "INSERT INTO preferences (account_id, name, value) VALUES ($1, $2, $3) \
             ON CONFLICT (account_id, name) DO UPDATE SET value = $3",
        )
        .bind(account.0)
        .bind(name)
        .bind(value),
        None => statement::query("DELETE FROM preferences WHERE account_id = $1 AND name = $2")
            .bind(account.0)
            .bind(name),
    };
    query.execute(conn).await?;
    Ok(())
}

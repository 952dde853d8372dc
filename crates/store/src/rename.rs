//! Renaming a pin.

use pinfold_model::{AccountId, PinId, PinName};

use crate::pin::{PinRow, select_pins};
use crate::writer::{Conn, Write};
use crate::{PinRecord, Store, StoreError};

impl Store {
    /// Gives a pin of the account another name; `None` if the account has no such pin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rename_pin(
        &self,
        account: AccountId,
        pin: PinId,
        name: PinName,
    ) -> Result<Option<PinRecord>, StoreError> {
        self.write(Rename { account, pin, name }).await
    }
}

struct Rename {
    account: AccountId,
    pin: PinId,
    name: PinName,
}

impl Write for Rename {
    type Out = Option<PinRecord>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<PinRecord>, StoreError> {
        let done = sqlx::query("UPDATE pins SET custom_name = $3 WHERE id = $1 AND account_id = $2")
            .bind(self.pin.0)
            .bind(self.account.0)
            .bind(self.name.as_str())
            .execute(&mut *conn)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        let query = sqlx::query_as::<_, PinRow>(select_pins!("WHERE n.id = $1")).bind(self.pin.0);
        query.fetch_optional(conn).await?.map(PinRow::into_record).transpose()
    }
}

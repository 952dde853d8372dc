//! Renames pins.

use pinfold_model::{AccountId, Actor, AuditEvent, Details, PinId, PinName, Timestamp};

use crate::audit::Journal;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::pins::record::{PinRow, select_pins};
use crate::{PinRecord, Store, StoreError};

impl Store {
    /// Sets the name of a pin of the account on behalf of `by`. `None` if the account has no such pin.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rename_pin(
        &self,
        account: AccountId,
        pin: PinId,
        name: PinName,
        by: Actor,
        now: Timestamp,
    ) -> Result<Option<PinRecord>, StoreError> {
        self.write(Rename { account, pin, name, by, now, journal: self.journal() }).await
    }
}

struct Rename {
    account: AccountId,
    pin: PinId,
    name: PinName,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Rename {
    type Out = Option<PinRecord>;

    async fn run(&self, conn: &mut Conn) -> Result<Option<PinRecord>, StoreError> {
        let query = select_pins!("WHERE n.id = $1 AND n.account_id = $2");
        let query = statement::query_as::<PinRow>(query).bind(self.pin.0).bind(self.account.0);
        let Some(row) = query.fetch_optional(&mut *conn).await? else { return Ok(None) };
        let pin = row.into_record()?;
        if pin.custom_name.as_ref() == Some(&self.name) {
            return Ok(Some(pin));
        }
        statement::query("UPDATE pins SET custom_name = $2 WHERE id = $1")
            .bind(self.pin.0)
            .bind(self.name.as_str())
            .execute(&mut *conn)
            .await?;
        let details = Details::default().with("cluster", &pin.placement.cluster).with("name", &self.name);
        let event = AuditEvent::new(self.account, self.by, "pin.update", pin.placement.cid.to_string());
        self.journal.log(conn, &event.with(details), self.now).await?;
        Ok(Some(PinRecord { custom_name: Some(self.name.clone()), ..pin }))
    }
}

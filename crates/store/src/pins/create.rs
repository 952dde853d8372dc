//! Creates or updates a pin in one transaction.
//!
//! If the content is already pinned, the write reads the placement, charges the account and inserts the pin. Otherwise
//! it also queues the placement. `create_batch` does the same for many pins at once.

use cid::Cid;
use pinfold_model::{
    AccountId, Actor, AuditEvent, ClusterId, Details, Event, Lifetime, LifetimeError, Origin, PinId, PinKind,
    PinName, PinOptions, PinPhase, PlacementId, PlacementState, Timestamp, WebhookEvent,
};
use sqlx::{FromRow, QueryBuilder, Row};

use crate::accounts::quota;
use crate::audit::Journal;
use crate::db::row::column;
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::pins::record::{IN_FLIGHT, PinRow, select_pins_from};
use crate::placements::lease::ORIGINS_MAX;
use crate::placements::record::PlacementRow;
use crate::statistics::PinSumChanges;
use crate::webhooks::outbox::Outbox;
use crate::{Lease, LeasedPlacement, PinRecord, PlacementRecord, Store, StoreError};

/// Queue delay of a new pin for each pin that its account already has in flight, in milliseconds. Pins of other
/// accounts overtake those of an account with many.
const FAIR_STEP_MS: i64 = 1_000;

/// Selects the placement of a CID in a cluster, with the account's pin of it, if there is one.
pub(crate) const FIND_EXISTING: &str = select_pins_from!(
    "placements p LEFT JOIN pins n ON n.placement_id = p.id AND n.account_id = $3 WHERE p.cid = $1 AND p.cluster = $2"
);

/// A request to create or update a pin.
#[derive(Debug, Clone)]
pub struct CreatePin {
    pub account: AccountId,
    pub actor: Actor,
    /// The action in the audit log if a pin is created.
    pub action: &'static str,
    /// The root of the DAG.
    pub cid: Cid,
    pub cluster: ClusterId,
    pub options: PinOptions,
    /// The most pins of the account that may be in flight.
    pub in_flight_max: u32,
    /// If the placement is new, the caller processes it itself, under a lease that expires at this time.
    pub lease_until: Option<Timestamp>,
}

/// The result of [`Store::create_pin`].
#[derive(Debug, Clone)]
pub enum CreatePinOutcome {
    /// The pin is written.
    Done {
        /// The pin after the write.
        pin: Box<PinRecord>,
        /// Whether the account had no live pin of the CID in the cluster before.
        created: bool,
        /// Whether a worker has to process the placement now.
        work: bool,
        /// The lease on the placement, if the caller asked for one and the placement is new.
        lease: Option<Box<LeasedPlacement>>,
    },
    /// The pin exceeds the account's remaining storage. Nothing was changed.
    OverQuota,
    /// The account has too many pins in flight. Nothing was changed.
    TooManyInFlight,
    /// The lifetime is invalid. Nothing was changed.
    Refused(LifetimeError),
}

impl Store {
    /// Creates the pin, or updates the live pin of the same CID and cluster.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_pin(
        &self,
        request: CreatePin,
        now: Timestamp,
    ) -> Result<CreatePinOutcome, StoreError> {
        let write = self.create_pin_write(request, now);
        self.writer.write_in(&self.lanes.create_pin, write).await
    }

    pub(crate) fn create_pin_write(&self, request: CreatePin, now: Timestamp) -> CreatePinWrite {
        let (pin_id, placement_id, lease) = (self.id(now), self.id(now), self.id(now));
        let (journal, outbox) = (self.journal(), self.outbox());
        CreatePinWrite { request, now, pin_id, placement_id, lease, journal, outbox }
    }
}

/// A request with the ids that it may need.
pub(crate) struct CreatePinWrite {
    pub(super) request: CreatePin,
    pub(super) now: Timestamp,
    pin_id: i64,
    placement_id: i64,
    lease: i64,
    pub(super) journal: Journal,
    pub(super) outbox: Outbox,
}

impl Write for CreatePinWrite {
    type Out = CreatePinOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<CreatePinOutcome, StoreError> {
        self.run_with(conn, &mut None).await
    }
}

impl CreatePinWrite {
    /// Writes the request. `in_flight` caches the number of the account's pins in flight between the requests of a
    /// batch.
    pub(crate) async fn run_with(
        &self,
        conn: &mut Conn,
        in_flight: &mut Option<i64>,
    ) -> Result<CreatePinOutcome, StoreError> {
        let (placement, old) = self.find_existing(conn).await?;
        let before = old.as_ref().map(PinRecord::lifetime).unwrap_or_default();
        let lifetime = match before.renewed(self.request.options.lifetime(), self.now) {
            Ok(lifetime) => lifetime,
            Err(error) => return Ok(CreatePinOutcome::Refused(error)),
        };
        match (placement, old) {
            (Some(_), Some(pin)) if pin.phase != PinPhase::Failed => {
                self.update_live(conn, pin, lifetime).await
            }
            (Some(placement), old) if placement.is_whole() => {
                self.activate(conn, placement, old, lifetime).await
            }
            (placement, old) => self.enqueue(conn, placement, old, lifetime, in_flight).await,
        }
    }

    /// The placement, and the account's pin of it.
    async fn find_existing(
        &self,
        conn: &mut Conn,
    ) -> Result<(Option<PlacementRecord>, Option<PinRecord>), StoreError> {
        let row = statement::query(FIND_EXISTING)
            .bind(self.request.cid.to_string())
            .bind(self.request.cluster.as_str())
            .bind(self.request.account.0)
            .fetch_optional(conn)
            .await?;
        let Some(row) = row else { return Ok((None, None)) };
        let placement = PlacementRow::from_row(&row)?.into_record()?;
        let pin = match row.try_get::<Option<i64>, _>("pin_id")? {
            Some(_) => Some(PinRow::from_row(&row)?.into_record()?),
            None => None,
        };
        Ok((Some(placement), pin))
    }

    /// The account has a live pin: applies the options to it.
    async fn update_live(
        &self,
        conn: &mut Conn,
        mut pin: PinRecord,
        lifetime: Lifetime,
    ) -> Result<CreatePinOutcome, StoreError> {
        let options = &self.request.options;
        let is_new =
            options.original_name.is_some() || options.custom_name.is_some() || lifetime != pin.lifetime();
        if is_new || pin.phase == PinPhase::Pending {
            let before = (pin.original_name.clone(), pin.custom_name.clone(), pin.lifetime());
            pin.original_name = options.original_name.clone().or(pin.original_name);
            pin.custom_name = options.custom_name.clone().or(pin.custom_name);
            Lifetime { expires_at: pin.expires_at, retain_until: pin.retain_until } = lifetime;
            pin.request_count += 1;
            self.update(conn, &pin).await?;
            if before != (pin.original_name.clone(), pin.custom_name.clone(), pin.lifetime()) {
                self.record_event(conn, "pin.update", &pin).await?;
            }
        }
        if pin.phase == PinPhase::Pending {
            self.mark_requested(conn, pin.placement.id).await?;
        }
        Ok(CreatePinOutcome::Done { pin: Box::new(pin), created: false, work: false, lease: None })
    }

    /// The content is already pinned: charges the account and writes an active pin.
    async fn activate(
        &self,
        conn: &mut Conn,
        placement: PlacementRecord,
        old: Option<PinRecord>,
        lifetime: Lifetime,
    ) -> Result<CreatePinOutcome, StoreError> {
        let (account, bytes) = (self.request.account, placement.bytes);
        let new_pins = usize::from(old.is_none());
        let Some(charged) = quota::charge(conn, account, new_pins, bytes).await? else {
            return Ok(CreatePinOutcome::OverQuota);
        };
        let pin = self.write_pin(conn, placement, old, PinPhase::Active, lifetime).await?;
        if charged.watched != 0 {
            self.outbox.record(conn, WebhookEvent::Pinned, pin.id.0, self.now).await?;
        }
        Ok(CreatePinOutcome::Done { pin: Box::new(pin), created: true, work: false, lease: None })
    }

    /// The content is not pinned: queues the placement and writes a pending pin.
    async fn enqueue(
        &self,
        conn: &mut Conn,
        placement: Option<PlacementRecord>,
        old: Option<PinRecord>,
        lifetime: Lifetime,
        counted: &mut Option<i64>,
    ) -> Result<CreatePinOutcome, StoreError> {
        let in_flight = match *counted {
            Some(counted) => counted,
            None => self.count_in_flight(conn).await?,
        };
        if in_flight >= i64::from(self.request.in_flight_max) {
            return Ok(CreatePinOutcome::TooManyInFlight);
        }
        let room = match &old {
            Some(_) => quota::room(conn, self.request.account).await?,
            None => quota::add_pending_pins(conn, self.request.account, 1).await?,
        };
        let Some(room) = room else { return Ok(CreatePinOutcome::OverQuota) };
        *counted = Some(in_flight + 1);
        let Some(placement) = placement else {
            let placement = self.new_placement(in_flight);
            insert_placements(conn, std::slice::from_ref(&placement)).await?;
            let pin = self.write_pin(conn, placement.record, None, PinPhase::Pending, lifetime).await?;
            return Ok(self.queued_outcome(pin, room));
        };
        let placement = self.requeue(conn, placement, self.queue_ms(in_flight)).await?;
        let pin = self.write_pin(conn, placement, old, PinPhase::Pending, lifetime).await?;
        Ok(CreatePinOutcome::Done { pin: Box::new(pin), created: true, work: true, lease: None })
    }

    /// The queue position of a new pin of an account that has `in_flight` pins in flight.
    fn queue_ms(&self, in_flight: i64) -> i64 {
        self.now.as_ms() + in_flight * FAIR_STEP_MS
    }

    /// The outcome for a pin with a new placement. `room` is the remaining storage of the account in bytes.
    pub(super) fn queued_outcome(&self, pin: PinRecord, room: u64) -> CreatePinOutcome {
        let lease = self.request.lease_until.map(|_| LeasedPlacement {
            lease: Lease { placement: pin.placement.id, number: self.lease },
            placement: pin.placement.clone(),
            wanted: true,
            budget_bytes: room,
            origins: self.origins().take(ORIGINS_MAX).map(ToOwned::to_owned).collect(),
        });
        let (pin, lease) = (Box::new(pin), lease.map(Box::new));
        CreatePinOutcome::Done { pin, created: true, work: lease.is_none(), lease }
    }

    pub(super) async fn count_in_flight(&self, conn: &mut Conn) -> Result<i64, StoreError> {
        let count = statement::query_scalar(IN_FLIGHT);
        Ok(count
            .bind(self.request.account.0)
            .bind(i64::from(self.request.in_flight_max))
            .fetch_one(conn)
            .await?)
    }

    /// The placement of a CID that has none in the cluster yet. The account has `in_flight` pins in flight.
    pub(super) fn new_placement(&self, in_flight: i64) -> NewPlacement<'_> {
        let lease_until = self.request.lease_until;
        let state = PlacementState::Unpinned.after(Event::Wanted);
        let record = PlacementRecord {
            id: PlacementId(self.placement_id),
            cid: self.request.cid,
            cluster: self.request.cluster.clone(),
            state: if lease_until.is_some() { state.after(Event::Leased) } else { state },
            due_at: Some(lease_until.unwrap_or(self.now)),
            leased: lease_until.is_some(),
            attempts: 0,
            error: None,
            blocks: 0,
            bytes: 0,
            kind: PinKind::Unknown,
            damaged_blocks: 0,
            updated_at: self.now,
        };
        NewPlacement { write: self, record, queue_ms: self.queue_ms(in_flight) }
    }

    /// Records that a placement that is not pinned, or is damaged, is wanted. An existing lease remains valid.
    async fn requeue(
        &self,
        conn: &mut Conn,
        placement: PlacementRecord,
        queue_ms: i64,
    ) -> Result<PlacementRecord, StoreError> {
        let state = placement.state.after(Event::Wanted);
        if state == placement.state {
            self.mark_requested(conn, placement.id).await?;
            // The repair of a damaged placement moves ahead, because a pin now waits for it.
            if placement.damaged_blocks == 0 {
                return Ok(placement);
            }
        }
        let due_at = if placement.leased { placement.due_at } else { Some(self.now) };
        statement::query(
            "UPDATE placements SET state = $2, due_at_ms = $3, queue_ms = $4, attempts = 0, error_code = NULL, \
             error_detail = NULL, updated_at_ms = $5 WHERE id = $1",
        )
        .bind(placement.id.0)
        .bind(state.as_str())
        .bind(due_at.map(Timestamp::as_ms))
        .bind(queue_ms)
        .bind(self.now.as_ms())
        .execute(conn)
        .await?;
        Ok(PlacementRecord { state, due_at, attempts: 0, error: None, updated_at: self.now, ..placement })
    }

    /// Records for the holder of the lease that the placement was requested in the meantime.
    async fn mark_requested(&self, conn: &mut Conn, placement: PlacementId) -> Result<(), StoreError> {
        statement::query("UPDATE placements SET requested = 1 WHERE id = $1")
            .bind(placement.0)
            .execute(conn)
            .await?;
        Ok(())
    }

    /// Writes the row of the pin: inserts it, or reuses that of the failed pin.
    async fn write_pin(
        &self,
        conn: &mut Conn,
        placement: PlacementRecord,
        old: Option<PinRecord>,
        phase: PinPhase,
        lifetime: Lifetime,
    ) -> Result<PinRecord, StoreError> {
        let pin = self.pin(placement, old.as_ref(), phase, lifetime);
        let mut sums = PinSumChanges::default();
        if let Some(old) = &old {
            self.update(conn, &pin).await?;
            sums.add(old.placement.cluster.as_str(), old.phase, -1, -column(old.charged_bytes));
        } else {
            insert(conn, &[(self, &pin)]).await?;
        }
        sums.add(pin.placement.cluster.as_str(), pin.phase, 1, column(pin.charged_bytes));
        sums.write(conn).await?;
        self.record_event(conn, self.request.action, &pin).await?;
        Ok(pin)
    }

    /// The pin to write. `old` is the failed pin that it replaces.
    pub(super) fn pin(
        &self,
        placement: PlacementRecord,
        old: Option<&PinRecord>,
        phase: PinPhase,
        lifetime: Lifetime,
    ) -> PinRecord {
        let request = &self.request;
        let charged_bytes = if phase == PinPhase::Active { placement.bytes } else { 0 };
        PinRecord {
            id: old.map_or(PinId(self.pin_id), |old| old.id),
            account: request.account,
            placement,
            phase,
            original_name: request.options.original_name.clone().or_else(|| old?.original_name.clone()),
            custom_name: request.options.custom_name.clone().or_else(|| old?.custom_name.clone()),
            charged_bytes,
            request_count: old.map_or(0, |old| old.request_count) + 1,
            error: None,
            created_at: old.map_or(self.now, |old| old.created_at),
            expires_at: lifetime.expires_at,
            retain_until: lifetime.retain_until,
        }
    }

    async fn record_event(
        &self,
        conn: &mut Conn,
        action: &'static str,
        pin: &PinRecord,
    ) -> Result<(), StoreError> {
        self.journal.log(conn, &self.audit_event(action, pin), self.now).await
    }

    /// The audit event for a change of the pin.
    pub(super) fn audit_event(&self, action: &'static str, pin: &PinRecord) -> AuditEvent {
        let details = Details::default()
            .with("cluster", &pin.placement.cluster)
            .with_some("name", pin.custom_name.as_ref().or(pin.original_name.as_ref()))
            .with_some("expiresAt", pin.expires_at)
            .with_some("retainUntil", pin.retain_until);
        AuditEvent::new(pin.account, self.request.actor, action, pin.placement.cid.to_string()).with(details)
    }

    async fn update(&self, conn: &mut Conn, pin: &PinRecord) -> Result<(), StoreError> {
        statement::query(
            "UPDATE pins SET phase = $2, original_name = $3, custom_name = $4, charged_bytes = $5, \
             request_count = $6, origins = COALESCE($7, origins), expires_at_ms = $8, \
             retain_until_ms = $9, error_code = NULL, error_detail = NULL WHERE id = $1",
        )
        .bind(pin.id.0)
        .bind(pin.phase.as_str())
        .bind(pin.original_name.as_ref().map(PinName::as_str))
        .bind(pin.custom_name.as_ref().map(PinName::as_str))
        .bind(column(pin.charged_bytes))
        .bind(column(pin.request_count))
        .bind(self.origins_column())
        .bind(pin.expires_at.map(Timestamp::as_ms))
        .bind(pin.retain_until.map(Timestamp::as_ms))
        .execute(conn)
        .await?;
        Ok(())
    }

    fn origins(&self) -> impl Iterator<Item = &str> {
        self.request.options.origins.iter().map(Origin::as_str)
    }

    /// One origin per line.
    fn origins_column(&self) -> Option<String> {
        let origins = self.origins().collect::<Vec<_>>();
        (!origins.is_empty()).then(|| origins.join("\n"))
    }
}

/// A placement to insert.
pub(super) struct NewPlacement<'a> {
    /// The request that creates it.
    write: &'a CreatePinWrite,
    pub(super) record: PlacementRecord,
    queue_ms: i64,
}

/// Inserts placements, at most [`LIST_MAX`](crate::db::row::LIST_MAX) of them.
pub(super) async fn insert_placements(
    conn: &mut Conn,
    placements: &[NewPlacement<'_>],
) -> Result<(), StoreError> {
    if placements.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::new(
        "INSERT INTO placements (id, cid, cluster, state, lease, due_at_ms, queue_ms, attempts, blocks, bytes, kind, \
         created_at_ms, updated_at_ms) ",
    );
    query.push_values(placements, |mut row, NewPlacement { write, record, queue_ms }| {
        row.push_bind(record.id.0)
            .push_bind(record.cid.to_string())
            .push_bind(record.cluster.as_str().to_owned())
            .push_bind(record.state.as_str())
            .push_bind(record.leased.then_some(write.lease))
            .push_bind(record.due_at.map(Timestamp::as_ms))
            .push_bind(*queue_ms)
            .push("0, 0, 0")
            .push_bind(record.kind.as_str())
            .push_bind(record.updated_at.as_ms())
            .push_bind(record.updated_at.as_ms());
    });
    statement::build(&mut query).persistent(placements.len() == 1).execute(conn).await?;
    Ok(())
}

/// Inserts pins, at most [`LIST_MAX`](crate::db::row::LIST_MAX) of them.
pub(super) async fn insert(
    conn: &mut Conn,
    pins: &[(&CreatePinWrite, &PinRecord)],
) -> Result<(), StoreError> {
    if pins.is_empty() {
        return Ok(());
    }
    let mut query = QueryBuilder::new(
        "INSERT INTO pins (id, account_id, placement_id, phase, original_name, custom_name, charged_bytes, \
         request_count, origins, created_at_ms, expires_at_ms, retain_until_ms) ",
    );
    let name = |name: &Option<PinName>| name.as_ref().map(|name| name.as_str().to_owned());
    query.push_values(pins, |mut row, (write, pin)| {
        row.push_bind(pin.id.0)
            .push_bind(pin.account.0)
            .push_bind(pin.placement.id.0)
            .push_bind(pin.phase.as_str())
            .push_bind(name(&pin.original_name))
            .push_bind(name(&pin.custom_name))
            .push_bind(column(pin.charged_bytes))
            .push_bind(column(pin.request_count))
            .push_bind(write.origins_column())
            .push_bind(pin.created_at.as_ms())
            .push_bind(pin.expires_at.map(Timestamp::as_ms))
            .push_bind(pin.retain_until.map(Timestamp::as_ms));
    });
    statement::build(&mut query).persistent(pins.len() == 1).execute(conn).await?;
    Ok(())
}

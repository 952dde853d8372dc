//! API keys. Only hashes of their secrets are stored.

use pinfold_model::{
    Account, AccountId, Actor, AuditEvent, Details, IpRules, ScopeSet, Timestamp, Token, TokenId, TokenName,
};
use sqlx::FromRow;

use crate::accounts::account::AccountRow;
use crate::audit::Journal;
use crate::db::row::{time, unknown_value, word};
use crate::db::statement;
use crate::db::write_queue::{Conn, Write};
use crate::{Store, StoreError};

/// An API key to be created.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub account: AccountId,
    pub name: TokenName,
    /// Free text of the owner.
    pub label: Option<String>,
    /// Hash of the secret, in hexadecimal.
    pub hash: String,
    /// First characters of the secret.
    pub prefix: String,
    pub scopes: ScopeSet,
    /// Networks from which the key may be used.
    pub ip_allowlist: IpRules,
    pub expires_at: Option<Timestamp>,
    /// The key that authenticated the request, if any. It must still exist.
    pub maker: Option<TokenId>,
}

/// An API key found by its hash, with its account.
#[derive(Debug, Clone)]
pub struct AuthenticatedKey {
    pub token: Token,
    /// The stored hash of the secret.
    pub hash: String,
    pub account: Account,
}

/// Result of [`Store::create_token`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateTokenOutcome {
    Created(Box<Token>),
    /// The account already has a key with this name. Nothing was changed.
    NameTaken,
    /// The account has the maximum number of keys. Nothing was changed.
    TooMany,
    /// The key [`NewToken::maker`] no longer exists. Nothing was changed.
    MakerGone,
}

#[derive(Debug, FromRow)]
struct TokenRow {
    token_id: i64,
    account_id: i64,
    token_name: String,
    label: Option<String>,
    hash: String,
    prefix: String,
    scopes: String,
    ip_allowlist: String,
    token_created_at_ms: i64,
    expires_at_ms: Option<i64>,
    last_used_at_ms: Option<i64>,
}

#[derive(Debug, FromRow)]
struct AuthenticatedKeyRow {
    #[sqlx(flatten)]
    token: TokenRow,
    #[sqlx(flatten)]
    account: AccountRow,
}

impl TokenRow {
    fn into_token(self) -> Result<Token, StoreError> {
        Ok(Token {
            id: TokenId(self.token_id),
            account: AccountId(self.account_id),
            name: TokenName::parse(&self.token_name)
                .map_err(|_| unknown_value("key name", &self.token_name))?,
            label: self.label,
            prefix: self.prefix,
            scopes: word("scope", &self.scopes)?,
            ip_allowlist: word("allow-list", &self.ip_allowlist)?,
            created_at: Timestamp::from_ms(self.token_created_at_ms),
            expires_at: time(self.expires_at_ms),
            last_used_at: time(self.last_used_at_ms),
        })
    }
}

impl Store {
    /// Creates an API key, unless the account has `count_max` keys.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_token(
        &self,
        new: NewToken,
        count_max: u32,
        by: Actor,
        now: Timestamp,
    ) -> Result<CreateTokenOutcome, StoreError> {
        let (id, journal) = (self.id(now), self.journal());
        self.write(Create { id, new, count_max, by, now, journal }).await
    }

    /// The key with this hash, with its account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<AuthenticatedKey>, StoreError> {
        let row: Option<AuthenticatedKeyRow> = statement::query_as(
            "SELECT t.id AS token_id, t.account_id, t.name AS token_name, t.label, t.hash, t.prefix, t.scopes, t.ip_allowlist, \
             t.created_at_ms AS token_created_at_ms, t.expires_at_ms, t.last_used_at_ms, \
             a.id, a.email, a.name, a.role, a.plan, a.disabled, a.totp_enabled, a.used_bytes, a.dedup_bytes, \
             a.storage_limit_bytes, a.pin_count, a.created_at_ms \
             FROM tokens t JOIN accounts a ON a.id = t.account_id WHERE t.hash = $1",
        )
        .bind(hash)
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| {
            let hash = row.token.hash.clone();
            Ok(AuthenticatedKey {
                token: row.token.into_token()?,
                hash,
                account: row.account.into_account()?,
            })
        })
        .transpose()
    }

    /// The key with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        let row: Option<TokenRow> = statement::query_as(
            "SELECT id AS token_id, account_id, name AS token_name, label, hash, prefix, scopes, ip_allowlist, \
             created_at_ms AS token_created_at_ms, expires_at_ms, last_used_at_ms FROM tokens WHERE id = $1",
        )
        .bind(id.0)
        .fetch_optional(&self.readers)
        .await?;
        row.map(TokenRow::into_token).transpose()
    }

    /// Up to `limit` keys of the account, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self, account: AccountId, limit: u32) -> Result<Vec<Token>, StoreError> {
        let rows: Vec<TokenRow> = statement::query_as(
            "SELECT id AS token_id, account_id, name AS token_name, label, hash, prefix, scopes, ip_allowlist, \
             created_at_ms AS token_created_at_ms, expires_at_ms, last_used_at_ms \
             FROM tokens WHERE account_id = $1 ORDER BY id LIMIT $2",
        )
        .bind(account.0)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(TokenRow::into_token).collect()
    }

    /// Deletes the key with this name. False if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_token(
        &self,
        account: AccountId,
        name: &TokenName,
        by: Actor,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(Revoke { account, name: name.clone(), by, now, journal: self.journal() }).await
    }

    /// Records when keys were last used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn record_token_use(&self, used: Vec<(TokenId, Timestamp)>) -> Result<(), StoreError> {
        self.write(RecordUse(used)).await
    }
}

struct Create {
    id: i64,
    new: NewToken,
    count_max: u32,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Create {
    type Out = CreateTokenOutcome;

    async fn run(&self, conn: &mut Conn) -> Result<CreateTokenOutcome, StoreError> {
        let new = &self.new;
        if let Some(maker) = new.maker
            && !exists(conn, maker).await?
        {
            return Ok(CreateTokenOutcome::MakerGone);
        }
        let count: i64 = statement::query_scalar("SELECT COUNT(*) FROM tokens WHERE account_id = $1")
            .bind(new.account.0)
            .fetch_one(&mut *conn)
            .await?;
        if count >= i64::from(self.count_max) {
            return Ok(CreateTokenOutcome::TooMany);
        }
        let done = statement::query(
            "INSERT INTO tokens (id, account_id, name, label, hash, prefix, scopes, created_at_ms, expires_at_ms, \
             ip_allowlist) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (account_id, name) DO NOTHING",
        )
        .bind(self.id)
        .bind(new.account.0)
        .bind(new.name.as_str())
        .bind(&new.label)
        .bind(&new.hash)
        .bind(&new.prefix)
        .bind(new.scopes.to_string())
        .bind(self.now.as_ms())
        .bind(new.expires_at.map(Timestamp::as_ms))
        .bind(new.ip_allowlist.to_string())
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(CreateTokenOutcome::NameTaken);
        }
        let details = Details::default()
            .with("scopes", new.scopes)
            .with_some("expiresAt", new.expires_at)
            .with_some("ipAllowlist", Some(&new.ip_allowlist).filter(|rules| !rules.is_empty()));
        let event = AuditEvent::new(new.account, self.by, "token.create", new.name.as_str()).with(details);
        self.journal.log(conn, &event, self.now).await?;
        Ok(CreateTokenOutcome::Created(Box::new(Token {
            id: TokenId(self.id),
            account: new.account,
            name: new.name.clone(),
            label: new.label.clone(),
            prefix: new.prefix.clone(),
            scopes: new.scopes,
            ip_allowlist: new.ip_allowlist.clone(),
            created_at: self.now,
            expires_at: new.expires_at,
            last_used_at: None,
        })))
    }
}

async fn exists(conn: &mut Conn, token: TokenId) -> Result<bool, StoreError> {
    let row: Option<i64> = statement::query_scalar("SELECT CAST(1 AS BIGINT) FROM tokens WHERE id = $1")
        .bind(token.0)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

struct Revoke {
    account: AccountId,
    name: TokenName,
    by: Actor,
    now: Timestamp,
    journal: Journal,
}

impl Write for Revoke {
    type Out = bool;

    async fn run(&self, conn: &mut Conn) -> Result<bool, StoreError> {
        let done = statement::query("DELETE FROM tokens WHERE account_id = $1 AND name = $2")
            .bind(self.account.0)
            .bind(self.name.as_str())
            .execute(&mut *conn)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let event = AuditEvent::new(self.account, self.by, "token.revoke", self.name.as_str());
        self.journal.log(conn, &event, self.now).await?;
        Ok(true)
    }
}

struct RecordUse(Vec<(TokenId, Timestamp)>);

impl Write for RecordUse {
    type Out = ();

    async fn run(&self, conn: &mut Conn) -> Result<(), StoreError> {
        for (id, at) in &self.0 {
            statement::query("UPDATE tokens SET last_used_at_ms = $2 WHERE id = $1")
                .bind(id.0)
                .bind(at.as_ms())
                .execute(&mut *conn)
                .await?;
        }
        Ok(())
    }
}

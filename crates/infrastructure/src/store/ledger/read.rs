//! Charges, transfers and balances as they are asked for.

use kernel::Currency;
use kernel::store::ledger::{Account, Balance, Charge, Filter, PostingId, Transfer};
use kernel::time::Timestamp;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::rows::{account, read_charge, read_transfer};
use crate::store::Store;
use crate::store::columns::Columns;
use crate::store::failure::Failure;
use crate::store::session::Statement;

const CHARGES: &str = "SELECT id, at, request, tenant, key, model, version, operation, tag, input, cached, cache_write, \
                       audio_input, output, reasoning, audio_output, images, estimated, gpu_millis, ending, plan, \
                       price, currency, units, pico FROM charges";
const FROM_THE_START: &str = "";
/// Each side by its own index, so that a page costs a page however long the account is.
pub(super) const TRANSFERS: &str = "SELECT id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note FROM (\
    SELECT * FROM (SELECT id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note FROM transfers \
    WHERE debit = $1 AND (at, id) > ($2, $3) ORDER BY at, id LIMIT $4) AS debits UNION ALL \
    SELECT * FROM (SELECT id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note FROM transfers \
    WHERE credit = $1 AND debit <> $1 AND (at, id) > ($2, $3) ORDER BY at, id LIMIT $4) AS credits\
    ) AS both_sides ORDER BY at, id LIMIT $4";
/// The same of those that no call caused.
pub(super) const MOVES: &str = "SELECT id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note FROM transfers \
                     WHERE (debit = $1 OR credit = $1) AND cause <> 'call' AND (at, id) > ($2, $3) \
                     ORDER BY at, id LIMIT $4";
const TRANSFER: &str = "SELECT id, at, cause, debit, credit, units, pico, currency, reverses, invoice, note \
                        FROM transfers WHERE id = $1";
const BALANCE: &str = "SELECT debit_units, debit_pico, credit_units, credit_pico FROM accounts \
                       WHERE name = $1 AND currency = $2";
const BALANCES_OF: &str = "SELECT name, currency, debit_units, debit_pico, credit_units, credit_pico FROM accounts";
const BALANCES: &str = "SELECT name, currency, debit_units, debit_pico, credit_units, credit_pico FROM accounts \
                        ORDER BY name, currency";

/// A condition made of constant pieces and values to be bound.
pub(in crate::store) struct Condition {
    sql: String,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Number(i64),
}

impl Store {
    pub(super) async fn list_charges(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Result<Vec<Charge>, Failure> {
        let mut condition = Condition::of(filter, "at");
        if let Some((at, id)) = after {
            condition.number(" AND (at, id) > (", at.millis());
            condition.text(", ", id.to_string());
            condition.say(")");
        }
        condition.number(" ORDER BY at, id LIMIT ", i64::from(most));
        let sql = format!("{CHARGES}{}", condition.sql);
        let mut session = self.reporting(self.long("list charges")).await?;
        let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        session.done();
        rows.iter().map(read_charge).collect()
    }

    pub(super) async fn list_transfers(
        &self,
        list: &'static str,
        account: &Account,
        after: Option<(Timestamp, PostingId)>,
        most: u32,
    ) -> Result<Vec<Transfer>, Failure> {
        let (at, id) = after.map_or((i64::MIN, FROM_THE_START.to_owned()), |(at, id)| (at.millis(), id.to_string()));
        let list = sqlx::query(list).bind(account.name()).bind(at).bind(id).bind(i64::from(most));
        let mut session = self.reading(self.long("list transfers")).await?;
        let rows = session.rows(list).await?;
        session.done();
        rows.iter().map(read_transfer).collect()
    }

    pub(super) async fn find_transfer(&self, id: PostingId) -> Result<Option<Transfer>, Failure> {
        let mut session = self.reading(self.short("find transfer")).await?;
        let row = session.row(sqlx::query(TRANSFER).bind(id.to_string())).await?;
        session.done();
        row.as_ref().map(read_transfer).transpose()
    }

    pub(super) async fn find_balance(&self, account: &Account, currency: Currency) -> Result<Balance, Failure> {
        let mut session = self.reading(self.short("find balance")).await?;
        let row = session.row(sqlx::query(BALANCE).bind(account.name()).bind(currency.as_str())).await?;
        session.done();
        row.map_or(Ok(Balance::default()), |row| read_balance(&mut Columns::of(&row)))
    }

    pub(super) async fn find_balances(
        &self,
        accounts: &[Account],
    ) -> Result<Vec<(Account, Currency, Balance)>, Failure> {
        let mut condition = Condition::all();
        condition.any_of("name", accounts.iter().map(Account::name));
        condition.say(" ORDER BY name, currency");
        let sql = format!("{BALANCES_OF}{}", condition.sql);
        let mut session = self.reading(self.long("find balances")).await?;
        let rows = session.rows(condition.bind(sqlx::query(AssertSqlSafe(sql)))).await?;
        session.done();
        rows.iter().map(named_balance).collect()
    }

    pub(super) async fn list_balances(&self) -> Result<Vec<(Account, Currency, Balance)>, Failure> {
        let mut session = self.reading(self.long("list balances")).await?;
        let rows = session.rows(sqlx::query(BALANCES)).await?;
        session.done();
        rows.iter().map(named_balance).collect()
    }
}

fn named_balance(row: &AnyRow) -> Result<(Account, Currency, Balance), Failure> {
    let mut columns = Columns::of(row);
    Ok((account(columns.text()?)?, columns.currency()?, read_balance(&mut columns)?))
}

fn read_balance(columns: &mut Columns<'_>) -> Result<Balance, Failure> {
    Ok(Balance { debits: columns.money()?, credits: columns.money()? })
}

// === impl Condition ===

impl Condition {
    /// What a filter lets through, by a column of time.
    pub(super) fn of(filter: &Filter, time: &'static str) -> Self {
        let mut condition = Self::all();
        if !filter.tenants.is_empty() {
            condition.any_of("tenant", filter.tenants.iter().map(|tenant| tenant.as_str().to_owned()));
        }
        let texts = [
            (" AND tenant = ", filter.tenant.as_ref().map(|tenant| tenant.as_str())),
            (" AND key = ", filter.key.as_ref().map(|key| key.as_str())),
            (" AND model = ", filter.model.as_ref().map(|model| model.as_str())),
            (" AND tag = ", filter.tag.as_deref()),
        ];
        for (sql, text) in texts {
            if let Some(text) = text {
                condition.text(sql, text.to_owned());
            }
        }
        for (compare, at) in [(" >= ", filter.from), (" < ", filter.until)] {
            if let Some(at) = at {
                condition.say(" AND ");
                condition.say(time);
                condition.number(compare, at.millis());
            }
        }
        condition
    }

    /// Everything.
    pub(in crate::store) fn all() -> Self {
        Self { sql: " WHERE 1 = 1".into(), values: Vec::new() }
    }

    /// A column is one of these; of none, nothing is.
    pub(in crate::store) fn any_of(&mut self, column: &'static str, texts: impl Iterator<Item = String>) {
        self.say(" AND ");
        self.say(column);
        let mut before = " IN (";
        for text in texts {
            self.text(before, text);
            before = ", ";
        }
        self.say(if before == ", " { ")" } else { " IN (NULL)" });
    }

    /// The condition with its word, to stand after a table.
    pub(in crate::store) fn sql(&self) -> &str {
        &self.sql
    }

    /// Binds its values, the first ones of the statement.
    pub(in crate::store) fn bind<'q>(self, statement: Statement<'q>) -> Statement<'q> {
        self.values.into_iter().fold(statement, |statement, value| match value {
            Value::Text(text) => statement.bind(text),
            Value::Number(number) => statement.bind(number),
        })
    }

    /// Only what this program has made itself: values are bound.
    pub(super) fn say(&mut self, sql: &str) {
        self.sql.push_str(sql);
    }

    pub(super) fn text(&mut self, sql: &'static str, text: String) {
        self.value(sql, Value::Text(text));
    }

    pub(super) fn number(&mut self, sql: &'static str, number: i64) {
        self.value(sql, Value::Number(number));
    }

    fn value(&mut self, sql: &'static str, value: Value) {
        self.values.push(value);
        self.sql.push_str(sql);
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
    }
}

//! Prices: entered, withdrawn.

use std::sync::Arc;

use kernel::settings::Findings;
use kernel::store::registry::{PriceRow, Source};
use kernel::{Price, Timestamp};

use super::Register;
use super::seed::price_row;
use crate::{Refused, when};

impl Register {
    /// Enters a price into the catalogue; the same again changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn enter_price(self: &Arc<Self>, price: Price) -> Result<PriceRow, Refused> {
        let mut findings = Findings::default();
        validate_price(&price, "", &mut findings);
        Refused::found(findings)?;
        let row = price_row(&price, Source::Api, Timestamp::now());
        self.store.enter_price(row.clone()).await.map_err(|fault| Refused::by(fault, "price"))?;
        self.refresh().await;
        Ok(row)
    }

    /// Every price, withdrawn ones included, in order of entering.
    ///
    /// # Errors
    /// Why not.
    pub async fn prices(&self) -> Result<Vec<PriceRow>, Refused> {
        self.store.prices().await.map_err(|fault| Refused::by(fault, "price"))
    }

    /// Takes a price out of force. Bills that were made by it stay as they are.
    ///
    /// # Errors
    /// Why not.
    pub async fn withdraw_price(self: &Arc<Self>, id: &str) -> Result<(), Refused> {
        let found = self.prices().await?.into_iter().find(|row| row.id == id).ok_or(Refused::Missing("price"))?;
        if found.source == Source::Config {
            return Err(Refused::Declared("price"));
        }
        self.store.withdraw_price(id, Timestamp::now()).await.map_err(|fault| Refused::by(fault, "price"))?;
        self.refresh().await;
        Ok(())
    }
}

/// What the schema cannot say.
pub fn validate_price(price: &Price, path: &str, findings: &mut Findings) {
    let name = price.model.strip_suffix('*').unwrap_or(&price.model);
    let fits = !price.model.is_empty() && !name.contains('*');
    findings.require(
        fits,
        format!("{path}.model"),
        "must be a model's name, or the beginning of names with `*` at its end",
    );
    let day = price.from.len() == 10 && when::read(&price.from).is_some();
    findings.require(day, format!("{path}.from"), "must be a day, as in 2026-01-31");
}

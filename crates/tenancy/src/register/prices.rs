//! Prices: entered, withdrawn.

use std::sync::Arc;

use kernel::settings::Findings;
use kernel::store::registry::{PriceRow, Source};
use kernel::{Price, Timestamp};

use super::Register;
use super::seed::price_row;
use crate::{Refused, catalogue};

impl Register {
    /// Enters a price into the catalogue; the same again changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn enter_price(self: &Arc<Self>, price: Price) -> Result<PriceRow, Refused> {
        let mut findings = Findings::default();
        catalogue::validate(&price, "", &mut findings);
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

//! Plans: entered version by version, retired.

use std::collections::HashSet;
use std::sync::Arc;

use kernel::Timestamp;
use kernel::settings::Findings;
use kernel::store::Fault;
use kernel::store::registry::{PlanRow, Source};
use serde_json::{Map, Value};

use super::Register;
use super::seed::plan_row;
use super::tenants::word;
use crate::{PlanSettings, Refused, shape};

/// Bound: it stands in bills and metrics.
const NAME_MAX: usize = 64;

impl Register {
    /// Puts a version of a plan in force. Tenants on the plan are on it at once.
    ///
    /// # Errors
    /// Why not.
    pub async fn enter_plan(self: &Arc<Self>, settings: PlanSettings) -> Result<PlanRow, Refused> {
        if !word(&settings.name, NAME_MAX) {
            let message = format!("must be 1 to {NAME_MAX} letters, digits, `.`, `_` or `-`, a letter or digit first");
            return Err(Refused::invalid("name", message));
        }
        self.own_plan(&settings.name)?;
        let mut findings = Findings::default();
        settings.validate("", &mut HashSet::new(), &mut findings);
        Refused::found(findings)?;
        let row = plan_row(&settings, Source::Api, Timestamp::now());
        self.store.enter_plan(row.clone()).await.map_err(|fault| Refused::by(fault, "plan"))?;
        self.refresh().await;
        Ok(row)
    }

    /// Every version of every plan, in order of name and time.
    ///
    /// # Errors
    /// Why not.
    pub async fn plans(&self) -> Result<Vec<PlanRow>, Refused> {
        self.store.plans().await.map_err(|fault| Refused::by(fault, "plan"))
    }

    /// Every version of a plan, the one in force last; none where there is no such plan.
    ///
    /// # Errors
    /// Why not.
    pub async fn plan_versions(&self, name: &str) -> Result<Vec<PlanRow>, Refused> {
        let mut versions: Vec<PlanRow> = self.plans().await?.into_iter().filter(|row| row.name == name).collect();
        versions.sort_by_key(PlanRow::entered);
        Ok(versions)
    }

    /// Retires a plan: no tenant can be put on it any more.
    ///
    /// # Errors
    /// Why not; while tenants are on it, `Conflict`.
    pub async fn retire_plan(self: &Arc<Self>, name: &str) -> Result<(), Refused> {
        self.own_plan(name)?;
        self.store.retire_plan(name, Timestamp::now()).await.map_err(|fault| match fault {
            Fault::Conflict(_) => Refused::Conflict("Tenants are on this plan: put them on another one first.".into()),
            other => Refused::by(other, "plan"),
        })?;
        self.refresh().await;
        Ok(())
    }

    fn own_plan(&self, name: &str) -> Result<(), Refused> {
        let declared = self.declared().plans.iter().any(|plan| plan.name == name);
        if declared { Err(Refused::Declared("plan")) } else { Ok(()) }
    }
}

/// A version's settings.
pub(super) fn settings(row: &PlanRow) -> Result<PlanSettings, Refused> {
    shape::kept(&row.terms, name(row)).map_err(Refused::Broken)
}

/// A plan's row in the shape of a config.
///
/// # Errors
/// Where the row cannot be understood.
pub fn plan_fields(row: &PlanRow) -> Result<Map<String, Value>, Refused> {
    let mut fields = name(row);
    fields.extend(shape::object(&row.terms).map_err(Refused::Broken)?);
    Ok(fields)
}

fn name(row: &PlanRow) -> Map<String, Value> {
    [("name".to_owned(), Value::from(row.name.as_str()))].into_iter().collect()
}

//! What every store promises, whatever it is made of.
//!
//! Each claim is run against an empty store that two processes have open, as two gateways would: `one` and `two` are two
//! stores on the same data. A claim says what the ports in `kernel::store` say and nothing about how it is done.

mod invoices;
mod ledger;
mod plans;
mod posting;
mod seed;
mod tenants;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kernel::store::{Ledger, Registry};

pub use posting::charge;
pub use tenants::tenant;

/// A store: both ports.
pub trait Books: Registry + Ledger {}

impl<T: Registry + Ledger> Books for T {}

/// A store as a claim is given it.
pub type Shared = Arc<dyn Books>;

/// A claim being checked: it panics if it does not hold.
type Checking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One claim.
pub struct Claim {
    /// What is claimed, in words joined by `_`.
    pub name: &'static str,
    check: fn(Shared, Shared) -> Checking,
}

macro_rules! claims {
    ($($module:ident: $($name:ident)+;)+) => {
        /// All claims.
        pub const CLAIMS: &[Claim] = &[
            $($(Claim { name: stringify!($name), check: |one, two| Box::pin($module::$name(one, two)) },)+)+
        ];
    };
}

claims! {
    tenants:
        a_snapshot_comes_only_when_something_changed
        every_change_is_in_the_snapshot_of_another_process
        a_tenant_is_made_once
        a_tenant_changed_meanwhile_is_a_conflict
        of_two_who_change_a_tenant_at_once_one_wins
        a_change_of_plan_ends_one_subscription_and_begins_another
        a_key_needs_a_tenant_and_an_id_a_hash_and_a_name_of_its_own
        a_key_is_changed_and_revoked_by_its_tenant_alone
        a_key_revoked_twice_was_revoked_the_first_time
        refused_keys_leave_the_snapshot_and_stay_in_the_list
        when_a_key_was_used_only_goes_forward
        tenants_come_in_pages_by_the_bytes_of_their_ids
        what_people_write_is_kept_to_the_letter;
    plans:
        the_version_of_a_plan_entered_last_is_in_force
        a_plan_is_not_retired_under_its_tenants
        a_price_is_entered_once_and_withdrawn;
    seed:
        the_same_seed_again_changes_nothing
        a_seed_takes_the_place_of_the_one_before
        a_seed_leaves_alone_what_came_by_the_api
        a_seeded_tenant_with_charges_stays_suspended_and_comes_back
        a_seeded_key_that_was_revoked_stays_revoked
        two_who_seed_the_same_at_once_seed_it_once;
    posting:
        what_is_posted_is_read_back_exactly
        what_is_posted_again_counts_for_nothing
        what_many_post_at_once_counts_once
        an_empty_batch_is_no_trouble
        a_batch_that_cannot_be_taken_leaves_nothing_behind
        odd_text_and_absurd_counts_stop_no_batch
        a_transfer_is_taken_back_at_most_once;
    ledger:
        sums_come_in_pages_in_order_however_they_are_split
        sums_are_split_by_every_dimension
        sums_and_charges_are_what_a_filter_lets_through
        what_has_no_tag_is_not_what_has_an_empty_one
        charges_and_transfers_come_in_pages_by_time_and_id
        accounts_balance_to_the_last_part_of_a_unit;
    invoices:
        an_invoice_is_issued_once_with_its_transfers
        of_two_invoices_for_the_same_time_one_is_issued
        a_tenant_has_an_invoice_in_each_currency_for_the_same_time
        moves_leave_calls_out_and_a_transfer_is_found_by_its_id;
}

/// Runs every claim against stores that `open` makes: two on the same data, empty, new ones each time.
///
/// # Panics
/// When one does not hold; its name is the last thing printed.
pub async fn uphold<F: Future<Output = (Shared, Shared)>>(open: impl Fn() -> F) {
    for claim in CLAIMS {
        println!("{}", claim.name);
        let (one, two) = open().await;
        (claim.check)(Arc::clone(&one), two).await;
        let found = one.audit().await.expect("an audit");
        assert!(found.is_empty(), "{}: the audit found {found:#?}", claim.name);
    }
}

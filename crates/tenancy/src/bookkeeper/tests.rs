//! What a bookkeeper makes of single pages; what it makes of a life is simulated elsewhere.

use kernel::store::daybook::{Entry, Page, Progress};
use kernel::store::ledger::{Charge, Ending, PostingId};
use kernel::{Currency, KeyId, ModelName, Money, RequestId, TenantId, Timestamp, Tokens, Usage, Version};

use super::*;

fn draft(id: u128) -> Box<Charge> {
    Box::new(Charge {
        id: PostingId(uuid::Uuid::from_u128(id)),
        at: Timestamp(id as i64),
        request: RequestId::new("r"),
        tenant: TenantId::new("t"),
        key: Some(KeyId::new(format!("k{}", id % 2))),
        model: ModelName::new("m"),
        version: Version::new("v"),
        operation: "chat",
        tag: None,
        usage: Usage { input: Tokens(10), estimated: true, ..Usage::default() },
        gpu_millis: 0,
        ending: Ending::GatewayKilled,
        plan: None,
        price: None,
        currency: Currency::USD,
        amount: Money::ZERO,
    })
}

fn progress(id: u128, output: u64) -> Entry {
    let usage = Usage { output: Tokens(output), ..draft(id).usage };
    Entry::Progress(Progress { id: draft(id).id, usage, gpu_millis: 5, amount: Money::from_units(output as i64) })
}

fn take(desk: &mut Desk, past: bool, mark: u64, entries: Vec<Entry>) -> u64 {
    desk.take(Page { entries, mark, past })
}

fn waiting(desk: &mut Desk) -> Vec<(u128, u64, Ending)> {
    let seen =
        desk.waiting.iter().map(|charge| (charge.id.0.as_u128(), charge.usage.output.0, charge.ending)).collect();
    desk.posted(usize::MAX);
    desk.finished();
    seen
}

#[test]
fn what_a_killed_process_left_open_is_charged_as_far_as_it_had_come() {
    let mut desk = Desk::default();
    let left = vec![
        // From another core's file: its beginning comes later.
        progress(1, 7),
        progress(1, 3),
        Entry::Opened(draft(1)),
        Entry::Opened(draft(2)),
        Entry::Opened(draft(3)),
        progress(3, 9),
        Entry::Closed(draft(3)),
        Entry::Void(draft(4).id),
        Entry::Opened(draft(4)),
    ];
    assert_eq!(take(&mut desk, true, 1, left), 0);
    assert_eq!(waiting(&mut desk), [(3, 0, Ending::GatewayKilled)], "closed as it says");
    assert_eq!(desk.needed(), Some(1));
    assert!(!desk.between());
    let now = vec![Entry::Closed(draft(5))];
    assert_eq!(take(&mut desk, false, 2, now), 1);
    assert!(desk.past, "they are not this process's");
    assert_eq!(waiting(&mut desk), [(1, 7, Ending::GatewayKilled)], "the second had handed nothing on");
    let held = desk.held().unwrap();
    take(&mut desk, held.past, held.mark, held.entries);
    assert!(!desk.past);
    assert_eq!(waiting(&mut desk).len(), 1);
    assert!(desk.between() && desk.needed().is_none());
}

#[test]
fn open_attempts_hold_their_pages_until_they_are_carried_on() {
    let mut desk = Desk::default();
    take(&mut desk, false, 1, vec![Entry::Opened(draft(1)), Entry::Opened(draft(2))]);
    take(&mut desk, false, 2, vec![progress(1, 5)]);
    take(&mut desk, false, 3, vec![Entry::Void(draft(2).id)]);
    assert_eq!(desk.needed(), Some(1));
    let mut copies = Vec::new();
    desk.carry(|draft, progress| {
        copies.push((draft.id, progress.map(|progress| progress.usage.output.0)));
        true
    });
    assert_eq!(copies, [(draft(1).id, Some(5))]);
    assert_eq!(desk.needed(), None, "the copies are not read yet");
    take(&mut desk, false, 9, vec![Entry::Carried(draft(1)), progress(1, 5), Entry::Carried(draft(2))]);
    assert_eq!((desk.needed(), desk.open()), (Some(9), 1), "what has ended meanwhile is not opened again");
    take(&mut desk, false, 10, vec![Entry::Closed(draft(1))]);
    assert_eq!(desk.needed(), None);
    desk.carry(|_, _| panic!("nothing is open"));
}

#[test]
fn where_there_is_no_room_for_copies_the_first_entries_stay() {
    let mut desk = Desk::default();
    take(&mut desk, false, 1, vec![Entry::Opened(draft(1))]);
    desk.carry(|_, _| false);
    assert_eq!(desk.needed(), Some(1));
}

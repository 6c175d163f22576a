//! How a call ends decides its bill; however it comes, the same usage costs the same.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use kernel::contract::Budget;
use kernel::fleet::Deployment;
use kernel::store::Daybook;
use kernel::store::daybook::{Backlog, Entry, Full, Page, Progress};
use kernel::store::ledger::{Charge, PostingId};
use kernel::{
    Call, Caller, Delta, Deltas, Head, InstanceId, ModelName, Moment, Money, Note, Operation, Payload, Price, Priority,
    RequestId, TenantId, Terms, Timestamp, Tokens, Usage, Version, ctx,
};
use proptest::prelude::*;

use super::*;
use crate::tokens::Reading;
use crate::{Catalogue, Purse};

/// Keeps what is written in memory.
#[derive(Default)]
struct Notebook {
    entries: Mutex<Vec<Entry>>,
    full: bool,
}

impl Daybook for Notebook {
    fn open(&self, draft: &Charge) -> Result<(), Full> {
        if self.full {
            return Err(Full);
        }
        self.entries.lock().unwrap().push(Entry::Opened(Box::new(draft.clone())));
        Ok(())
    }

    fn progress(&self, progress: &Progress) {
        self.entries.lock().unwrap().push(Entry::Progress(*progress));
    }

    fn close(&self, charge: &Charge) {
        self.entries.lock().unwrap().push(Entry::Closed(Box::new(charge.clone())));
    }

    fn void(&self, id: PostingId) {
        self.entries.lock().unwrap().push(Entry::Void(id));
    }

    fn unopened(&self, charge: &Charge) {
        self.close(charge);
    }

    fn carry(&self, _: &Charge, _: Option<&Progress>) -> Result<(), Full> {
        Ok(())
    }

    fn read(&self, _: usize) -> std::io::Result<Page> {
        Ok(Page::default())
    }

    fn posted(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn release(&self, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn backlog(&self) -> Backlog {
        Backlog::default()
    }
}

/// What the backend does.
#[derive(Clone)]
enum Does {
    /// Says a word per piece.
    Says(&'static str),
    /// Tells what was consumed, with the last piece.
    Tells(Usage),
    /// Ends the answer properly, with or without an end mark.
    Ends(bool),
    Breaks(Kind),
    /// Says that it cannot go on.
    Errs,
    /// Says so, and goes on.
    Groans,
}

/// A backend whose answer is written down.
#[derive(Clone)]
struct Backend {
    script: Vec<Does>,
    stream: bool,
    placed: bool,
    error: Option<Kind>,
    hangs: bool,
}

struct Script(Ctx, VecDeque<Does>);

impl Deltas for Script {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delta>>> {
        let delta =
            |bytes: &'static str, last| Delta { bytes: bytes.into(), pieces: u32::from(!bytes.is_empty()), last };
        Poll::Ready(match self.1.pop_front() {
            None => return Poll::Pending,
            Some(Does::Says(word)) => Some(Ok(delta(word, false))),
            Some(Does::Tells(usage)) => {
                self.0.note(Note::Used(usage));
                Some(Ok(delta("", false)))
            }
            Some(Does::Ends(true)) => Some(Ok(delta("", true))),
            Some(Does::Ends(false)) => None,
            Some(Does::Errs) => {
                self.0.note(Note::Broke("error_event"));
                None
            }
            Some(Does::Groans) => {
                self.0.note(Note::Broke("error_event"));
                Some(Ok(delta("", false)))
            }
            Some(Does::Breaks(kind)) => Some(Err(Error::upstream(kind, "broken", "broken"))),
        })
    }
}

impl Serve<Attempt> for Backend {
    fn serve<'a>(&'a self, ctx: &'a Ctx, attempt: Attempt) -> Serving<'a> {
        Box::pin(async move {
            if self.placed {
                ctx.note(Note::Placed(Arc::clone(&attempt.deployment), "i".into()));
            }
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if let Some(kind) = self.error {
                return Err(Error::upstream(kind, "failed", "failed"));
            }
            let head = Head { status: 200, content_type: Bytes::new(), fields: Vec::new() };
            if self.stream {
                return Ok(Reply::new(head, Body::Stream(Box::new(Script(ctx.clone(), self.script.clone().into())))));
            }
            let mut body = String::new();
            for does in &self.script {
                match does {
                    Does::Says(word) => body.push_str(word),
                    Does::Tells(usage) => ctx.note(Note::Used(*usage)),
                    _ => {}
                }
            }
            Ok(Reply::new(head, Body::Whole(body.into())))
        })
    }
}

fn plain(body: &[u8], see: &mut dyn FnMut(&str)) -> u64 {
    see(std::str::from_utf8(body).unwrap());
    1
}

/// A dollar a token read, ten a token written.
const PRICE: &str = r#"{"model":"*","from":"2020-01-01","input_per_1m_tokens":"1000000","output_per_1m_tokens":"10000000","cached_input_per_1m_tokens":"500000"}"#;

struct World {
    till: Arc<Till>,
    book: Arc<Notebook>,
    ctx: Ctx,
    attempt: Attempt,
}

fn world(model: &str, budgets: &str, stream: bool, book: Notebook) -> World {
    let (book, purse) = (Arc::new(book), Purse::new(|_| {}));
    let till = Till::new(purse, Arc::clone(&book) as _, Reading { prompt: plain, answer: plain });
    let price: Price = serde_json::from_str(PRICE).unwrap();
    till.catalogue.store(Arc::new(Catalogue::new([price])));
    let budgets: Vec<Budget> = serde_json::from_str(budgets).unwrap();
    let terms = Terms { budgets: budgets.into(), ..Terms::default() };
    let caller = Caller { tenant: TenantId::new("acme"), key: None, terms: Arc::new(terms) };
    let now = Moment::now();
    let ctx = Ctx::new(ctx::Facts {
        id: RequestId::new("r"),
        caller,
        priority: Priority::Normal,
        started: now,
        asked: now,
        deadline: None,
        explain: false,
        tag: Some("t".into()),
        budgeted: true,
    });
    let deployment = Arc::new(Deployment {
        index: 0,
        model: ModelName::new(model),
        version: Version::new("v"),
        weight: 1,
        instances: vec![InstanceId(0)],
        names: vec!["i".into()],
        gpus: Vec::new(),
        label: "m@v".into(),
    });
    // 400 bytes: a hundred tokens are guessed.
    let bytes = Bytes::from("word ".repeat(80));
    let payload = Payload {
        prompt: 0..bytes.len(),
        bytes,
        model: 0..0,
        tools: 0..0,
        force_usage: None,
        blocks: Default::default(),
    };
    let call = Call {
        model: ModelName::new(model),
        operation: Operation::Chat,
        stream,
        wants_usage: true,
        payload: Arc::new(payload),
        affinity: None,
        output_max: None,
        choices: 1,
        forward: Arc::new([]),
        plain: None,
    };
    let attempt = Attempt { call, deployment, tried: Vec::new(), deadline: now + Duration::from_secs(9) };
    World { till, book, ctx, attempt }
}

/// Polls a call so often that a script has ended, then drops it: a client that reads so many pieces.
fn run(world: &World, backend: Backend, reads: usize) -> Option<Error> {
    let meter = Meter::new(Arc::new(backend), Arc::clone(&world.till));
    let mut cx = Context::from_waker(Waker::noop());
    let mut serving = meter.serve(&world.ctx, world.attempt.clone());
    match serving.as_mut().poll(&mut cx) {
        Poll::Pending => None,
        Poll::Ready(Err(error)) => Some(error),
        Poll::Ready(Ok(reply)) => {
            let Body::Stream(mut deltas) = reply.into_parts().1 else { return None };
            for _ in 0..reads {
                match deltas.poll_next(&mut cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => return Some(error),
                    Poll::Ready(None) | Poll::Pending => break,
                }
            }
            None
        }
    }
}

fn backend(script: &[Does]) -> Backend {
    Backend { script: script.to_vec(), stream: true, placed: true, error: None, hangs: false }
}

fn told(input: u64, output: u64) -> Usage {
    Usage { input: Tokens(input), output: Tokens(output), ..Usage::default() }
}

/// The one charge there is: ending, input, output, whether estimated, what it costs.
fn bill(world: &World) -> Option<(Ending, u64, u64, bool, String)> {
    assert_eq!(world.till.purse.pending(), Money::ZERO, "nothing stays reserved");
    let entries = world.book.entries.lock().unwrap();
    let ends = entries.iter().filter(|entry| matches!(entry, Entry::Closed(_) | Entry::Void(_))).count();
    assert_eq!(ends, 1, "closed once: {entries:?}");
    let charge = entries.iter().find_map(|entry| match entry {
        Entry::Closed(charge) => Some(charge),
        _ => None,
    })?;
    let noted = world.ctx.glance(|journal| journal.cost).map(|(amount, _)| amount);
    assert_eq!(noted, Some(charge.amount));
    let usage = &charge.usage;
    Some((charge.ending, usage.input.0, usage.output.0, usage.estimated, charge.amount.to_string()))
}

const SOFT: &str = r#"[{"limit":"100000","per":"day"}]"#;

#[test]
fn how_an_answer_ends_decides_its_bill() {
    use Does::{Breaks, Ends, Errs, Groans, Says, Tells};
    let say = |count: usize, rest: &[Does]| [vec![Says("word "); count], rest.to_vec()].concat();
    let check = |script: Vec<Does>, reads: usize, expected: Option<(Ending, u64, u64, bool, &str)>| {
        let world = world("m", SOFT, true, Notebook::default());
        run(&world, backend(&script), reads);
        let expected = expected
            .map(|(ending, input, output, estimated, cost)| (ending, input, output, estimated, cost.to_owned()));
        assert_eq!(bill(&world), expected);
    };
    check(say(3, &[Tells(told(7, 4)), Ends(true)]), 99, Some((Ending::Complete, 7, 4, false, "47")));
    check(say(3, &[Tells(told(7, 4)), Ends(false)]), 99, Some((Ending::Complete, 7, 4, false, "47")));
    check(say(3, &[Ends(true)]), 99, Some((Ending::Complete, 100, 3, true, "130")));
    check(vec![Ends(true)], 99, Some((Ending::Complete, 100, 0, true, "100")));
    check(say(3, &[]), 2, Some((Ending::ClientGone, 100, 2, true, "120")));
    check(say(3, &[Tells(told(7, 4))]), 4, Some((Ending::ClientGone, 7, 4, false, "47")));
    check(say(3, &[]), 0, Some((Ending::ClientGone, 100, 0, true, "100")));
    check(say(3, &[Breaks(Kind::BadUpstream)]), 99, Some((Ending::UpstreamBroke, 100, 3, true, "130")));
    check(say(3, &[Errs]), 99, Some((Ending::UpstreamBroke, 100, 3, true, "130")));
    check(say(3, &[Groans, Ends(true)]), 99, Some((Ending::UpstreamBroke, 100, 3, true, "130")));
    check(say(3, &[Groans, Tells(told(7, 4)), Ends(true)]), 99, Some((Ending::UpstreamBroke, 7, 4, false, "47")));
    check(say(3, &[Groans, Ends(true)]), 4, Some((Ending::UpstreamBroke, 100, 3, true, "130")));
    check(vec![Groans, Ends(true)], 99, None);
    check(say(3, &[Breaks(Kind::UpstreamTimeout)]), 99, Some((Ending::TimedOut, 100, 3, true, "130")));
    check(vec![Breaks(Kind::BadUpstream)], 99, None);
    check(vec![Breaks(Kind::UpstreamTimeout)], 99, None);
}

#[test]
fn before_the_first_byte_only_a_client_that_left_pays_and_only_if_somebody_worked_for_it() {
    let check = |backend: Backend, expected: Option<&str>| {
        let world = world("m", SOFT, false, Notebook::default());
        run(&world, backend, 0);
        assert_eq!(bill(&world).map(|bill| bill.4).as_deref(), expected);
    };
    let base = Backend { stream: false, ..backend(&[]) };
    check(Backend { error: Some(Kind::BadUpstream), ..base.clone() }, None);
    check(Backend { error: Some(Kind::UpstreamTimeout), ..base.clone() }, None);
    check(Backend { hangs: true, placed: false, ..base.clone() }, None);
    check(Backend { hangs: true, ..base }, Some("100"));
}

#[test]
fn what_breaks_off_because_sluice_stops_is_not_its_clients_doing() {
    let world = world("m", SOFT, true, Notebook::default());
    world.till.stop();
    run(&world, backend(&[Does::Says("a"), Does::Says("b")]), 1);
    assert_eq!(bill(&world), Some((Ending::GatewayKilled, 100, 1, true, "110".into())));
    let world = self::world("m", SOFT, true, Notebook::default());
    world.till.stop();
    run(&world, backend(&[Does::Says("a")]), 0);
    assert_eq!(bill(&world), None);
}

#[test]
fn a_hard_budget_that_is_spent_cuts_an_answer_off_before_what_it_cannot_pay_for() {
    let world = world("m", r#"[{"limit":"300","per":"day"}]"#, true, Notebook::default());
    let error = run(&world, backend(&vec![Does::Says("word "); 50]), 99).unwrap();
    assert_eq!(error.kind, Kind::OverBudget);
    assert_eq!(bill(&world), Some((Ending::CutOff, 100, 20, true, "300".into())), "to the last token");
    assert_eq!(run(&world, backend(&[Does::Ends(true)]), 9).unwrap().kind, Kind::OverBudget);
}

#[test]
fn what_is_counted_by_a_tokenizer_is_not_guessed() {
    let world = world("gpt-4o", SOFT, true, Notebook::default());
    run(&world, backend(&[Does::Says("antidisestablishmentarianism "), Does::Says("again")]), 2);
    let (_, input, output, estimated, _) = bill(&world).unwrap();
    assert!(estimated && output == 7, "{output} tokens in two pieces");
    // Eighty words, the space at their end, and what is around a message.
    assert_eq!(input, 81 + 7);
}

#[test]
fn what_has_been_handed_on_is_written_down_before_it_is() {
    let world = world("m", SOFT, true, Notebook::default());
    run(&world, backend(&vec![Does::Says("word "); 400]), 400);
    let entries = world.book.entries.lock().unwrap();
    let noted: Vec<u64> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Progress(progress) => Some(progress.usage.output.0),
            _ => None,
        })
        .collect();
    assert_eq!(noted[..3], [1, 3, 5]);
    assert!(noted.windows(2).all(|pair| pair[1] - pair[0] <= (pair[0] / 100).max(2)) && *noted.last().unwrap() >= 396);
    let Some(Entry::Opened(draft)) = entries.first() else { panic!("opened first") };
    assert_eq!((draft.ending, draft.usage.output, draft.tag.as_deref()), (Ending::GatewayKilled, Tokens(0), Some("t")));
}

#[test]
fn where_no_end_can_be_written_down_nothing_that_costs_begins() {
    let world = world("m", SOFT, true, Notebook { full: true, ..Notebook::default() });
    let error = run(&world, backend(&[Does::Ends(true)]), 9).unwrap();
    assert_eq!((error.kind, &*error.cause), (Kind::Unavailable, "daybook_full"));
    assert_eq!(world.till.purse.pending(), Money::ZERO);
    for price in [r#""per_image":"1""#, r#""per_gpu_second":"1""#, r#""audio_output_per_1m_tokens":"1""#] {
        let price = serde_json::from_str(&format!(r#"{{"model":"m","from":"2020-01-01",{price}}}"#)).unwrap();
        world.till.catalogue.store(Arc::new(Catalogue::new([price])));
        assert!(run(&world, backend(&[Does::Ends(true)]), 9).is_some(), "likely to cost nothing, but it may");
    }
    world.till.catalogue.store(Arc::default());
    assert!(run(&world, backend(&[Does::Ends(true)]), 9).is_none(), "what is free goes on");
}

#[test]
fn gpu_time_is_that_of_the_instance_that_worked() {
    let mut world = world("m", SOFT, false, Notebook::default());
    let deployment = Deployment {
        gpus: vec![2_000],
        names: vec!["i".into()],
        instances: vec![InstanceId(0)],
        label: "m@v".into(),
        index: 0,
        weight: 1,
        model: ModelName::new("m"),
        version: Version::new("v"),
    };
    world.attempt.deployment = Arc::new(deployment);
    let price: Price = serde_json::from_str(r#"{"model":"m","from":"2020-01-01","per_gpu_second":"1"}"#).unwrap();
    world.till.catalogue.store(Arc::new(Catalogue::new([price])));
    run(&world, Backend { stream: false, ..backend(&[Does::Says("x")]) }, 0);
    let entries = world.book.entries.lock().unwrap();
    let Some(Entry::Closed(charge)) = entries.last() else { panic!() };
    assert!(charge.gpu_millis >= 1, "begun milliseconds count");
    assert_eq!(charge.amount, Money::parse("0.001").unwrap().times(charge.gpu_millis));
}

#[test]
fn a_stream_paid_by_gpu_time_does_not_run_on_a_spent_budget() {
    let mut world = world("m", r#"[{"limit":"0","per":"day"}]"#, true, Notebook::default());
    Arc::get_mut(&mut world.attempt.deployment).unwrap().gpus = vec![1_000];
    let price: Price = serde_json::from_str(r#"{"model":"m","from":"2020-01-01","per_gpu_second":"1"}"#).unwrap();
    world.till.catalogue.store(Arc::new(Catalogue::new([price])));
    let error = run(&world, backend(&[Does::Says("word "), Does::Ends(true)]), 9).unwrap();
    assert_eq!(error.kind, Kind::OverBudget);
    assert!(world.book.entries.lock().unwrap().is_empty(), "nothing began");
}

#[test]
fn ids_are_of_their_time_and_all_different() {
    let till = world("m", SOFT, false, Notebook::default()).till;
    let ids: std::collections::BTreeSet<_> = (0..10_000).map(|_| till.id(Timestamp(1_790_000_000_000))).collect();
    assert_eq!(ids.len(), 10_000);
    assert!(
        ids.iter().all(|id| id.0.get_version_num() == 7 && id.0.to_string().starts_with("01a0c4")),
        "{:?}",
        ids.first()
    );
    let later = till.id(Timestamp(1_790_000_000_001));
    assert!(ids.iter().all(|id| *id < later));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_usage_costs_the_same_streamed_or_not(counts: [u32; 6], images in 0u32..5, pieces in 1usize..20) {
        let [input, cached, cache_write, audio_input, output, reasoning] = counts.map(|count| Tokens(count.into()));
        let usage = Usage { input, cached, cache_write, audio_input, output, reasoning, images, ..Usage::default() };
        let cost = |stream: bool, last: bool| {
            let world = world("gpt-4o", "[]", stream, Notebook::default());
            let script = [vec![Does::Says("word "); pieces], vec![Does::Tells(usage), Does::Ends(last)]].concat();
            run(&world, Backend { stream, ..backend(&script) }, 99);
            bill(&world)
        };
        let whole = cost(false, true);
        prop_assert_eq!(&cost(true, true), &whole);
        prop_assert_eq!(&cost(true, false), &whole);
    }
}

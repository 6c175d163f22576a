//! What is written is read again, by this process or the next.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use kernel::store::Daybook as _;
use kernel::{Money, Tokens, Usage};

use super::codec::tests::charge_of;
use super::*;

fn open(dir: &Path) -> Daybook {
    Daybook::open(dir, 2, 1 << 30).unwrap()
}

fn drain(daybook: &Daybook) -> (Vec<Entry>, u64) {
    let (mut entries, mut mark) = (Vec::new(), 0);
    loop {
        let page = daybook.read(1 << 20).unwrap();
        if page.entries.is_empty() {
            return (entries, mark);
        }
        (mark, _) = (page.mark, entries.extend(page.entries));
    }
}

fn amounts(entries: &[Entry]) -> Vec<i128> {
    let amount = |entry: &Entry| match entry {
        Entry::Closed(charge) => Some(charge.amount.pico()),
        _ => None,
    };
    entries.iter().filter_map(amount).collect()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    place_files(&dir.join(DIRECTORY).join("0"))
}

fn place_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    found.filter(|path| path.extension().is_some()).collect()
}

#[test]
fn what_is_written_is_read_in_its_order_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = open(dir.path());
    let usage = Usage { output: Tokens(5), ..Usage::default() };
    let progress = Progress { id: charge_of(1, 0).id, usage, gpu_millis: 3, amount: Money::from_pico(4) };
    daybook.open(&charge_of(1, 9)).unwrap();
    daybook.progress(&progress);
    daybook.close(&charge_of(1, 7));
    daybook.void(charge_of(2, 0).id);
    let expected = [
        Entry::Opened(Box::new(charge_of(1, 9))),
        Entry::Progress(progress),
        Entry::Closed(Box::new(charge_of(1, 7))),
        Entry::Void(charge_of(2, 0).id),
    ];
    assert_eq!(drain(&daybook).0, expected);
    assert_eq!(drain(&daybook).0, []);
    assert!(daybook.backlog().bytes > 0);
    daybook.posted(u64::MAX).unwrap();
    assert_eq!(daybook.backlog().bytes, 0);
}

#[test]
fn what_a_process_left_is_read_by_the_next_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    (0..1000).for_each(|nth| first.close(&charge_of(nth, nth as i128)));
    drop(first);
    for _ in 0..2 {
        let next = open(dir.path());
        let page = next.read(1).unwrap();
        assert!(page.past && !page.entries.is_empty());
        assert_eq!(page.entries.len() + drain(&next).0.len(), 1000);
    }
    let next = open(dir.path());
    next.close(&charge_of(2000, 2000));
    let (entries, mark) = drain(&next);
    assert_eq!(amounts(&entries), (0..1000).chain([2000]).collect::<Vec<_>>(), "the present comes after the past");
    let before = files(dir.path()).len();
    next.posted(mark).unwrap();
    next.release(mark).unwrap();
    assert!(files(dir.path()).len() < before);
    drop(next);
    let last = open(dir.path());
    assert_eq!(amounts(&drain(&last).0), Vec::<i128>::new(), "what was posted is not read again");
}

#[test]
fn a_torn_end_is_left_out_wherever_it_was_torn() {
    // Amounts below zero end in ones, so that every cut changes something.
    let small = |dir: &Path| Daybook::open(dir, 1, 0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let daybook = small(dir.path());
    (0..3).for_each(|nth| daybook.close(&charge_of(nth, -1 - nth as i128)));
    let end = lock(&daybook.shared.desks[0]).current.as_ref().map(|(sheet, pen)| sheet.size - pen.room(sheet)).unwrap();
    drop(daybook);
    let path = files(dir.path()).into_iter().min().unwrap();
    let whole = fs::read(&path).unwrap();
    let entry = (end - HEAD) / 3;
    for cut in end - entry..end {
        let mut torn = whole.clone();
        torn[cut as usize..end as usize].fill(0);
        fs::write(&path, &torn).unwrap();
        assert_eq!(amounts(&drain(&small(dir.path())).0), [-1, -2], "cut at {cut}");
        let mut wrong = whole.clone();
        wrong[cut as usize] ^= 0x55;
        fs::write(&path, &wrong).unwrap();
        assert_eq!(amounts(&drain(&small(dir.path())).0), [-1, -2], "changed at {cut}");
    }
    fs::write(&path, &whole[..end as usize - 1]).unwrap();
    assert_eq!(amounts(&drain(&small(dir.path())).0), [-1, -2], "a file that was cut short");
}

#[test]
fn when_it_is_full_nothing_begins_and_what_has_begun_can_end() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = Daybook::open(dir.path(), 1, 0).unwrap();
    let mut begun = 0;
    while daybook.open(&charge_of(begun, 0)).is_ok() {
        begun += 1;
        assert!(begun < 100_000, "it never is");
    }
    assert!(begun > 100, "{begun}");
    let usage = Usage { output: Tokens(5), ..Usage::default() };
    let progress = Progress { id: charge_of(1, 0).id, usage, gpu_millis: 3, amount: Money::from_pico(4) };
    (0..10_000).for_each(|_| daybook.progress(&progress));
    (0..10_000).for_each(|nth| daybook.unopened(&charge_of(begun + nth, 0)));
    let beyond = lock(&daybook.shared.beyond).len();
    (0..begun).for_each(|nth| daybook.close(&charge_of(nth, 1)));
    assert_eq!(lock(&daybook.shared.beyond).len(), beyond, "what costs nothing has taken no room from what has begun");
    (0..begun).for_each(|nth| daybook.close(&charge_of(nth, 2)));
    let (entries, mark) = drain(&daybook);
    let (first, again) = (amounts(&entries), 2 * begun as usize);
    assert_eq!(first.iter().filter(|amount| **amount > 0).count(), again, "what found no room was kept in memory");
    assert!(daybook.backlog().files <= daybook.backlog().most);
    daybook.posted(mark).unwrap();
    daybook.release(mark).unwrap();
    assert!(daybook.open(&charge_of(0, 0)).is_ok(), "what was posted makes room");
}

#[test]
fn what_has_begun_is_kept_in_memory_whatever_it_costs_and_of_what_is_free_not_all() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = Daybook::open(dir.path(), 1, 0).unwrap();
    let mut begun = 0;
    while daybook.open(&charge_of(begun, 0)).is_ok() {
        begun += 1;
    }
    let room = BEYOND_MAX as u128;
    (0..room + 20_000).for_each(|nth| daybook.unopened(&charge_of(nth, 1)));
    let kept = || lock(&daybook.shared.beyond).len();
    assert_eq!(kept(), BEYOND_MAX, "free ones go on to come");
    let most = u128::from(daybook.backlog().most / 16);
    (0..most).for_each(|nth| daybook.void(charge_of(nth, 0).id));
    let after = kept();
    assert!(after > BEYOND_MAX, "{after}");
    daybook.close(&charge_of(1, 0));
    assert_eq!(kept(), after + 1, "its tokens may be charged by an invoice");
}

#[test]
fn of_many_cores_each_writes_the_ends_of_all_that_it_let_begin_and_those_of_others() {
    for (ends_on, most) in [(0, 0), (1, 0), (2, 2 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let daybook = Daybook::open(dir.path(), 3, most).unwrap();
        let mut begun = 0;
        let mut idle = 0;
        for nth in 0.. {
            core::enter(nth % 3);
            match daybook.open(&charge_of(begun, 0)) {
                Ok(()) => (begun, idle) = (begun + 1, 0),
                Err(Full) => idle += 1,
            }
            if idle == 3 {
                break;
            }
        }
        core::enter(ends_on);
        (0..begun).for_each(|nth| daybook.close(&charge_of(nth, 1)));
        core::enter(0);
        assert_eq!(lock(&daybook.shared.beyond).len(), 0, "of {begun}");
        assert_eq!(daybook.shared.owed.load(Ordering::Relaxed), 0);
        drop(daybook);
        let found = amounts(&drain(&Daybook::open(dir.path(), 3, 0).unwrap()).0);
        assert_eq!(found.len() as u128, begun, "the next process finds all of them");
    }
}

#[test]
fn the_longest_end_that_clients_can_cause_fits_what_is_kept_for_it() {
    let long = |len: usize| "x".repeat(len);
    let most = Tokens(1_000_000_000);
    let usage = Usage {
        input: most,
        cached: most,
        cache_write: most,
        output: most,
        reasoning: most,
        audio_input: most,
        audio_output: most,
        ..Usage::default()
    };
    let mut charge = charge_of(u128::MAX, i128::MIN);
    (charge.usage, charge.gpu_millis) = (usage, u64::MAX);
    charge.request = kernel::RequestId::new(long(128));
    charge.tag = Some(long(64).into());
    charge.tenant = kernel::TenantId::new(long(64));
    charge.model = kernel::ModelName::new(long(128));
    charge.version = kernel::Version::new(long(64));
    charge.plan = Some(long(64).into());
    charge.price = Some(long(128).into());
    let mut framed = Vec::new();
    frame(&mut framed, |to| codec::closed(to, &charge));
    assert!(framed.len() as u64 <= END, "{}", framed.len());
}

#[test]
fn files_go_on_into_the_next_and_are_deleted_behind_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = Daybook::open(dir.path(), 1, 1 << 20).unwrap();
    let mut seen = Vec::new();
    for nth in 0..20_000u32 {
        daybook.close(&charge_of(nth.into(), nth.into()));
        if nth % 100 == 0 {
            let page = daybook.read(64 << 10).unwrap();
            seen.extend(amounts(&page.entries));
            daybook.posted(page.mark).unwrap();
            daybook.release(page.mark).unwrap();
        }
        assert!(lock(&daybook.shared.beyond).is_empty(), "never full while somebody reads");
    }
    seen.extend(amounts(&drain(&daybook).0));
    assert_eq!(seen, (0..20_000).collect::<Vec<_>>());
    assert!(files(dir.path()).len() <= 16);
}

#[test]
fn a_second_process_has_a_place_of_its_own_and_the_next_takes_over_what_both_left() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path()), open(dir.path()));
    a.close(&charge_of(1, 1));
    b.close(&charge_of(2, 2));
    assert_eq!((amounts(&drain(&a).0), amounts(&drain(&b).0)), (vec![1], vec![2]));
    drop((a, b));
    let mut found = amounts(&drain(&open(dir.path())).0);
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
    assert_eq!(place_files(&dir.path().join(DIRECTORY).join("1")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn only_the_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = open(dir.path());
    daybook.close(&charge_of(1, 1));
    for path in files(dir.path()) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
    let own = dir.path().join(DIRECTORY).join("0");
    assert_eq!(fs::metadata(own).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn what_is_written_is_brought_to_the_disk_soon() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = open(dir.path());
    daybook.close(&charge_of(1, 1));
    let sheet = lock(&daybook.shared.written).first().cloned().unwrap();
    for _ in 0..400 {
        if !sheet.dirty() {
            return;
        }
        std::thread::sleep(SYNC);
    }
    panic!("not in two seconds");
}

#[test]
fn many_threads_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let daybook = Daybook::open(dir.path(), 4, 32 << 20).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let daybook = &daybook;
            scope.spawn(move || {
                core::enter(thread as usize);
                for nth in 0..5_000u32 {
                    let id = u128::from(thread * 5_000 + nth);
                    daybook.open(&charge_of(id, 0)).unwrap();
                    daybook.close(&charge_of(id, id as i128));
                }
            });
        }
    });
    let mut found = amounts(&drain(&daybook).0);
    found.sort_unstable();
    assert_eq!(found, (0..20_000).collect::<Vec<_>>());
    assert!(!daybook.shared.stopping.load(Ordering::Relaxed));
}

/// Tells the child where to write.
const CHILD: &str = "SLUICE_DAYBOOK_OF_A_CHILD";

#[test]
fn a_killed_process_loses_nothing_that_it_said_it_wrote() {
    for round in 0..8u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["daybook::tests::writes_until_it_is_killed", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut numbers = said.filter_map(|line| line.strip_prefix("wrote ")?.parse::<i128>().ok());
        let enough = 50 + 397 * i128::from(round);
        let mut last = numbers.find(|number| *number >= enough).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        last = numbers.last().unwrap_or(last);
        let found = amounts(&drain(&open(dir.path())).0);
        assert!(found.len() as i128 > last, "{} of {last}", found.len());
        assert_eq!(found, (0..found.len() as i128).collect::<Vec<_>>());
    }
}

#[test]
#[ignore = "what the test above kills"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let daybook = open(Path::new(&dir));
    let mut out = std::io::stdout();
    for nth in 0..1_000_000u32 {
        daybook.close(&charge_of(nth.into(), nth.into()));
        writeln!(out, "wrote {nth}").unwrap();
        out.flush().unwrap();
    }
}

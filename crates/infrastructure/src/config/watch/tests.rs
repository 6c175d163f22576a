//! The ways in which files change on real systems.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::sync::watch::Receiver as Seen;
use tokio::time::timeout;

use super::*;

/// So slow that only the system's news can be what is noticed.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_secs(5);
/// Longer than a change needs to be told.
const QUIET: Duration = Duration::from_millis(600);

fn file(content: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.yaml");
    fs::write(&path, content).unwrap();
    (directory, path)
}

async fn next(seen: &mut Seen<Sighting>) -> Sighting {
    let changed = timeout(SOON, seen.changed()).await;
    changed.expect("told in time").expect("still watching");
    seen.borrow_and_update().clone()
}

async fn stays_quiet(seen: &mut Seen<Sighting>) -> bool {
    timeout(QUIET, seen.changed()).await.is_err()
}

fn changed(changes: u64) -> Sighting {
    Sighting { changes, trouble: None }
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_a_change_each_time() {
    let (directory, path) = file("a");
    let (_watch, mut seen) = Watch::start(&path, NEVER).unwrap();
    for round in 1..=3 {
        let new = directory.path().join(".sluice.yaml.new");
        fs::write(&new, format!("content {round}")).unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(next(&mut seen).await, changed(round));
    }
}

#[tokio::test]
async fn a_truncate_and_a_slow_write_are_one_change() {
    let (_directory, path) = file("old content");
    let (_watch, mut seen) = Watch::start(&path, NEVER).unwrap();
    let mut file = File::create(&path).unwrap();
    for part in ["new ", "content ", "in parts"] {
        thread::sleep(SETTLE / 3);
        io::Write::write_all(&mut file, part.as_bytes()).unwrap();
    }
    drop(file);
    assert_eq!(next(&mut seen).await, changed(1));
    assert!(stays_quiet(&mut seen).await);
}

#[tokio::test]
async fn a_kubernetes_symlink_swap_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let inside = |name: &str| directory.path().join(name);
    for (version, content) in [("..v1", "one"), ("..v2", "two")] {
        fs::create_dir(inside(version)).unwrap();
        fs::write(inside(version).join("sluice.yaml"), content).unwrap();
    }
    symlink("..v1", inside("..data")).unwrap();
    symlink("..data/sluice.yaml", inside("sluice.yaml")).unwrap();
    let (_watch, mut seen) = Watch::start(&inside("sluice.yaml"), NEVER).unwrap();
    symlink("..v2", inside("..data_tmp")).unwrap();
    fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_link_target_elsewhere_is_noticed_by_the_clock() {
    let (_elsewhere, target) = file("one");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.yaml");
    symlink(&target, &path).unwrap();
    let (_watch, mut seen) = Watch::start(&path, Duration::from_millis(150)).unwrap();
    fs::write(&target, "two").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn the_same_content_written_again_is_no_change() {
    let (directory, path) = file("same");
    let (_watch, mut seen) = Watch::start(&path, Duration::from_millis(100)).unwrap();
    fs::write(&path, "same").unwrap();
    fs::write(directory.path().join("neighbour"), "else").unwrap();
    assert!(stays_quiet(&mut seen).await);
    fs::write(&path, "different").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_missing_file_is_told_once_and_its_return_is_noticed() {
    let (_directory, path) = file("a");
    let (_watch, mut seen) = Watch::start(&path, Duration::from_millis(100)).unwrap();
    fs::remove_file(&path).unwrap();
    let missing = next(&mut seen).await;
    let expected = "cannot be read: No such file or directory (os error 2)";
    assert_eq!((missing.changes, missing.trouble.as_deref()), (0, Some(expected)));
    assert!(stays_quiet(&mut seen).await);
    fs::write(&path, "a").unwrap();
    assert_eq!(next(&mut seen).await, changed(0));
    fs::remove_file(&path).unwrap();
    assert!(next(&mut seen).await.trouble.is_some());
    fs::write(&path, "b").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_file_gone_for_a_moment_is_not_told_as_missing() {
    let (_directory, path) = file("a");
    let (_watch, mut seen) = Watch::start(&path, NEVER).unwrap();
    fs::remove_file(&path).unwrap();
    thread::sleep(SETTLE / 4);
    fs::write(&path, "b").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_file_that_does_not_exist_yet_can_be_watched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.yaml");
    let (_watch, mut seen) = Watch::start(&path, NEVER).unwrap();
    assert!(seen.borrow_and_update().trouble.is_some());
    fs::write(&path, "a").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_directory_that_cannot_be_watched_leaves_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later").join("sluice.yaml");
    let (_watch, mut seen) = Watch::start(&path, Duration::from_millis(100)).unwrap();
    fs::create_dir(directory.path().join("later")).unwrap();
    fs::write(&path, "a").unwrap();
    assert_eq!(next(&mut seen).await, changed(1));
}

#[tokio::test]
async fn a_file_that_is_never_at_rest_is_told_all_the_same() {
    let (_directory, path) = file("0");
    let (_watch, seen) = Watch::start(&path, NEVER).unwrap();
    let began = Instant::now();
    while !seen.has_changed().unwrap() && began.elapsed() < SOON {
        fs::write(&path, format!("{:?}", began.elapsed())).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen.has_changed().unwrap());
}

#[tokio::test]
async fn a_pipe_is_refused_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (_watch, seen) = Watch::start(&path, NEVER).unwrap();
    let trouble = seen.borrow().trouble.clone();
    assert_eq!(trouble.as_deref(), Some("cannot be read: not a regular file"));
}

#[tokio::test]
async fn dropping_the_watch_ends_its_thread() {
    let (_directory, path) = file("a");
    let (watch, mut seen) = Watch::start(&path, NEVER).unwrap();
    drop(watch);
    // The thread owns the sender: that it is gone says that the thread is.
    let ended = timeout(SOON, seen.changed()).await;
    assert!(ended.expect("ended in time").is_err());
}

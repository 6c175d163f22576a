//! The starter of the binary, tried on stand-ins: a shell script that ends, that hangs, that obeys.

use std::time::{Duration, Instant};

use testkit::{Launch, Sluice, eventually};

const SOON: Duration = Duration::from_secs(5);

fn stand_in(script: &str) -> Launch {
    Sluice::launch().program(["sh", "-c", script, "sluice"])
}

#[tokio::test]
async fn a_refused_start_is_told_with_its_exit_code_and_words() {
    let exit = stand_in("echo out; echo \"bad config\" >&2; exit 3").config("x: 1").fails().await;
    assert_eq!((exit.code(), exit.signal()), (Some(3), None));
    assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("out\n", "bad config\n"));
}

#[tokio::test]
async fn the_config_gets_its_ports_and_keeps_its_text() {
    let sluice = stand_in("echo \"$@\"; cat \"$5\"").config("models: []\n").spawn();
    let (url, admin) = (sluice.url(""), sluice.admin_url(""));
    let exit = sluice.ended(SOON, Instant::now()).await;
    let mut lines = exit.stdout.lines();
    let arguments = lines.next().unwrap();
    assert!(arguments.starts_with("serve --data-dir ") && arguments.contains(" --config "), "{arguments}");
    let (http, admin) = (url.strip_prefix("http://").unwrap(), admin.strip_prefix("http://").unwrap());
    assert_eq!(lines.next(), Some(format!("listen: {{ http: \"{http}\", admin: \"{admin}\" }}").as_str()));
    assert_eq!(lines.next(), Some("models: []"));
}

#[tokio::test]
async fn the_environment_is_clean_but_for_what_was_given() {
    let exit = stand_in("env").env("LAB_KEY", "k").spawn().ended(SOON, Instant::now()).await;
    let mut names: Vec<&str> = exit.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LAB_KEY", "PATH"]);
}

#[tokio::test]
async fn a_stop_is_a_sigterm_and_its_exit_is_told() {
    let obeys = "trap 'echo stopping; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let sluice = stand_in(obeys).spawn();
    assert!(eventually(SOON, || sluice.stdout().contains("up")).await);
    let exit = sluice.stop().await;
    assert_eq!((exit.code(), exit.stdout.as_str()), (Some(0), "up\nstopping\n"));

    let ignorant = stand_in("echo up; exec sleep 60").spawn();
    assert!(eventually(SOON, || ignorant.stdout().contains("up")).await);
    assert_eq!(ignorant.stop().await.signal(), Some(15));
}

#[tokio::test]
async fn a_dropped_server_is_dead() {
    let sluice = stand_in("trap '' TERM; exec sleep 60").spawn();
    let process = format!("/proc/{}", sluice.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(sluice);
    assert!(!std::path::Path::new(&process).exists());
}

#[tokio::test]
#[should_panic(expected = "no model")]
async fn a_start_that_fails_shows_what_was_printed() {
    stand_in("echo 'no model' >&2; exit 1").config("x: 1").start().await;
}

#[tokio::test]
async fn log_lines_are_the_json_of_stdout_and_no_half_line() {
    let sluice = stand_in("echo banner; echo '{\"status\":499}'; printf '{\"sta'; exec sleep 60").spawn();
    assert!(eventually(SOON, || sluice.stdout().ends_with("{\"sta")).await);
    let lines = sluice.log_lines();
    assert_eq!((lines.len(), lines[0]["status"].as_u64()), (1, Some(499)));
}

#[test]
fn a_key_is_read_from_what_the_command_prints() {
    let launch = stand_in(
        "[ \"$1 $2 $3 $4 $5 $6\" = 'key create --offline --tenant acme --json' ] && echo '{\"key\":\"sk-1\",\"hash\":\"h\",\"x\":1}'",
    );
    let key = launch.key("acme");
    assert_eq!((key.key.as_str(), key.hash.as_str()), ("sk-1", "h"));
}

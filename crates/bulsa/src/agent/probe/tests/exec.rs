use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bulsa_core::spec::Check;
use rustix::process::{Pid, geteuid, test_kill_process};
use tempfile::TempDir;

use super::super::{EVIDENCE_BYTES_MAX, ExecContext, ProbeResult, ProbeTarget, run};
use crate::agent::process::user::Account;

const LONG: Duration = Duration::from_secs(20);

fn context() -> ExecContext {
    let environment = [("PATH", "/usr/bin:/bin"), ("WORD", "hello")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    ExecContext {
        environment: BTreeMap::from(environment),
        working_dir: PathBuf::from("/"),
        ..ExecContext::default()
    }
}

async fn exec(argv: &[&str], context: ExecContext, timeout: Duration) -> ProbeResult {
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    run(&Check::Exec(argv), &ProbeTarget { exec: Some(Arc::new(context)), ..ProbeTarget::default() }, timeout)
        .await
}

async fn shell(script: &str) -> ProbeResult {
    exec(&["sh", "-c", script], context(), LONG).await
}

fn fail(evidence: &str) -> ProbeResult {
    ProbeResult::Fail { evidence: evidence.to_owned(), no_answer: false }
}

#[tokio::test]
async fn exit_0_passes_and_another_fails_with_what_was_printed() {
    assert!(matches!(shell("exit 0").await, ProbeResult::Pass { .. }));
    assert_eq!(shell("exit 3").await, fail("`sh`: exit 3"));
    assert_eq!(shell("echo one; echo two >&2; exit 1").await, fail("`sh`: exit 1: one two"));
    assert_eq!(shell("kill -9 $$").await, fail("`sh`: ended by signal 9"));
}

#[tokio::test]
async fn it_runs_with_the_replicas_environment_and_directory_and_nothing_else() {
    let place = TempDir::new().unwrap();
    std::fs::write(place.path().join("here"), "").unwrap();
    let context = ExecContext { working_dir: place.path().to_owned(), ..context() };
    let script = "test -e here && test \"$WORD\" = hello && test -z \"$CARGO_MANIFEST_DIR\" && ! read line";
    let result = exec(&["sh", "-c", script], context, LONG).await;
    assert!(matches!(result, ProbeResult::Pass { .. }), "{result:?}");
}

#[tokio::test]
async fn much_output_blocks_nothing_and_its_end_is_kept() {
    let ProbeResult::Fail { evidence, .. } =
        shell("i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done; echo the end; exit 1").await
    else {
        panic!("no failure");
    };
    assert!(evidence.ends_with("line-19999 the end") && evidence.len() <= EVIDENCE_BYTES_MAX, "{evidence}");
}

#[tokio::test]
async fn a_check_that_cannot_be_run_is_not_the_services_fault() {
    let could_not = |result: ProbeResult| match result {
        ProbeResult::CouldNotRun { reason } => reason,
        other => panic!("{other:?}"),
    };
    let reason = could_not(exec(&["no-such-program"], context(), LONG).await);
    assert!(reason.starts_with("`no-such-program` can't be run: No such file"), "{reason}");
    assert!(could_not(exec(&["/etc/passwd"], context(), LONG).await).contains("Permission denied"));
    assert!(could_not(exec(&[], context(), LONG).await).contains("no program"));
    let reason = could_not(shell("no-such-curl -f http://localhost/").await);
    assert!(reason.contains("exit 127") && reason.contains("no-such-curl"), "{reason}");
    let nowhere = ExecContext { working_dir: PathBuf::from("/nowhere"), ..context() };
    could_not(exec(&["true"], nowhere, LONG).await);
    let target = ProbeTarget::default();
    could_not(run(&Check::Exec(vec!["true".to_owned()]), &target, LONG).await);
}

/// The process that a script wrote the number of to a file, once it has.
async fn pid_in(file: &std::path::Path) -> Pid {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n').and_then(|text| text.parse().ok()).and_then(Pid::from_raw)
        {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}

/// Returns once `pid` is gone or a zombie.
async fn gone(pid: Pid) {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    while test_kill_process(pid).is_ok()
        && !std::fs::read_to_string(&stat).unwrap_or_default().contains(") Z ")
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_check_that_takes_too_long_fails_and_is_killed_with_all_it_started() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; echo waiting; wait", file.display());
    let result = exec(&["sh", "-c", &script], context(), Duration::from_millis(300)).await;
    assert_eq!(result, fail("`sh` was not done after 300ms and was killed: waiting"));
    gone(pid_in(&file).await).await;
}

#[tokio::test]
async fn what_a_check_leaves_running_is_ended_and_not_waited_for() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("pid");
    let result = shell(&format!("sleep 600 & echo $! > {}", file.display())).await;
    assert!(matches!(result, ProbeResult::Pass { .. }), "{result:?}");
    gone(pid_in(&file).await).await;
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_any_more_is_ended() {
    let place = TempDir::new().unwrap();
    let file = place.path().join("pid");
    let script = format!("echo $$ > {}; sleep 600", file.display());
    let argv = ["sh", "-c", &script];
    let pid = tokio::select! {
        result = exec(&argv, context(), LONG) => panic!("{result:?}"),
        pid = pid_in(&file) => pid,
    };
    gone(pid).await;
}

#[tokio::test]
async fn it_runs_as_the_services_user() {
    if !geteuid().is_root() {
        return println!("skipped: only root can change users");
    }
    let account = Account { uid: 65_534, gid: 65_533, groups: vec![], name: None, home: "/".to_owned() };
    let context = ExecContext { account: Some(account), ..context() };
    let result = exec(&["sh", "-c", "echo $(id -u):$(id -g):$(id -G); exit 1"], context, LONG).await;
    assert_eq!(result, fail("`sh`: exit 1: 65534:65533:65533"));
}

#[tokio::test]
async fn it_runs_in_the_replicas_network_namespace() {
    use crate::agent::process::netns;
    let owner = format!("test {} probe", std::process::id());
    let replica = "web-r1-1.1".parse().unwrap();
    let namespace = match netns::create(&owner, &replica).await {
        Ok(namespace) => namespace,
        Err(error) => return println!("skipped: {error}"),
    };
    let context = ExecContext { namespace: Some(namespace.path()), ..context() };
    let result = exec(&["sh", "-c", "cat /proc/net/dev; exit 1"], context, LONG).await;
    netns::remove(&namespace.name).await.unwrap();
    let ProbeResult::Fail { evidence, .. } = result else { panic!("{result:?}") };
    assert!(evidence.contains("eth0:") && !evidence.contains("bls-"), "{evidence}");
    // This thread stayed where it was.
    assert!(std::fs::read_to_string("/proc/thread-self/net/dev").unwrap() != evidence);

    let gone = ExecContext { namespace: Some(namespace.path()), ..self::context() };
    assert!(matches!(exec(&["true"], gone, LONG).await, ProbeResult::CouldNotRun { .. }));
}

//! Probes by exec.

use std::time::Duration;

use bulsa::agent::docker::ExecOutcome;

use crate::world::{PATIENCE, SERVER, World};

fn argv(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn what_ran_is_told_from_what_could_not() {
    let Some(world) = World::new("execs").await else { return };
    let id = world.start(world.container(SERVER)).await.unwrap().found.id;
    let run = async |argv: &[String]| world.docker.exec(&id, argv, PATIENCE).await;

    let told = run(&argv("echo $GREETING; echo err >&2; exit 3")).await;
    let ExecOutcome::Exited { code: 3, output } = &told else { panic!("{told:?}") };
    assert!(output.contains("hello") && output.contains("err"), "{output}");
    let long = run(&argv("i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done")).await;
    let ExecOutcome::Exited { code: 0, output } = &long else { panic!("{long:?}") };
    assert!(output.len() <= 512 && output.len() > 400, "{}", output.len());

    for argv in [vec!["/nope".to_owned()], vec!["/bin/data".to_owned()], argv("no-such-program")] {
        let told = run(&argv).await;
        assert!(matches!(told, ExecOutcome::CouldNotRun { .. }), "{argv:?}: {told:?}");
    }
    world.docker.kill(&id).await.unwrap();
    world.ended(&id).await;
    let told = run(&argv("true")).await;
    assert!(matches!(told, ExecOutcome::CouldNotRun { .. }), "a container that is down: {told:?}");
}

#[tokio::test]
async fn a_run_that_hangs_is_ended() {
    let Some(world) = World::new("execs-hang").await else { return };
    let id = world.start(world.container(SERVER)).await.unwrap().found.id;
    let hang = ["sleep".to_owned(), "4321".to_owned()];
    let told = world.docker.exec(&id, &hang, Duration::from_millis(300)).await;
    assert!(matches!(told, ExecOutcome::TimedOut { .. }), "{told:?}");
    // Only where this process may see and kill it.
    if rustix::process::geteuid().is_root() {
        let look = argv("cat /proc/[0-9]*/cmdline");
        let gone = async {
            loop {
                let told = world.docker.exec(&id, &look, PATIENCE).await;
                let ExecOutcome::Exited { output, .. } = &told else { panic!("{told:?}") };
                if !output.contains("sleep\x004321") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }
}

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bulsa_proxy::{Limits, ListenerRoutes, Route, Service, Table, Target};
use tokio::net::TcpListener;

use crate::support::*;

const SERVICES: usize = 1000;
const TARGETS_PER_SERVICE: usize = 5;
const SWITCHES: u64 = 20;
/// Services that each switch gives other targets.
const CHANGED: usize = 50;
const CLIENTS: usize = 8;

fn host(service: usize) -> String {
    format!("{service}.example")
}

/// A target that shares its server with all others, and has an address of its own.
fn target(number: usize, port: u16) -> Target {
    let addr = ([127, 1, (number / 250) as u8, (number % 250) as u8 + 1], port);
    Target::new(&format!("target-{number}"), addr.into())
}

/// In table `number`, some services have other targets than before: those of others, which may have them still.
fn large(number: u64, port: u16) -> Table {
    let service = |index: usize| {
        let turn = (number as usize * CHANGED + index) / SERVICES;
        let first = (index + turn * CHANGED) % SERVICES * TARGETS_PER_SERVICE;
        let targets = (first..first + TARGETS_PER_SERVICE).map(|number| target(number, port));
        Service::new(&host(index), targets.collect())
    };
    let routes = (0..SERVICES).map(|index| Route::new(Some(&host(index)), "/", index)).collect();
    Table {
        listeners: vec![ListenerRoutes::http("http", routes)],
        services: (0..SERVICES).map(service).collect(),
        limits: Limits { connections_per_address: 0 },
        ..Table::empty(number)
    }
}

/// Asks one service after the other until it is told to stop, and counts the answers.
async fn ask_all(addr: std::net::SocketAddr, first: usize, stop: Arc<AtomicBool>, answers: Arc<AtomicUsize>) {
    let mut client = Wire::connect(addr).await;
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let request = get("/").replace("shop.example", &host(number * 7 % SERVICES));
        assert_eq!(client.ask(&request).await.status(), 200);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn switching_a_table_of_a_thousand_routes_again_and_again_fails_no_request() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _backend = Backend::serving_on(listener, |mut wire, _| async move {
        while wire.message().await.is_some() {
            wire.write(&ok("x")).await;
        }
    });
    let rig = Rig::with_workers(2, &large(1, port)).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|first| tokio::spawn(ask_all(rig.addr, first * 100, Arc::clone(&stop), Arc::clone(&answers))))
        .collect();
    for number in 2..2 + SWITCHES {
        let before = answers.load(Ordering::Relaxed);
        rig.apply(&large(number, port)).await;
        // Each table is used for a while.
        while answers.load(Ordering::Relaxed) < before + 100 {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        patient(client).await.expect("every request is answered");
    }
    let report = rig.until(|report| report.targets.iter().all(|target| target.in_flight == 0)).await;
    assert_eq!((report.bad_gateway, report.unavailable, report.no_route), (0, 0, 0));
    let last = large(1 + SWITCHES, port);
    let targets: HashSet<_> = last.services.iter().flat_map(|service| &service.targets).collect();
    assert_eq!(report.targets.iter().filter(|target| target.routed).count(), targets.len());
}

//! Options of events, and what is different when they are set.

use super::process::wait_until;
use super::told::Told;

fn wait_for_count(told: &Told, count: usize) {
    wait_until("so many are told", || {
        (told.count("connected") == count).then_some(())
    });
}

#[test]
fn batches_are_as_large_as_the_options_say_and_wait_as_long() {
    // Nothing but a full batch leaves in the time of a test.
    let options = "kinds = [\"connected\"]\nbatch_size = 2\n";
    let told = Told::start(41, "batches", options);
    let told = told.waiting("1m", &format!("{options}sync_interval = \"500ms\"\n"));
    let sizes = || {
        let batches = told.receiver.batches.lock().unwrap();
        batches
            .iter()
            .map(|(_, count, _)| *count)
            .collect::<Vec<_>>()
    };
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(told.client(&format!("user-{number}"), &[]));
    }
    wait_for_count(&told, 4);
    // It waits for longer than what it was written with does, which is longer than it would without the option.
    let syncs = told.metric("tautline_events_syncs_total");
    wait_until("the last is synced", || {
        (told.metric("tautline_events_syncs_total") > syncs).then_some(())
    });
    assert_eq!(sizes(), [2, 2], "and one that waits");
    clients.push(told.client("last", &[]));
    wait_for_count(&told, 6);
    assert_eq!(sizes(), [2, 2, 2]);
}

#[test]
fn batches_have_a_length_in_bytes() {
    let told = Told::start(
        42,
        "bytes",
        "kinds = [\"connected\"]\nbatch_max_size = 1024\n",
    );
    // All of them wait for somebody who believes the signature.
    let secret = std::mem::take(&mut *told.receiver.secret.lock().unwrap());
    let _clients: Vec<_> = (0..20)
        .map(|number| told.client(&format!("user-{number}"), &[]))
        .collect();
    *told.receiver.secret.lock().unwrap() = secret;
    wait_for_count(&told, 20);
    let batches = told.receiver.batches.lock().unwrap();
    assert!(batches.len() >= 4, "{batches:?}");
    // With what is around the events.
    assert!(
        batches.iter().all(|(_, _, bytes)| *bytes < 1024 + 100),
        "{batches:?}"
    );
}

#[test]
fn what_is_given_up_is_kept_in_part() {
    let options =
        "kinds = [\"connected\"]\nretry_for = \"0s\"\ndead_max_events = 2\nbatch_size = 1\n";
    let told = Told::start(43, "given-up", options);
    told.receiver.secret.lock().unwrap().clear();
    let users: Vec<_> = (0..5).map(|number| format!("user-{number}")).collect();
    let _clients: Vec<_> = users.iter().map(|user| told.client(user, &[])).collect();
    let dead = wait_until("the last two are dead letters", || {
        let dead = told
            .runtime
            .block_on(told.node.handle().dead_events(10))
            .unwrap();
        let is_last = dead
            .last()
            .is_some_and(|one| one.event.user.as_ref() == users.last());
        is_last.then_some(dead)
    });
    let of: Vec<_> = dead
        .iter()
        .map(|one| one.event.user.clone().unwrap())
        .collect();
    assert_eq!(of, users[3..]);
}

#[test]
fn header_fields_go_with_each_batch() {
    let told = Told::start(
        44,
        "fields",
        "http.static_headers = {\"X-Tenant\" = \"seven\"}\n",
    );
    let _client = told.client("ann", &[]);
    wait_for_count(&told, 1);
    let batches = told.receiver.batches.lock().unwrap();
    assert!(batches[0].0.contains("x-tenant: seven"), "{batches:?}");
}

#[test]
fn what_was_written_is_synced_as_soon_as_the_options_say() {
    // Not in the time of a test.
    let told = Told::start(45, "synced", "sync_interval = \"1m\"\n");
    let syncs = || told.metric("tautline_events_syncs_total");
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(told.client(&format!("late-{number}"), &[]));
        wait_for_count(&told, number);
    }
    assert_eq!(syncs(), 0);
    // With a word of it, also what was written before is safe; and from then on, what anybody is told is.
    told.set("sync_interval = \"0s\"\n");
    wait_until("it is synced", || (syncs() > 0).then_some(()));
    for number in 4..=6 {
        let before = syncs();
        clients.push(told.client(&format!("safe-{number}"), &[]));
        wait_for_count(&told, number);
        assert!(syncs() > before, "{number} was told before it was safe");
    }
}

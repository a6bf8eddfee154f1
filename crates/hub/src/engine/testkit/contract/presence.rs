//! Presence, joins and leaves.

use std::sync::Arc;

use tautline_protocol::message::ClientInfo;

use super::Subject;
use super::bench::{Bench, CLIENT, info, list, publish};
use crate::engine::{Channel, JoinLevel, Members, PresenceRead, WorkerId, info_weight};

pub(super) fn presence_lists(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    let (ann, ann_too, bob) = (info("c1", "ann"), info("c2", "ann"), info("c3", "bob"));
    assert_eq!(bench.members("a"), (Members::new(), 0, 0));
    for (worker, info) in [(0, &ann), (1, &ann_too), (1, &bob), (0, &ann)] {
        bench.change_presence(worker, "a", info, true);
    }
    let (members, clients, users) = bench.members("a");
    assert_eq!(
        members.keys().map(|client| &**client).collect::<Vec<_>>(),
        ["c1", "c2", "c3"]
    );
    assert_eq!(members["c3"], bob);
    assert_eq!((clients, users), (3, 2));
    bench.change_presence(0, "a", &ann, false);
    bench.change_presence(0, "a", &ann, false);
    assert_eq!((bench.members("a").1, bench.members("a").2), (2, 2));
    bench.change_presence(1, "a", &ann_too, false);
    bench.change_presence(1, "a", &bob, false);
    assert_eq!(bench.members("a"), (Members::new(), 0, 0));
}

pub(super) fn presence_in_pages(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    for client in ["c5", "c1", "c3", "c2", "c4"] {
        bench.change_presence(0, "a", &info(client, "ann"), true);
    }
    let page = |after: Option<&str>, wrap, limit, max_bytes| {
        let page = bench.presence(PresenceRead {
            after: after.map(Into::into),
            wrap,
            limit,
            max_bytes,
            ..list("a")
        });
        assert_eq!((page.stats.num_clients, page.stats.num_users), (5, 1));
        let members = page.members.keys().map(ToString::to_string);
        (
            members.collect::<Vec<_>>().join(" "),
            page.next.as_deref().unwrap_or("-").to_owned(),
        )
    };
    let is = |page: (String, String), members: &str, next: &str| {
        assert_eq!((&*page.0, &*page.1), (members, next));
    };
    let all = usize::MAX;
    is(page(None, false, 2, all), "c1 c2", "c2");
    is(page(Some("c2"), false, 2, all), "c3 c4", "c4");
    is(page(Some("c4"), false, 2, all), "c5", "-");
    is(page(Some("c4"), false, 1, all), "c5", "-");
    is(page(Some("c5"), false, 2, all), "", "-");
    is(page(Some("c25"), false, 1, all), "c3", "c3");
    is(page(Some("c3"), true, 3, all), "c1 c4 c5", "c1");
    is(page(Some("c3"), true, 9, all), "c1 c2 c3 c4 c5", "-");
    is(page(None, true, 9, all), "c1 c2 c3 c4 c5", "-");
    let weight = info_weight(&info("c1", "ann"));
    is(page(None, false, all, 2 * weight), "c1 c2", "c2");
    is(page(None, false, all, 3 * weight - 1), "c1 c2", "c2");
    is(page(None, false, all, 0), "c1", "c1");
}

pub(super) fn joins_and_leaves(subject: &dyn Subject) {
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    let (engine, channel, ann) = (subject.engine(), Channel::from("a"), info("c1", "ann"));
    engine.join(bench.now(), WorkerId(1), &channel, &ann, CLIENT);
    bench.publish_with(1, publish("a", "x"));
    engine.leave(bench.now(), WorkerId(1), &channel, &ann, CLIENT);
    bench.publish_with(1, publish("a", "y"));
    assert_eq!(bench.fed(0), ["a +c1", "a x 0>1", "a -c1", "a y 1>2"]);
    assert!(bench.fed(1).is_empty());
}

pub(super) fn users_join_once(subject: &dyn Subject) {
    const USER: JoinLevel = JoinLevel::User;
    let bench = Bench::new(subject);
    bench.attach(0, "a");
    let (engine, channel) = (subject.engine(), Channel::from("a"));
    let tabs = [info("c1", "ann"), info("c2", "ann"), info("c3", "bob")];
    let join = |worker, tab: &Arc<ClientInfo>| {
        engine.join(bench.now(), WorkerId(worker), &channel, tab, USER);
        // Waits until the engine is done with what has no outcome.
        bench.publish_with(worker, publish("a", "x"));
    };
    let leave = |worker, tab: &Arc<ClientInfo>| {
        engine.leave(bench.now(), WorkerId(worker), &channel, tab, USER);
        bench.publish_with(worker, publish("a", "x"));
    };
    let told = || {
        let fed = bench.fed(0).into_iter();
        fed.filter(|fed| !fed.contains('>')).collect::<Vec<_>>()
    };
    join(0, &tabs[0]);
    join(1, &tabs[1]);
    join(1, &tabs[2]);
    assert_eq!(told(), ["a +c1", "a +c3"]);
    leave(0, &tabs[0]);
    assert!(told().is_empty(), "ann is still there");
    leave(1, &tabs[2]);
    leave(1, &tabs[1]);
    assert_eq!(told(), ["a -c3", "a -c2"]);
    join(1, &tabs[0]);
    assert_eq!(told(), ["a +c1"], "anew");
    let nobody = [info("n1", ""), info("n2", "")];
    join(0, &nobody[0]);
    join(1, &nobody[1]);
    leave(0, &nobody[0]);
    assert_eq!(told(), ["a +n1", "a +n2", "a -n1"], "no user in common");
    // Another channel is another company.
    bench.attach(0, "b");
    engine.join(bench.now(), WorkerId(1), &"b".into(), &tabs[1], USER);
    bench.publish_with(1, publish("b", "x"));
    assert!(told().contains(&"b +c2".to_owned()));
}

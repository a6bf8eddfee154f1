//! Other options while clients are connected and subscribed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tautline_hub::ApiPublish;
use tautline_hub::config::{ChannelOptions, ClientOptions, NamespaceOptions, TagsFilterTemplate};
use tautline_hub::engine::JoinLevel;
use tautline_hub::rate::Rate;

use crate::support::{Client, Setup, World, token};

/// A world whose options are changed by a test.
struct Changing {
    world: World,
    client: ClientOptions,
    channel: ChannelOptions,
}

impl Changing {
    fn new() -> Self {
        Self::with(|_, _| ())
    }

    fn with(change: impl FnOnce(&mut ClientOptions, &mut ChannelOptions)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup.client, &mut setup.channel);
        let (client, channel) = (setup.client.clone(), setup.channel.clone());
        Self {
            world: World::with(setup),
            client,
            channel,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut ClientOptions, &mut ChannelOptions)) {
        change(&mut self.client, &mut self.channel);
        self.world
            .reconfigure(self.client.clone(), self.channel.clone());
    }

    fn change_room(&mut self, change: impl FnOnce(&mut NamespaceOptions)) {
        self.change(|_, channel| change(&mut channel.namespaces[0]));
    }

    fn subscribed(&mut self, worker: usize, channel: &str) -> Client {
        let client = self.world.connect(worker);
        let reply = self.subscribe(client, channel);
        assert!(reply["subscribe"].is_object(), "{reply}");
        client
    }

    fn subscribe(&mut self, client: Client, channel: &str) -> Value {
        let command = json!({"id": 2, "subscribe": {"channel": channel}});
        self.world.tell(client, command)[0].clone()
    }

    fn publish(&mut self, channel: &str, data: u64, tags: &[(&str, &str)]) {
        let tags = tags.iter();
        let request = ApiPublish {
            channel: channel.into(),
            data: data.to_string().into(),
            tags: tags
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect::<BTreeMap<_, _>>(),
            ..ApiPublish::default()
        };
        let done = |result: Result<_, _>| {
            result.unwrap();
        };
        self.world.workers[0]
            .hub
            .api_publish(self.world.now, request, done);
        self.world.settle();
    }

    /// What was published, of what the client has heard.
    fn got(&mut self, client: Client) -> Vec<u64> {
        let heard = self.world.heard(client);
        let data = heard.iter().map(|push| &push["push"]["pub"]["data"]);
        data.filter_map(Value::as_u64).collect()
    }
}

#[test]
fn permissions_count_from_the_next_command_on_and_subscriptions_stay() {
    let mut all = Changing::new();
    let client = all.subscribed(0, "news");
    let publish = json!({"id": 3, "publish": {"channel": "news", "data": 1}});
    let reply = all.world.tell(client, publish.clone());
    assert_eq!(reply[0], json!({"id": 3, "publish": {}}));
    all.change(|_, channel| {
        channel.without_namespace.allow_publish_for_client = false;
        channel.without_namespace.allow_subscribe_for_client = false;
    });
    let reply = all.world.tell(client, publish);
    assert_eq!(reply[0]["error"]["code"], 103);
    let other = all.world.connect(1);
    assert_eq!(all.subscribe(other, "news")["error"]["code"], 103);
    all.publish("news", 2, &[]);
    assert_eq!(all.got(client), [2]);
}

#[test]
fn a_namespace_that_is_gone_takes_its_subscriptions_with_it() {
    let mut all = Changing::new();
    let (client, other) = (all.subscribed(0, "room:1"), all.subscribed(1, "news"));
    all.world.heard(client);
    all.change(|_, channel| drop(channel.namespaces.remove(0)));
    let gone = json!({"code": 2000, "reason": "unknown channel"});
    assert_eq!(
        all.world.heard(client),
        [json!({"push": {"channel": "room:1", "unsubscribe": gone}})]
    );
    assert!(all.world.members("room:1").is_empty());
    assert_eq!(all.world.heard(other), [] as [Value; 0]);
    assert_eq!(all.subscribe(client, "room:1")["error"]["code"], 102);
    assert_eq!(all.world.closed(client), None);
}

#[test]
fn who_relies_on_a_history_that_is_not_kept_any_more_begins_anew() {
    let mut all = Changing::new();
    let client = all.subscribed(0, "room:1");
    all.publish("room:1", 1, &[]);
    all.world.heard(client);
    all.change_room(|room| {
        room.history_size = 0;
        room.history_ttl = Duration::ZERO;
        room.force_recovery = false;
    });
    let heard = all.world.heard(client);
    let code = |push: &Value| push["push"]["unsubscribe"]["code"] == 2500;
    assert_eq!(
        heard.iter().filter(|push| code(push)).count(),
        1,
        "{heard:?}"
    );
    let reply = all.subscribe(client, "room:1");
    assert_eq!(reply["subscribe"]["recoverable"], Value::Null, "{reply}");
    all.publish("room:1", 2, &[]);
    assert_eq!(all.got(client), [2]);
}

#[test]
fn a_history_is_as_long_as_the_options_say_from_the_next_publication_on() {
    let mut all = Changing::new();
    let client = all.subscribed(0, "room:1");
    for data in 1..=6 {
        all.publish("room:1", data, &[]);
    }
    all.change_room(|room| room.history_size = 3);
    all.publish("room:1", 7, &[]);
    assert_eq!(all.got(client), [1, 2, 3, 4, 5, 6, 7], "nothing is lost");
    let history = json!({"id": 3, "history": {"channel": "room:1", "limit": -1}});
    let reply = all.world.tell(client, history)[0].clone();
    let kept = reply["history"]["publications"].as_array().unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|publication| &publication["data"])
        .collect();
    assert_eq!(kept, [5, 6, 7]);
}

#[test]
fn a_slow_reader_gets_all_of_it_whatever_changes_meanwhile() {
    let mut all = Changing::with(|client, channel| {
        client.queue_max_size = 4096;
        client.ping_interval = Duration::ZERO;
        channel.namespaces[0].history_size = 1000;
    });
    let client = all.subscribed(0, "room:1");
    all.world.workers[0].out.stalled.insert(client.id, 0);
    for data in 0..100 {
        all.publish("room:1", data, &[]);
    }
    all.change(|client, channel| {
        client.queue_max_size = 8192;
        let room = &mut channel.namespaces[0];
        room.history_size = 900;
        room.presence = false;
        room.join_leave = false;
        room.force_push_join_leave = false;
    });
    for data in 100..200 {
        all.publish("room:1", data, &[]);
    }
    all.world.workers[0].out.stalled.clear();
    all.world.settle();
    assert_eq!(all.got(client), (0..200).collect::<Vec<_>>());
}

#[test]
fn presence_lists_those_who_are_there_or_nobody() {
    let mut all = Changing::with(|_, channel| channel.namespaces[0].presence = false);
    for worker in [0, 1] {
        all.subscribed(worker, "room:1");
    }
    assert_eq!(all.world.members("room:1").len(), 0);
    all.change_room(|room| room.presence = true);
    assert_eq!(all.world.members("room:1").len(), 2);
    let late = all.subscribed(0, "room:1");
    assert_eq!(all.world.members("room:1").len(), 3);
    all.world.drop_connection(late);
    assert_eq!(all.world.members("room:1").len(), 2);
    all.change_room(|room| room.presence = false);
    assert_eq!(all.world.members("room:1").len(), 0);
}

#[test]
fn what_a_token_says_of_presence_counts_more() {
    let mut all = Changing::with(|_, channel| channel.namespaces[0].presence = false);
    let hidden =
        json!({"sub": "42", "subs": {"room:1": {"override": {"presence": {"value": false}}}}});
    all.world
        .connect_with(0, &crate::support::sign_claims(&hidden));
    all.change_room(|room| room.presence = true);
    assert_eq!(all.world.members("room:1").len(), 0);
}

#[test]
fn clients_are_pinged_as_they_were_told() {
    let told = |reply: &Value| reply["connect"]["ping"].as_u64().unwrap();
    let mut all = Changing::with(|client, _| client.pong_timeout = Duration::ZERO);
    let before = all.world.open(0);
    let connect = json!({"id": 1, "connect": {}});
    assert_eq!(told(&all.world.tell(before, connect.clone())[0]), 25);
    all.change(|client, _| client.ping_interval = Duration::from_secs(100));
    let after = all.world.open(0);
    assert_eq!(told(&all.world.tell(after, connect)[0]), 100);
    all.world.seconds(1000);
    let pings = |heard: Vec<Value>| heard.len();
    let (before, after) = (all.world.heard(before), all.world.heard(after));
    assert!((38..=40).contains(&pings(before)), "every 25 s");
    assert!((9..=10).contains(&pings(after)), "every 100 s");
}

#[test]
fn answers_are_waited_for_as_clients_were_told() {
    let mut all = Changing::with(|client, _| client.pong_timeout = Duration::ZERO);
    let client = all.world.connect(0);
    all.change(|client, _| client.pong_timeout = Duration::from_secs(5));
    let late = all.world.connect(0);
    all.world.seconds(100);
    assert_eq!(
        all.world.closed(client),
        None,
        "it was told that none is needed"
    );
    assert_eq!(all.world.closed(late), Some((3012, true)));
}

#[test]
fn imposed_filters_are_those_of_the_options() {
    let owner = |value: &str| {
        let filter = json!({"key": "owner", "cmp": "eq", "val": value}).to_string();
        Some(TagsFilterTemplate::parse(&filter).unwrap())
    };
    let mut all = Changing::with(|_, channel| channel.namespaces[0].allow_tags_filter = true);
    let (plain, narrow) = (
        all.world.connect_with(0, &token("42", None)),
        all.world.connect_with(1, &token("42", None)),
    );
    all.subscribe(plain, "room:1");
    let own = json!({"key": "lang", "cmp": "eq", "val": "en"});
    let subscribe = json!({"id": 2, "subscribe": {"channel": "room:1", "tf": own}});
    all.world.tell(narrow, subscribe);
    let mut number = 0;
    let mut round = |all: &mut Changing| {
        all.world.heard(plain);
        all.world.heard(narrow);
        for owner in ["42", "43"] {
            for lang in ["en", "de"] {
                all.publish("room:1", number, &[("owner", owner), ("lang", lang)]);
                number += 1;
            }
        }
        number -= 4;
        (all.got(plain), all.got(narrow))
    };
    assert_eq!(round(&mut all), (vec![0, 1, 2, 3], vec![0, 2]));
    all.change_room(|room| room.server_tags_filter = owner("{{user}}"));
    assert_eq!(round(&mut all), (vec![0, 1], vec![0]));
    all.change_room(|room| room.server_tags_filter = owner("43"));
    assert_eq!(round(&mut all), (vec![2, 3], vec![2]));
    all.change_room(|room| room.server_tags_filter = None);
    assert_eq!(round(&mut all), (vec![0, 1, 2, 3], vec![0, 2]));
}

#[test]
fn connections_that_are_there_count_for_a_new_limit() {
    let mut all = Changing::new();
    let tabs = [all.world.connect_as(0, "42"), all.world.connect_as(1, "42")];
    all.change(|client, _| client.user_connection_limit = 2);
    let connect = json!({"id": 1, "connect": {"token": token("42", None)}});
    let third = all.world.open(0);
    all.world.tell(third, connect.clone());
    assert_eq!(all.world.closed(third), Some((3504, true)));
    all.change(|client, _| client.user_connection_limit = 1);
    for tab in tabs {
        assert_eq!(all.world.closed(tab), None, "nobody is ended for it");
    }
    for tab in tabs {
        all.world.drop_connection(tab);
    }
    all.world.connect_as(1, "42");
    let second = all.world.open(0);
    all.world.tell(second, connect);
    assert_eq!(all.world.closed(second), Some((3504, true)));
}

/// Nobody had to count when they subscribed.
#[test]
fn subscribers_that_are_there_count_for_a_new_limit() {
    let mut all = Changing::with(|_, channel| channel.without_namespace.max_subscribers = 0);
    let clients = [0, 1, 0].map(|worker| all.world.connect(worker));
    let subscribe = json!({"id": 2, "subscribe": {"channel": "news"}});
    for client in &clients[..2] {
        all.world.tell(*client, subscribe.clone());
    }
    all.change(|_, channel| channel.without_namespace.max_subscribers = 2);
    let heard = all.world.tell(clients[2], subscribe.clone());
    assert_eq!(heard[0]["error"]["code"], 106, "{heard:?}");
    all.world.drop_connection(clients[0]);
    let heard = all.world.tell(clients[2], subscribe);
    assert!(heard[0]["subscribe"].is_object(), "{heard:?}");
}

#[test]
fn connections_that_are_there_make_room_for_the_only_one() {
    let mut all = Changing::new();
    let tabs = [all.world.connect_as(0, "42"), all.world.connect_as(1, "42")];
    let other = all.world.connect_as(1, "43");
    all.change(|client, _| {
        client.subscribe_to_user_personal_channel.enabled = true;
        client.subscribe_to_user_personal_channel.single_connection = true;
    });
    for tab in tabs {
        assert_eq!(all.world.closed(tab), None, "nobody is ended for it");
    }
    let newest = all.world.connect_as(0, "42");
    for tab in tabs {
        assert_eq!(all.world.closed(tab), Some((3504, true)));
    }
    assert_eq!(
        (all.world.closed(newest), all.world.closed(other)),
        (None, None)
    );
}

#[test]
fn rates_are_those_of_the_options() {
    let mut all = Changing::with(|client, _| {
        client.rate_limit.client_command.publish = Some(Rate::per_second(1));
        client.rate_limit.client_error.enabled = false;
    });
    let client = all.world.connect(0);
    let publish = json!({"id": 3, "publish": {"channel": "news", "data": 1}});
    let refused = |all: &mut Changing| {
        let replies = (0..10).map(|_| all.world.tell(client, publish.clone())[0].clone());
        replies
            .filter(|reply| reply["error"]["code"] == 111)
            .count()
    };
    assert_eq!(refused(&mut all), 9);
    all.change(|client, _| client.rate_limit.client_command.publish = Some(Rate::per_second(4)));
    assert_eq!(refused(&mut all), 6);
    // What has nothing to do with rates lets nobody begin anew.
    all.change(|client, _| client.queue_max_size = 65536);
    assert_eq!(refused(&mut all), 10);
    all.change(|client, _| client.rate_limit.client_command.enabled = false);
    assert_eq!(refused(&mut all), 0);
}

#[test]
fn leaving_is_told_as_coming_was() {
    let mut all = Changing::new();
    let watcher = all.subscribed(0, "room:1");
    let tabs = [all.world.connect_as(0, "42"), all.world.connect_as(1, "42")];
    for tab in tabs {
        all.subscribe(tab, "room:1");
    }
    all.change_room(|room| room.join_leave_level = JoinLevel::User);
    let late = all.world.connect_as(1, "42");
    all.subscribe(late, "room:1");
    all.world.heard(watcher);
    let leaves = |all: &mut Changing, client| {
        all.world.drop_connection(client);
        all.world.settle();
        let heard = all.world.heard(watcher);
        heard
            .iter()
            .filter(|push| push["push"]["leave"].is_object())
            .count()
    };
    for client in [tabs[0], late, tabs[1]] {
        assert_eq!(leaves(&mut all, client), 1);
    }
    all.change_room(|room| {
        room.join_leave = false;
        room.force_push_join_leave = false;
    });
    let quiet = all.subscribed(1, "room:1");
    assert_eq!(leaves(&mut all, quiet), 0);
}

//! What the manifests in `deploy/` claim, against a server that is started with what they say: read as YAML, so that
//! what is compared is what Kubernetes and compose would see.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod chart;
#[path = "../support/deployed.rs"]
mod deployed;
#[path = "../support/directory.rs"]
mod directory;
#[path = "../support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};

use self::deployed::{deploy, read};
use self::directory::Directory;
use self::process::{Server, wait_until};

/// The documents of a file of YAML.
fn documents(text: &str) -> Vec<Value> {
    enum Open {
        List(Vec<Value>),
        Map(Map<String, Value>, Option<String>),
    }
    let (mut open, mut all): (Vec<Open>, Vec<Value>) = Default::default();
    let mut put = |open: &mut Vec<Open>, value: Value| match open.last_mut() {
        None => all.push(value),
        Some(Open::List(list)) => list.push(value),
        Some(Open::Map(map, key)) => match key.take() {
            None => *key = Some(value.as_str().expect("a name").to_owned()),
            Some(key) => assert!(map.insert(key, value).is_none(), "a name is there twice"),
        },
    };
    for event in Parser::new_from_str(text) {
        match event.unwrap().0 {
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                let is_name = matches!(open.last(), Some(Open::Map(_, None)));
                let value = match &*text {
                    "" | "~" | "null" if !is_name => Value::Null,
                    "true" | "false" if !is_name => json!(&*text == "true"),
                    _ if is_name => json!(text),
                    _ => text
                        .parse::<u64>()
                        .map_or_else(|_| json!(text), |number| json!(number)),
                };
                put(&mut open, value);
            }
            Event::Scalar(text, ..) => put(&mut open, json!(text)),
            Event::SequenceStart(..) => open.push(Open::List(Vec::new())),
            Event::MappingStart(..) => open.push(Open::Map(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                let value = match open.pop().unwrap() {
                    Open::List(list) => Value::Array(list),
                    Open::Map(map, _) => Value::Object(map),
                };
                put(&mut open, value);
            }
            Event::Alias(_) => panic!("no aliases here"),
            _ => {}
        }
    }
    all
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The element of a list with that name.
#[track_caller]
fn named<'v>(all: &'v Value, name: &Value) -> &'v Value {
    let found = list(all).iter().find(|one| one["name"] == *name);
    found.unwrap_or_else(|| panic!("nothing is called {name} in {all}"))
}

/// A server with a configuration that listens on all interfaces, on this machine alone, and where its internal listener
/// is. Variables that name files of secrets have files of the test's own.
fn start(
    name: &str,
    config: &str,
    variables: &[(String, String)],
    directory: &Directory,
) -> (Server, SocketAddr) {
    let mut here = config.to_owned();
    for (from, to) in [
        ("address = \"0.0.0.0\"", "address = \"127.0.0.1\""),
        ("port = 8000", "port = 0"),
        ("\"0.0.0.0:9000\"", "\"127.0.0.1:0\""),
    ] {
        assert!(here.contains(from), "{name}: {from}");
        here = here.replace(from, to);
    }
    let mut starter = vec!["env".to_owned()];
    for (variable, value) in variables {
        let value = if variable.ends_with("_FILE") {
            let file = value.rsplit('/').next().unwrap();
            let secret = "a secret of thirty-two bytes or more\n";
            directory.file(file, secret).display().to_string()
        } else {
            value.clone()
        };
        starter.push(format!("{variable}={value}"));
    }
    let starter: Vec<_> = starter.iter().map(String::as_str).collect();
    let server = Server::serve_file_by(&starter, name, &here);
    let internal = server.internal.unwrap();
    (server, internal)
}

/// The status of a request for a path.
fn status(address: SocketAddr, method: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(process::DEADLINE)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    // Of an answer that goes on, the beginning.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

#[test]
fn what_kubernetes_is_told_is_what_the_server_does() {
    let all = documents(&read("kubernetes/tautline.yaml"));
    let kind = |kind: &str| {
        let mut found = all.iter().filter(|one| one["kind"] == kind);
        let one = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "two of {kind}");
        one
    };
    let services: Vec<_> = all.iter().filter(|one| one["kind"] == "Service").collect();
    let [service, inside] = services[..] else {
        panic!("a service for clients, and one for all others: {services:?}");
    };
    let (deployment, policy) = (kind("Deployment"), kind("NetworkPolicy"));
    let (config_map, ingress) = (kind("ConfigMap"), kind("Ingress"));
    let template = &deployment["spec"]["template"];
    let pod = &template["spec"];
    let container = &list(&pod["containers"])[0];

    // Each finds what it is for.
    let labels = template["metadata"]["labels"].as_object().unwrap();
    for selector in [
        &deployment["spec"]["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &inside["spec"]["selector"],
        &policy["spec"]["podSelector"]["matchLabels"],
    ] {
        let selector = selector.as_object().unwrap();
        assert!(!selector.is_empty());
        for (label, value) in selector {
            assert_eq!(labels.get(label), Some(value), "{label}");
        }
    }
    for mount in list(&container["volumeMounts"]) {
        named(&pod["volumes"], &mount["name"]);
        assert_eq!(mount["readOnly"], true);
    }
    let volume = named(&pod["volumes"], &json!("configuration"));
    assert_eq!(volume["configMap"]["name"], config_map["metadata"]["name"]);
    for port in [service, inside].map(|one| list(&one["spec"]["ports"])) {
        let [port] = port else {
            panic!("what is for clients and what isn't are apart: {port:?}");
        };
        named(&container["ports"], &port["targetPort"]);
    }
    // Of whatever type the clients' is made: what is inside stays there.
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(inside["spec"]["ports"][0]["targetPort"], "internal");
    assert_eq!(inside["spec"]["type"], "ClusterIP");
    let told = text(&config_map["data"]["tautline.toml"]);
    keeps_strangers_from_what_is_inside(&policy["spec"]);
    let mut doors = BTreeSet::new();
    for rule in list(&ingress["spec"]["rules"]) {
        for path in list(&rule["http"]["paths"]) {
            let backend = &path["backend"]["service"];
            assert_eq!(backend["name"], service["metadata"]["name"]);
            let port = named(&service["spec"]["ports"], &backend["port"]["name"]);
            assert_eq!(port["targetPort"], "http");
            doors.insert(text(&path["path"]));
        }
    }

    // The memory engine belongs to one process, and the new one is ready before the old one sends its clients over.
    assert_eq!(deployment["spec"]["replicas"], 1);
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(
        (&rolling["maxUnavailable"], &rolling["maxSurge"]),
        (&json!(0), &json!(1))
    );
    for who in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod["securityContext"][who], 65532, "{who}");
    }
    reads_its_secrets_and_has_its_memory(pod, bytes_of_engine(told, " = "));
    lets_lines_rest_and_streams_through(&ingress["metadata"]["annotations"]);

    // Its ports are those of the configuration.
    let config = text(&config_map["data"]["tautline.toml"]);
    let port = |name: &str| named(&container["ports"], &json!(name))["containerPort"].clone();
    assert!(config.contains(&format!("port = {}\n", port("http"))));
    assert!(config.contains(&format!(
        "internal_listen = \"0.0.0.0:{}\"\n",
        port("internal")
    )));
    let scraped = &template["metadata"]["annotations"]["prometheus.io/port"];
    assert_eq!(text(scraped), port("internal").to_string());

    let variables = list(&container["env"]).iter();
    let variables = variables.map(|one| {
        (
            text(&one["name"]).to_owned(),
            text(&one["value"]).to_owned(),
        )
    });
    let directory = Directory::new("kubernetes");
    let (server, internal) = start(
        "kubernetes",
        config,
        &variables.collect::<Vec<_>>(),
        &directory,
    );
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["port"], "internal", "{probe}");
        assert_eq!(
            status(internal, "GET", text(&asked["path"])),
            200,
            "{probe}"
        );
    }
    assert_eq!(status(internal, "GET", "/metrics"), 200);
    for door in doors {
        let path = if door == "/connection" {
            "/connection/websocket"
        } else {
            door
        };
        let found = status(server.address, "GET", path);
        assert!(found != 404, "{path} is none: {found}");
    }
    for (method, path) in [("POST", "/api/info"), ("GET", "/metrics")] {
        assert_eq!(status(server.address, method, path), 404, "{path}");
    }
    // Readiness goes first, and for longer than it takes to be noticed; nothing else goes with it.
    server.signal("-TERM");
    wait_until("it isn't ready", || {
        (status(internal, "GET", "/ready") == 503).then_some(())
    });
    assert_eq!(status(internal, "GET", "/health"), 200);
    let probe = &container["readinessProbe"];
    let noticed =
        probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
    let (_, delay) = config.split_once("readiness_delay = \"").unwrap();
    let delay: u64 = delay.split_once("s\"").unwrap().0.parse().unwrap();
    assert!(
        noticed < delay,
        "{delay} s are too short for what is noticed after {noticed} s"
    );
}

/// Whoever is no client reaches the internal port only if somebody has named him.
#[track_caller]
fn keeps_strangers_from_what_is_inside(policy: &Value) {
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    let rule = |port: &str| {
        let mut rules = list(&policy["ingress"]).iter();
        let rule = rules.find(|rule| rule["ports"] == json!([{ "port": port }]));
        rule.unwrap_or_else(|| panic!("nothing is said of {port}: {policy}"))
    };
    assert_eq!(rule("http")["from"], Value::Null);
    let from = list(&rule("internal")["from"]);
    assert!(!from.is_empty(), "an empty list is everybody");
    for one in from {
        assert_ne!(one["namespaceSelector"], json!({}), "every namespace");
    }
    assert_eq!(list(&policy["ingress"]).len(), 2);
}

/// Files of secrets are root's and, with `fsGroup`, of a group that the server is in: their mode has to let that read. And
/// what histories may take is at most half of the memory.
#[track_caller]
fn reads_its_secrets_and_has_its_memory(pod: &Value, engine: u64) {
    let security = &pod["securityContext"];
    assert!(security["fsGroup"].is_u64() && security["fsGroup"] == security["runAsGroup"]);
    let mode = &named(&pod["volumes"], &json!("secrets"))["secret"]["defaultMode"];
    assert_eq!(*mode, 440, "read by its group, and by nobody else");
    // Variables that a cluster makes of a service's name would be taken for options.
    assert_eq!(pod["enableServiceLinks"], false);
    let resources = &list(&pod["containers"])[0]["resources"];
    let limit = text(&resources["limits"]["memory"]);
    assert_eq!(text(&resources["requests"]["memory"]), limit);
    let gib: u64 = limit.strip_suffix("Gi").unwrap().parse().unwrap();
    assert!(engine <= gib << 29, "{engine} of {limit}");
}

/// `engine.memory.max_bytes` of a text, with what stands behind its name.
#[track_caller]
fn bytes_of_engine(text: &str, behind: &str) -> u64 {
    let name = format!("max_bytes{behind}");
    let (_, rest) = text.split_once(&name).expect("it says how much");
    rest.lines().next().unwrap().trim().parse().unwrap()
}

/// What an ingress of nginx has to be told: who is silent for two pings stays, and what goes on isn't held back.
#[track_caller]
fn lets_lines_rest_and_streams_through(annotations: &Value) {
    let of = |name: &str| text(&annotations[format!("nginx.ingress.kubernetes.io/proxy-{name}")]);
    for side in ["read-timeout", "send-timeout"] {
        let seconds: u64 = of(side).parse().unwrap();
        assert!(
            seconds > 2 * PING,
            "{side}: {seconds} s, and a ping each {PING} s"
        );
    }
    assert_eq!(of("buffering"), "off");
}

/// A command of a list, with the binary that was built in its place, and its port somewhere else.
fn run_in_place(words: &[&str], internal: SocketAddr) -> Output {
    assert_eq!(words[0], "/usr/bin/tautline");
    let words = words[1..]
        .iter()
        .map(|word| word.replace("127.0.0.1:9000", &internal.to_string()));
    Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(words)
        .env_remove("TAUTLINE_URL")
        .output()
        .unwrap()
}

#[test]
fn what_compose_is_told_is_what_the_server_does() {
    let compose = &documents(&read("docker/compose.yaml"))[0];
    let service = &compose["services"]["tautline"];
    for secret in list(&service["secrets"]) {
        assert!(
            compose["secrets"][text(secret)]["file"].is_string(),
            "{secret}"
        );
    }
    for network in list(&service["networks"]) {
        assert!(compose["networks"][text(network)].is_object(), "{network}");
    }
    let environment = service["environment"].as_object().unwrap();
    let trusted = text(&environment["TAUTLINE_HTTP_SERVER_TRUSTED_PROXIES"]);
    let subnet = &compose["networks"]["front"]["ipam"]["config"][0]["subnet"];
    assert_eq!(
        serde_json::from_str::<Value>(trusted).unwrap(),
        json!([subnet])
    );
    let config = read("docker/tautline.toml");
    for port in list(&service["ports"]) {
        let inside = text(port).rsplit(':').next().unwrap();
        let listens = [format!("port = {inside}\n"), format!(":{inside}\"\n")];
        assert!(listens.iter().any(|line| config.contains(line)), "{port}");
    }

    // The check says what is, in words and by its status; the image has the same.
    let test: Vec<&str> = list(&service["healthcheck"]["test"])
        .iter()
        .map(text)
        .collect();
    let (kind, check) = test.split_first().unwrap();
    assert_eq!(*kind, "CMD", "the image has no shell");
    let dockerfile = read("docker/Dockerfile").replace("\\\n", "");
    let (_, of_image) = dockerfile.split_once("\nHEALTHCHECK ").unwrap();
    let (_, of_image) = of_image
        .lines()
        .next()
        .unwrap()
        .split_once(" CMD ")
        .unwrap();
    assert_eq!(serde_json::from_str::<Vec<&str>>(of_image).unwrap(), check);

    let variables = environment.iter();
    let variables = variables.map(|(name, value)| (name.clone(), text(value).to_owned()));
    let directory = Directory::new("compose");
    let (server, internal) = start(
        "compose",
        &config,
        &variables.collect::<Vec<_>>(),
        &directory,
    );
    let output = run_in_place(check, internal);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(status(internal, "GET", "/metrics"), 200);
    assert_eq!(status(server.address, "POST", "/api/info"), 404);
    drop(server);
    let output = run_in_place(check, internal);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// Who was locked out, and what the backend hasn't been told yet, have users in them: other users of a machine don't look
/// into that, whatever the mask of whoever has started the server.
#[test]
fn what_is_kept_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new("kept");
    let [events, revocations] =
        ["state/events", "state/revocations"].map(|name| directory.join(name));
    let config = format!(
        "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[events]\nenabled = true\nendpoint = \"http://127.0.0.1:1/\"\n\
         directory = {events:?}\n[revocation]\ndirectory = {revocations:?}\n"
    );
    let starter = ["sh", "-c", "umask 022; exec \"$@\"", "sh"];
    let server = Server::serve_file_by(&starter, "kept", &config);
    for kept in [directory.join("state"), events, revocations] {
        let mode = std::fs::metadata(&kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", kept.display());
    }
    drop(server);
}

/// Of Traefik, which no test starts: what its recipe has to say.
#[test]
fn the_recipe_for_traefik_is_whole() {
    let recipe = &documents(&read("traefik/tautline.yml"))[0]["http"];
    let router = &recipe["routers"]["tautline"];
    for rule in [
        "!PathPrefix(`/api`)",
        "!PathPrefix(`/admin`)",
        "!Path(`/metrics`)",
    ] {
        let found = text(&router["rule"]);
        assert!(
            found.split(" && ").any(|one| one == rule),
            "{rule}: {found}"
        );
    }
    let service = text(&router["service"]);
    let balancer = &recipe["services"][service]["loadBalancer"];
    assert_eq!(balancer["passHostHeader"], true);
    assert_eq!(balancer["responseForwarding"]["flushInterval"], "-1ms");
    let config = read("tautline.toml");
    for server in list(&balancer["servers"]) {
        let port = text(&server["url"]).rsplit(':').next().unwrap();
        assert!(config.contains(&format!("port = {port}\n")), "{server}");
    }
    let transport = &recipe["serversTransports"][text(&balancer["serversTransport"])];
    let idle = text(&transport["forwardingTimeouts"]["idleConnTimeout"]);
    assert!(idle_seconds(idle) < SERVER_IDLE, "{idle}");
}

/// Connections that rest are given up in front before the server gives them up, or a request meets one that is being closed.
#[test]
fn connections_that_rest_are_given_up_in_front_first() {
    for (recipe, option) in [
        ("nginx/tautline.conf", "    keepalive_timeout "),
        ("haproxy/haproxy.cfg", " pool-purge-delay "),
        ("caddy/Caddyfile", "\tkeepalive "),
    ] {
        let recipe_text = read(recipe);
        let (_, rest) = recipe_text.split_once(option).expect(option);
        let idle = rest.split([';', '\n', ' ']).next().unwrap();
        assert!(idle_seconds(idle) < SERVER_IDLE, "{recipe}: {idle}");
    }
    assert!(read("haproxy/haproxy.cfg").contains("\n    option http-no-delay\n"));
}

fn idle_seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().expect("seconds")
}

/// Seconds between the server's pings, and after which it gives up a connection on which no request comes.
const PING: u64 = 25;
const SERVER_IDLE: u64 = 10;

/// Where there is a systemd that can be asked. Its unit names a binary, which is somewhere else here.
#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let directory = Directory::new("units");
    let unit = read("systemd/tautline.service");
    for line in [
        "ExecStart=/usr/bin/tautline serve",
        "ExecReload=+/usr/bin/tautline config",
    ] {
        assert!(unit.contains(&format!("\n{line}")), "{line}");
    }
    let unit = unit.replace(
        "/usr/bin/tautline ",
        concat!(env!("CARGO_BIN_EXE_tautline"), " "),
    );
    // With what the book adds to them.
    let book = ["going-live", "tls"].map(|page| read(&format!("../docs/{page}.md")));
    let added = book.iter().flat_map(|page| page.split("```ini\n").skip(1));
    let mut count = 0;
    for (number, rest) in added.enumerate() {
        let (text, _) = rest.split_once("```").unwrap();
        let of = if text.contains("[Socket]") {
            "socket"
        } else {
            "service"
        };
        let folder = directory.join(&format!("tautline.{of}.d"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{number}.conf")), text).unwrap();
        count += 1;
    }
    assert_eq!(count, 3);
    let service = directory.file("tautline.service", &unit);
    let socket = directory.file("tautline.socket", &read("systemd/tautline.socket"));
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).current_dir(directory.path());
        match command.output() {
            Ok(output) => Some(output),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("not looked at: there is no systemd-analyze");
                None
            }
            Err(error) => panic!("systemd-analyze: {error}"),
        }
    };
    let (service, socket) = (service.to_str().unwrap(), socket.to_str().unwrap());
    let Some(verified) = analyze(&["verify", "--man=no", service, socket]) else {
        return;
    };
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(
        verified.status.success() && !told.contains("tautline."),
        "{told}"
    );
    // 10 is no protection at all; in tenths.
    let exposure = analyze(&["security", "--offline=true", "--threshold=20", service]).unwrap();
    let told = String::from_utf8_lossy(&exposure.stdout);
    assert!(exposure.status.success(), "{told}");
}

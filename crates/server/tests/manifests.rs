//! What the manifests in `deploy/` claim, against a server that is started with what they say: read as YAML, so that
//! what is compared is what Kubernetes and compose would see.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/directory.rs"]
mod directory;
#[path = "support/process.rs"]
mod process;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};

use self::directory::Directory;
use self::process::{Server, wait_until};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(path)
}

fn read(path: &str) -> String {
    let path = deploy(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

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

/// All that can be set: the names of values, with those that they are in.
fn leaves(value: &Value, name: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                let name = match name {
                    "" => key.clone(),
                    outer => format!("{outer}.{key}"),
                };
                leaves(inner, &name, all);
            }
        }
        _ => drop(all.insert(name.to_owned())),
    }
}

/// What a template names of the values, there is, and the other way round.
#[test]
fn the_chart_names_values_that_there_are_and_all_of_them() {
    let values = &documents(&read("helm/tautline/values.yaml"))[0];
    let mut unused = BTreeSet::new();
    leaves(values, "", &mut unused);
    let mut count = 0;
    for entry in std::fs::read_dir(deploy("helm/tautline/templates")).unwrap() {
        let path = entry.unwrap().path();
        let template = std::fs::read_to_string(&path).unwrap();
        for rest in template.split(".Values.").skip(1) {
            let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.');
            let name = rest.split(|char| !is_name(char)).next().unwrap();
            let mut value = values;
            for part in name.trim_end_matches('.').split('.') {
                let inner = value.get(part);
                value = inner.unwrap_or_else(|| panic!("{}: no {name}", path.display()));
            }
            let name = name.trim_end_matches('.');
            unused.retain(|leaf| {
                leaf != name
                    && !leaf
                        .strip_prefix(name)
                        .is_some_and(|rest| rest.starts_with('.'))
            });
            count += 1;
        }
        let actions = template.split("{{").skip(1);
        let actions = actions.map(|rest| rest.trim_start_matches(['-', ' ']));
        let actions = actions.map(|rest| rest.split([' ', '}']).next().unwrap());
        let (mut begun, mut ended) = (0, 0);
        for action in actions {
            begun += usize::from(matches!(action, "if" | "range" | "with" | "define"));
            ended += usize::from(action == "end");
        }
        assert_eq!(begun, ended, "{}", path.display());
        assert_eq!(
            template.matches("{{").count(),
            template.matches("}}").count(),
            "{}",
            path.display()
        );
    }
    assert!(count > 20, "{count}");
    assert!(unused.is_empty(), "no template names {unused:?}");
    lets_lines_rest_and_streams_through(&values["ingress"]["annotations"]);
    let template = |name: &str| read(&format!("helm/tautline/templates/{name}.yaml"));
    // A pod reads its configuration when it starts.
    let of_configuration = "checksum/config: {{ include (print $.Template.BasePath \"/configmap.yaml\") . | sha256sum }}\n";
    assert!(template("deployment").contains(of_configuration));
    // A mistyped value, and one of another chart, are told.
    let schema = std::fs::read_to_string(deploy("helm/tautline/values.schema.json")).unwrap();
    has_all_of(&serde_json::from_str(&schema).unwrap(), values, "");
    for (name, value) in [("http", "port"), ("internal", "internalPort")] {
        let port = format!(
            "- name: {name}\n      port: {{{{ .Values.service.{value} }}}}\n      targetPort: {name}\n"
        );
        assert!(template("service").contains(&port), "{name}");
    }
    let chart = &documents(&read("helm/tautline/Chart.yaml"))[0];
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// What may be set is what there is, down to where a schema leaves it open.
fn has_all_of(schema: &Value, values: &Value, name: &str) {
    let Some(known) = schema["properties"].as_object() else {
        return;
    };
    let is_open = schema["additionalProperties"] != false;
    assert!(!is_open || name.starts_with(".config"), "{name}");
    // The chart says itself why there are none of these.
    let refused = ["global", "replicas", "replicaCount", "autoscaling"];
    for (key, inner) in known {
        let is_there = values.get(key).is_some() || name.is_empty() && refused.contains(&&**key);
        assert!(is_there, "{name}.{key} is no value");
        has_all_of(inner, &values[key], &format!("{name}.{key}"));
    }
    for key in values.as_object().unwrap().keys() {
        assert!(is_open || known.contains_key(key), "{name}.{key}");
    }
}

/// What Helm makes of the chart with further values; `None` where there is no Helm. The suite `chart` names one.
fn rendered(values: &Value) -> Option<String> {
    let output = helm(values)?;
    assert!(output.status.success(), "{values}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn helm(values: &Value) -> Option<Output> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let helm = std::env::var_os("HELM")?;
    // Tests ask at the same time.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = Directory::new(&format!("chart-{number}"));
    let file = directory.file("values.json", &values.to_string());
    let output = Command::new(helm)
        .args(["template", "live"])
        .arg(deploy("helm/tautline"))
        .arg("--values")
        .arg(file)
        .output()
        .unwrap();
    Some(output)
}

#[test]
fn helm_makes_of_the_chart_what_the_server_needs() {
    let Some(text) = rendered(&json!({})) else {
        println!("not looked at: HELM names none");
        return;
    };
    let all = documents(&text);
    let kind = |kind: &str| all.iter().find(|one| one["kind"] == kind).expect(kind);
    let values = &documents(&read("helm/tautline/values.yaml"))[0];
    let config = self::text(&kind("ConfigMap")["data"]["tautline.yaml"]);
    assert_eq!(documents(config), [values["config"].clone()]);
    let deployment = &kind("Deployment")["spec"];
    assert_eq!(deployment["replicas"], 1);
    let engine = bytes_of_engine(config, ": ");
    reads_its_secrets_and_has_its_memory(&deployment["template"]["spec"], engine);
    keeps_strangers_from_what_is_inside(&kind("NetworkPolicy")["spec"]);
    let container = &list(&deployment["template"]["spec"]["containers"])[0];
    let port = |name: &str| named(&container["ports"], &json!(name))["containerPort"].clone();
    let server = &values["config"]["http_server"];
    assert_eq!(port("http"), server["port"]);
    let listen = self::text(&server["internal_listen"]);
    assert!(listen.ends_with(&format!(":{}", port("internal"))));
    for (probe, path) in [
        ("startupProbe", "/health"),
        ("readinessProbe", "/ready"),
        ("livenessProbe", "/health"),
    ] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(
            (&asked["path"], &asked["port"]),
            (&json!(path), &json!("internal"))
        );
    }
}

/// Of whatever type the clients' service is made, and with an ingress and a route: what is inside stays there.
#[test]
fn the_chart_shows_clients_what_is_theirs() {
    let values = json!({
        "service": {"type": "LoadBalancer"},
        "ingress": {"enabled": true},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]},
    });
    let Some(rendered) = rendered(&values) else {
        println!("not looked at: HELM names none");
        return;
    };
    let all = documents(&rendered);
    let ports = |one: &Value| -> Vec<String> {
        let ports = list(&one["spec"]["ports"]).iter();
        ports
            .map(|port| text(&port["targetPort"]).to_owned())
            .collect()
    };
    let services = all.iter().filter(|one| one["kind"] == "Service");
    let services: Vec<_> = services
        .map(|one| (text(&one["spec"]["type"]), ports(one)))
        .collect();
    assert_eq!(
        services,
        [
            ("LoadBalancer", vec!["http".to_owned()]),
            ("ClusterIP", vec!["internal".to_owned()])
        ]
    );
    let kind = |kind: &str| &all.iter().find(|one| one["kind"] == kind).expect(kind)["spec"];
    let ingress = list(&kind("Ingress")["rules"][0]["http"]["paths"]);
    let ingress: Vec<_> = ingress
        .iter()
        .map(|path| (text(&path["path"]), text(&path["pathType"])))
        .collect();
    let route = &kind("HTTPRoute")["rules"][0];
    let doors: Vec<_> = list(&route["matches"])
        .iter()
        .map(|one| {
            let kind = text(&one["path"]["type"]);
            let kind = if kind == "PathPrefix" { "Prefix" } else { kind };
            (text(&one["path"]["value"]), kind)
        })
        .collect();
    assert_eq!(ingress, doors);
    assert_eq!(doors[0], ("/connection", "Prefix"));
    assert!(
        doors[1..]
            .iter()
            .all(|(path, kind)| *kind == "Exact" && *path != "/connection")
    );
    // A gateway ends what goes on for longer than its own limit: 15 s for one made of Envoy.
    assert_eq!(route["timeouts"]["request"], "0s");
    let backend = &list(&route["backendRefs"])[0];
    assert_eq!(backend["name"], "live-tautline");
    assert_eq!(backend["port"], 80);
}

/// What outlives the pod is there, and of one pod alone.
#[test]
fn the_chart_keeps_what_has_to_outlive_the_pod() {
    let values = json!({
        "persistence": {"enabled": true},
        "config": {"revocation": {"directory": "/var/lib/tautline/revocations"}},
    });
    let Some(rendered) = rendered(&values) else {
        println!("not looked at: HELM names none");
        return;
    };
    let all = documents(&rendered);
    let kind = |kind: &str| all.iter().find(|one| one["kind"] == kind).expect(kind);
    let deployment = &kind("Deployment")["spec"];
    // The new pod's server would find the directory locked, and never be ready.
    assert_eq!(deployment["strategy"], json!({"type": "Recreate"}));
    let pod = &deployment["template"]["spec"];
    let claim = &named(&pod["volumes"], &json!("state"))["persistentVolumeClaim"]["claimName"];
    assert_eq!(*claim, kind("PersistentVolumeClaim")["metadata"]["name"]);
    let mounts = &list(&pod["containers"])[0]["volumeMounts"];
    assert_eq!(
        named(mounts, &json!("state"))["mountPath"],
        "/var/lib/tautline"
    );
}

/// Helm says it, and not a pod that never is ready, or a cluster of which each half knows half.
#[test]
fn the_chart_refuses_what_cannot_work() {
    for (values, told) in [
        (json!({"replicaCount": 3}), "belongs to one process"),
        (json!({"replicas": 2}), "belongs to one process"),
        (
            json!({"autoscaling": {"enabled": true}}),
            "belongs to one process",
        ),
        (
            json!({"config": {"events": {"enabled": true}}}),
            "config.events has to outlive the pod",
        ),
        (
            json!({"config": {"revocation": {"directory": "/var/lib/tautline/revocations"}}}),
            "set persistence.enabled",
        ),
        (
            json!({"config": {"http_server": {"tls": {"acme": {"enabled": true}}}}}),
            "config.http_server.tls.acme has to outlive the pod",
        ),
        (
            json!({"config": {"http_server": {"internal_listen": "127.0.0.1:9000"}}}),
            "where no probe gets to",
        ),
        (
            json!({"config": {"client": {"token": {"hmac_secret_key": "x"}}}}),
            "such as TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY_FILE",
        ),
        (
            json!({"config": {"http_api": {"key": "x"}}}),
            "config.http_api.key is a secret",
        ),
        (json!({"httpRoute": {"enabled": true}}), "names the gateway"),
        (json!({"service": {"tpye": "LoadBalancer"}}), "tpye"),
        (json!({"strategy": "Recrate"}), "Recreate"),
    ] {
        let Some(output) = helm(&values) else {
            println!("not looked at: HELM names none");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(told),
            "{values}: {said}"
        );
    }
}

/// Helm takes whole numbers for others, and writes large ones with an exponent.
#[test]
fn variables_of_the_chart_arrive_as_they_were_written() {
    let values =
        json!({"env": {"A": 1_048_576, "B": true, "C": ["https://app.example.org"], "D": "x y"}});
    let Some(rendered) = rendered(&values) else {
        println!("not looked at: HELM names none");
        return;
    };
    let all = documents(&rendered);
    let deployment = all.iter().find(|one| one["kind"] == "Deployment").unwrap();
    let container = &list(&deployment["spec"]["template"]["spec"]["containers"])[0];
    for (name, value) in [
        ("A", "1048576"),
        ("B", "true"),
        ("C", "[\"https://app.example.org\"]"),
        ("D", "x y"),
    ] {
        assert_eq!(named(&container["env"], &json!(name))["value"], value);
    }
}

/// Something else than a value of the chart is, that may stand there.
fn other(value: &Value, name: &str) -> Value {
    match (name, value) {
        ("pullPolicy", _) => json!("Always"),
        ("strategy", _) => json!("Recreate"),
        ("type", _) => json!("LoadBalancer"),
        ("externalTrafficPolicy", _) => json!("Local"),
        (_, Value::Bool(is)) => json!(!is),
        (_, Value::Number(number)) => json!(number.as_u64().unwrap() + 1),
        (_, Value::Array(all)) if all.first().is_some_and(Value::is_string) => json!(["other"]),
        (_, Value::Array(_)) => json!([{"key": "other"}]),
        (_, Value::Object(_)) => json!({"other": "another"}),
        _ => json!("other:9"),
    }
}

/// Calls `each` with every value set to something else, in the place where it stands.
fn each_other(value: &Value, name: &str, each: &mut dyn FnMut(&str, Value)) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                each_other(inner, &format!("{name}.{key}"), &mut |name, inner| {
                    each(name, json!({ key: inner }));
                });
            }
        }
        _ => each(name, other(value, name.rsplit('.').next().unwrap_or(name))),
    }
}

#[test]
fn each_value_of_the_chart_has_an_effect() {
    let values = &documents(&read("helm/tautline/values.yaml"))[0];
    // With what is only there if it is wanted, but for one thing, in the place of which there is another.
    let bases = [false, true].map(|is_kept| {
        json!({
            "ingress": {"enabled": true},
            "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]},
            "serviceMonitor": {"enabled": true},
            "persistence": {"enabled": is_kept},
        })
    });
    let mut before = Vec::new();
    for base in &bases {
        let Some(rendered) = rendered(base) else {
            println!("not looked at: HELM names none");
            return;
        };
        before.push(rendered);
    }
    let mut count = 0;
    each_other(values, "", &mut |name, value| {
        let mut has_effect = false;
        for (base, before) in bases.iter().zip(&before) {
            let mut with = base.clone();
            match name
                .strip_suffix(".enabled")
                .and_then(|of| base.get(&of[1..]))
            {
                // Switched from what it is there.
                Some(there) => {
                    let is = there["enabled"].as_bool().unwrap();
                    with[&name[1..name.rfind('.').unwrap()]]["enabled"] = json!(!is);
                }
                None => merge(&mut with, &value),
            }
            has_effect |= rendered(&with).as_ref() != Some(before);
        }
        assert!(has_effect, "{name} has no effect");
        count += 1;
    });
    assert!(count > 30, "{count}");
}

/// Sets what `more` has.
fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (key, inner) in more {
                merge(values.entry(key).or_insert(Value::Null), inner);
            }
        }
        (values, more) => *values = more.clone(),
    }
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

//! What lies in `deploy/`: that it fits the server, and that the server needs no more than it says.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tautline::http::metrics::{METRICS, METRICS_PREFIX};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(path)
}

fn read(path: &str) -> String {
    let path = deploy(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text, without what a histogram's series have behind it.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_name(char));
    let names = words.filter_map(|word| word.strip_prefix(METRICS_PREFIX));
    names
        .map(|name| {
            let cut = ["_bucket", "_count", "_sum"];
            let cut = cut.iter().find_map(|end| name.strip_suffix(end));
            cut.filter(|cut| cut.ends_with("_histogram"))
                .unwrap_or(name)
                .to_owned()
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let known: BTreeSet<String> = METRICS
        .iter()
        .map(|metric| metric.name.to_owned())
        .collect();
    for file in ["grafana/tautline.json", "prometheus/tautline.yml"] {
        let asked = metrics_in(&read(file));
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty() && asked.len() > 5, "{file}: {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(&read("grafana/tautline.json")).unwrap();
    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|all| all.len() > 10)
    );
}

/// What stands behind `key: |`, less its indentation.
fn block(text: &str, key: &str) -> String {
    let head = format!("{key}: |\n");
    let (before, rest) = text.split_once(&head).unwrap();
    let outer = before.rsplit('\n').next().unwrap().len();
    let lines = rest
        .lines()
        .take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() > outer);
    let lines = lines.map(|line| line.get(outer + 2..).unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn check(name: &str, configuration: &str) {
    let path = std::env::temp_dir().join(format!("tautline-deploy-{}-{name}", std::process::id()));
    std::fs::write(&path, configuration).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["config", "check"])
        .arg(&path)
        .env(
            "TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY",
            "a secret of thirty-two bytes or more",
        )
        .env("TAUTLINE_HTTP_API_KEY", "a key for the test")
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}\n{configuration}");
}

/// What the chart's values have for a configuration.
fn chart() -> String {
    let values = read("helm/tautline/values.yaml");
    let (_, config) = values.split_once("\nconfig:\n").unwrap();
    let lines = config
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("  "));
    let lines: Vec<_> = lines
        .map(|line| line.get(2..).unwrap_or_default())
        .collect();
    lines.join("\n")
}

/// All that there are, by the file that they would be in.
fn configurations() -> [(&'static str, String); 4] {
    [
        ("tautline.toml", read("tautline.toml")),
        ("docker.toml", read("docker/tautline.toml")),
        (
            "kubernetes.toml",
            block(&read("kubernetes/tautline.yaml"), "tautline.toml"),
        ),
        ("helm.yaml", chart()),
    ]
}

#[test]
fn the_configurations_are_good() {
    for (name, text) in configurations() {
        check(name, &text);
    }
}

/// What `tautline config show` has for an option of a configuration.
fn option(name: &str, configuration: &str, option: &str) -> Value {
    let path = std::env::temp_dir().join(format!("tautline-shown-{}-{name}", std::process::id()));
    std::fs::write(&path, configuration).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["config", "show", "--all", "--json"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success(), "{output:?}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = all.as_array().unwrap().iter();
    let shown = all.find(|shown| shown["option"] == option).unwrap();
    serde_json::from_str(shown["value"].as_str().unwrap()).unwrap()
}

/// Or all clients have the limits of one address, or none.
#[test]
fn every_recipe_names_the_proxies_in_front() {
    for (name, text) in configurations() {
        // What is in front of an image is said beside it.
        if name != "docker.toml" {
            let proxies = option(name, &text, "http_server.trusted_proxies");
            assert!(
                proxies.as_array().is_some_and(|all| !all.is_empty()),
                "{name}: {proxies}"
            );
        }
    }
    let compose = read("docker/compose.yaml");
    let (_, rest) = compose
        .split_once("TAUTLINE_HTTP_SERVER_TRUSTED_PROXIES: '[\"")
        .unwrap();
    let (network, _) = rest.split_once('"').unwrap();
    assert!(
        compose.contains(&format!("- subnet: {network}\n")),
        "{network}"
    );
    for recipe in [
        "nginx/tautline.conf",
        "haproxy/haproxy.cfg",
        "caddy/Caddyfile",
        "traefik/tautline.yml",
    ] {
        let text = read(recipe);
        assert!(
            text.contains("http_server.trusted_proxies") && text.contains("../tautline.toml"),
            "{recipe}"
        );
    }
    // What the others do by themselves.
    assert!(read("nginx/tautline.conf").contains("X-Forwarded-For $proxy_add_x_forwarded_for;"));
    assert!(read("haproxy/haproxy.cfg").contains("option forwardfor"));
}

/// Those are answered there when the clients' port refuses everybody for want of memory.
#[test]
fn probes_and_scrapes_go_to_the_internal_listener() {
    let port = |name, text: &str| {
        let listen = option(name, text, "http_server.internal_listen");
        let listen = listen.as_str().unwrap().to_owned();
        listen.rsplit_once(':').unwrap().1.to_owned()
    };
    let all = configurations();
    let port = |name| {
        let (name, text) = all.iter().find(|(file, _)| *file == name).unwrap();
        port(name, text)
    };
    let kubernetes = read("kubernetes/tautline.yaml");
    let internal = port("kubernetes.toml");
    for line in [
        format!("prometheus.io/port: \"{internal}\""),
        format!("{{ name: internal, containerPort: {internal} }}"),
        format!("{{ name: internal, port: {internal}, targetPort: internal }}"),
        "httpGet: { path: /ready, port: internal }".to_owned(),
        "httpGet: { path: /health, port: internal }".to_owned(),
    ] {
        assert!(kubernetes.contains(&line), "{line}");
    }
    let deployment = read("helm/tautline/templates/deployment.yaml");
    for path in ["/ready", "/health"] {
        let probe = format!("path: {path}\n              port: internal\n");
        assert!(deployment.contains(&probe), "{probe}");
    }
    let service = read("helm/tautline/templates/service.yaml");
    assert!(service.contains("- port: internal\n      path: /metrics\n"));
    let compose = read("docker/compose.yaml");
    let published = port("docker.toml");
    assert!(compose.contains(&format!("\"127.0.0.1:{published}:{published}\"")));
}

/// A server is given time for `shutdown.timeout`, and some more.
#[test]
fn nobody_kills_a_server_that_still_sends_its_clients_over() {
    for (file, before, unit) in [
        ("systemd/tautline.service", "TimeoutStopSec=", 30),
        ("docker/compose.yaml", "stop_grace_period: ", 30),
        (
            "kubernetes/tautline.yaml",
            "terminationGracePeriodSeconds: ",
            40,
        ),
        (
            "helm/tautline/values.yaml",
            "terminationGracePeriodSeconds: ",
            40,
        ),
    ] {
        let text = read(file);
        let (_, rest) = text.split_once(before).unwrap();
        let seconds: String = rest.chars().take_while(char::is_ascii_digit).collect();
        assert!(
            seconds.parse::<u32>().unwrap() > unit,
            "{file}: {seconds} s"
        );
    }
}

/// A server as nobody, who may do nothing, on a file system that can't be written.
struct Confined(Child);

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_runs_as_nobody_on_a_file_system_that_it_cannot_write() {
    // Where it and its configuration can be read by everybody.
    let directory = std::env::temp_dir().join(format!("tautline-confined-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (binary, file) = (directory.join("tautline"), directory.join("tautline.toml"));
    std::fs::copy(env!("CARGO_BIN_EXE_tautline"), &binary).unwrap();
    std::fs::write(&file, "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n").unwrap();
    for (path, mode) in [(&directory, "755"), (&binary, "755"), (&file, "644")] {
        let status = Command::new("chmod").arg(mode).arg(path).status().unwrap();
        assert!(status.success());
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let child = command
        .args(["--mount", "sh", "-euc"])
        .arg(
            "for mount in $(awk '{print $5}' /proc/self/mountinfo); do \
                mount -o remount,bind,ro \"$mount\" 2>/dev/null || true; \
             done; \
             if touch \"$2\" 2>/dev/null; then echo 'the file system can be written' >&2; exit 9; fi; \
             if [ \"$(awk '{print $2}' /proc/self/uid_map | head -n 1)\" = 0 ]; then \
                 set -- setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \
                     --no-new-privs \"$1\" serve --config \"$2\"; \
             else \
                 set -- setpriv --inh-caps=-all --bounding-set=-all --no-new-privs \"$1\" serve --config \"$2\"; \
             fi; \
             exec \"$@\"",
        )
        .arg("confined")
        .args([&binary, &file])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut server = Confined(child.unwrap());
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    let mut told = Vec::new();
    let address = loop {
        let Some(line) = lines.next() else {
            panic!("it does not start: {told:?}");
        };
        let line = line.unwrap();
        if let Some(at) = line
            .find("127.0.0.1:")
            .filter(|_| line.contains("listening"))
        {
            let rest = line[at..].chars();
            let is_address = |char: &char| char.is_ascii_digit() || matches!(char, '.' | ':');
            break rest.take_while(is_address).collect::<String>();
        }
        told.push(line);
    };
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().to_owned()
    };
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let id = server.0.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert!(server.0.wait().unwrap().success());
    std::fs::remove_dir_all(&directory).unwrap();
}

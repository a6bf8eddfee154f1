//! What lies in `deploy/`: that it fits the server, and that the server needs no more than it says.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/deployed.rs"]
mod deployed;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use self::deployed::{deploy, read};

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

/// The files that say how a server is started.
const STARTING: [&str; 5] = [
    "docker/compose.yaml",
    "kubernetes/tautline.yaml",
    "helm/tautline/values.yaml",
    "helm/tautline/templates/deployment.yaml",
    "systemd/tautline.service",
];

/// What stands behind that, up to the end of the line.
#[track_caller]
fn after<'t>(text: &'t str, before: &str) -> &'t str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no `{before}` in {text}"));
    rest.lines().next().unwrap().trim()
}

/// A number of seconds at the beginning.
#[track_caller]
fn seconds(text: &str) -> u64 {
    let digits = text.trim_start_matches('"');
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// A server is given time for `shutdown.timeout`, as its configuration there has it, and some more.
#[test]
fn nobody_kills_a_server_that_still_sends_its_clients_over() {
    let usual = tautline::Config::from_toml("").unwrap();
    let usual = usual.shutdown.timeout.as_secs();
    for (file, before, timeout) in [
        ("systemd/tautline.service", "TimeoutStopSec=", None),
        ("docker/compose.yaml", "stop_grace_period: ", None),
        (
            "kubernetes/tautline.yaml",
            "terminationGracePeriodSeconds: ",
            Some("\n    timeout = "),
        ),
        (
            "helm/tautline/values.yaml",
            "terminationGracePeriodSeconds: ",
            Some("\n    timeout: "),
        ),
    ] {
        let text = read(file);
        let given = seconds(after(&text, before));
        let taken = timeout.map_or(usual, |before| seconds(after(&text, before)));
        assert!(
            given >= taken + 5,
            "{file}: {given} s, of which the server takes {taken}"
        );
    }
}

/// Everything that is set by the environment is an option, and what isn't would be told.
#[test]
fn variables_name_options() {
    let directory = std::env::temp_dir().join(format!("tautline-variables-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (config, secret) = (directory.join("tautline.toml"), directory.join("secret"));
    std::fs::write(&config, "").unwrap();
    std::fs::write(&secret, "a secret of thirty-two bytes or more").unwrap();
    let complaints = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tautline"));
        command.args(["config", "check"]).arg(&config);
        if name.ends_with("_FILE") {
            command.env(name, &secret);
        } else if name.ends_with("_ORIGINS") {
            command.env(name, "[\"https://app.example.org\"]");
        } else {
            command.env(name, "true");
        }
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(complaints("TAUTLINE_HTTP_API_KYE_FILE").contains("is no option"));
    for file in STARTING {
        let text = read(file);
        let is_name = |char: char| char.is_ascii_uppercase() || char == '_';
        let words = text.split(|char| !is_name(char));
        let names: BTreeSet<_> = words.filter(|word| word.starts_with("TAUTLINE_")).collect();
        assert!(
            !names.is_empty() || file.contains("templates"),
            "{file} sets nothing"
        );
        for name in names.into_iter().filter(|name| *name != "TAUTLINE_") {
            if name.contains("__") || name.ends_with('_') {
                continue;
            }
            let told = complaints(name);
            assert!(!told.contains("is no option"), "{file}: {told}");
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// The book's configuration for the open internet: nothing is wrong with it, and nothing is open.
#[test]
fn going_live_begins_with_nothing_to_warn_of() {
    let page = std::fs::read_to_string(deploy("../docs/going-live.md")).unwrap();
    let (_, config) = page.split_once("```toml\n").unwrap();
    let (config, _) = config.split_once("```").unwrap();
    let directory = std::env::temp_dir().join(format!("tautline-live-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let secret = directory.join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
    let file = directory.join("tautline.toml");
    std::fs::write(&file, config).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_tautline"));
    let variables = page.lines().filter_map(|line| line.strip_prefix("export "));
    let names: Vec<_> = variables
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert_eq!(names.len(), 2);
    check.envs(names.iter().map(|name| (name, &secret)));
    let told = check.args(["config", "check"]).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8(told.stderr).unwrap(), "");
    assert!(told.status.success());
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Each secret is where its variable says, and the commands that are told make what is looked for.
#[test]
fn secrets_are_where_they_are_looked_for() {
    let compose = read("docker/compose.yaml");
    let keys = ["token_key", "api_key"];
    assert!(compose.contains("secrets: [token_key, api_key]\n"));
    // The commands are for the top of the repository, as the one is for which they are told; compose looks beside its file.
    let told = compose.lines().map_while(|line| line.strip_prefix('#'));
    let commands: Vec<_> = told
        .filter_map(|line| line.strip_prefix("   "))
        .map(|line| line.replace("openssl rand -hex 32", "echo 5eed"))
        .collect();
    let top = std::env::temp_dir().join(format!("tautline-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&top).unwrap();
    let made = Command::new("sh")
        .args(["-ec", &format!("umask 077\n{}", commands.join("\n"))])
        .current_dir(&top)
        .status();
    assert!(made.unwrap().success(), "{commands:?}");
    for key in keys {
        assert!(compose.contains(&format!("_FILE: /run/secrets/{key}\n")));
        assert!(compose.contains(&format!("\n  {key}:\n    file: ./secrets/{key}\n")));
        let file = top.join("deploy/docker/secrets").join(key);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "5eed\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o044, 0o044, "the container's user reads it");
        }
    }
    std::fs::remove_dir_all(&top).unwrap();
    let manifest = read("kubernetes/tautline.yaml");
    let name = after(&manifest, "kubectl create secret generic ").trim_end_matches(" \\");
    assert_eq!(
        after(&manifest, "secret: { secretName: "),
        format!("{name}, defaultMode: 0440 }}")
    );
    let mounted =
        after(&manifest, "{ name: secrets, mountPath: ").trim_end_matches(", readOnly: true }");
    for key in keys {
        assert!(manifest.contains(&format!("_FILE, value: {mounted}/{key} }}\n")));
        assert!(manifest.contains(&format!("--from-literal={key}=\"$(openssl rand -hex 32)\"")));
    }
    let (values, chart) = (
        read("helm/tautline/values.yaml"),
        read("helm/tautline/templates/deployment.yaml"),
    );
    let notes = read("helm/tautline/templates/NOTES.txt");
    for key in keys {
        assert!(values.contains(&format!("_FILE: {key}\n")));
        assert!(notes.contains(&format!("--from-literal={key}=")));
    }
    assert!(chart.contains("secretName: {{ .Values.secret.name }}\n"));
    let (_, secrets) = chart.split_once("- name: secrets\n").unwrap();
    let mounted = after(secrets, "mountPath: ");
    assert!(chart.contains(&format!("value: {mounted}/{{{{ $file }}}}\n")));
}

/// A server is ready while it is, and is not started anew because it is on its way out.
#[test]
fn probes_ask_the_right_questions() {
    for file in [
        "kubernetes/tautline.yaml",
        "helm/tautline/templates/deployment.yaml",
    ] {
        let text = read(file);
        for (probe, path) in [("readinessProbe:", "/ready"), ("livenessProbe:", "/health")] {
            let (_, rest) = text.split_once(probe).unwrap();
            let found = after(rest, "path: ");
            let found = found.split(',').next().unwrap();
            assert_eq!(found, path, "{file}: {probe}");
            let port = after(rest, "port: ").trim_end_matches(" }");
            assert_eq!(port, "internal", "{file}: {probe}");
        }
    }
}

#[test]
fn ports_lead_to_where_the_server_listens() {
    let usual = tautline::Config::from_toml("")
        .unwrap()
        .listen
        .port()
        .to_string();
    let image = read("docker/tautline.toml");
    let of_image = after(&image, "\nport = ");
    let internal = after(&image, "\ninternal_listen = ").trim_matches('"');
    let (_, internal) = internal.rsplit_once(':').unwrap();
    assert_eq!(
        after(&read("docker/Dockerfile"), "\nEXPOSE "),
        format!("{of_image} {internal}")
    );
    let compose = read("docker/compose.yaml");
    for port in [of_image, internal] {
        let mapped = format!("- \"127.0.0.1:{port}:{port}\"");
        assert!(compose.contains(&mapped), "{mapped}");
    }
    let published = compose
        .lines()
        .filter(|line| line.trim().starts_with("- \""));
    for line in published.filter(|line| line.contains(':')) {
        let is_own = line.trim().starts_with("- \"127.0.0.1:");
        assert!(is_own, "a port that all the world can reach: {line}");
    }
    // As the configuration beside it, behind a proxy: what listens on all interfaces is open whatever that says.
    let behind = read("tautline.toml");
    let address = after(&behind, "\naddress = ").trim_matches('"');
    assert_eq!(after(&behind, "\nport = "), usual);
    assert_eq!(
        after(&read("systemd/tautline.socket"), "\nListenStream="),
        format!("{address}:{usual}")
    );

    let manifest = read("kubernetes/tautline.yaml");
    let listens = after(&manifest, "\n    port = ");
    assert_eq!(
        after(&manifest, "- { name: http, containerPort: "),
        format!("{listens} }}")
    );
    assert!(manifest.contains("- { name: http, port: 80, targetPort: http }"));
    let chart = read("helm/tautline/templates/deployment.yaml");
    assert!(chart.contains("containerPort: {{ .Values.config.http_server.port }}"));
    assert!(read("helm/tautline/templates/service.yaml").contains("targetPort: http\n"));
}

/// In a container and under systemd, a server may do what it needs, and no more.
#[test]
fn nothing_is_allowed_that_is_not_needed() {
    for (file, lines) in [
        (
            "docker/compose.yaml",
            &[
                "read_only: true",
                "cap_drop: [ALL]",
                "security_opt: [\"no-new-privileges:true\"]",
                "nofile: 1048576",
            ][..],
        ),
        (
            "kubernetes/tautline.yaml",
            &[
                "runAsNonRoot: true",
                "readOnlyRootFilesystem: true",
                "allowPrivilegeEscalation: false",
                "capabilities: { drop: [ALL] }",
                "seccompProfile: { type: RuntimeDefault }",
                "automountServiceAccountToken: false",
            ],
        ),
        (
            "helm/tautline/templates/deployment.yaml",
            &[
                "runAsNonRoot: true",
                "readOnlyRootFilesystem: true",
                "allowPrivilegeEscalation: false",
                "drop: [ALL]",
                "type: RuntimeDefault",
                "automountServiceAccountToken: false",
            ],
        ),
        (
            "systemd/tautline.service",
            &[
                "Type=notify",
                "Restart=on-failure",
                "KillMode=mixed",
                "ExecReload=+/usr/bin/tautline config check /etc/tautline/tautline.toml",
                "ExecReload=/bin/kill -HUP $MAINPID",
                "StartLimitIntervalSec=0",
                "WatchdogSec=20",
                "LimitNOFILE=1048576",
                "DynamicUser=yes",
                "StateDirectory=tautline",
                "UMask=0077",
                "CapabilityBoundingSet=",
                "AmbientCapabilities=",
                "NoNewPrivileges=yes",
                "ProtectSystem=strict",
                "ProtectHome=yes",
                "PrivateTmp=yes",
                "PrivateDevices=yes",
                "MemoryDenyWriteExecute=yes",
                "RestrictNamespaces=yes",
                "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
                "SystemCallFilter=@system-service",
            ],
        ),
    ] {
        let text = read(file);
        for line in lines {
            let is_there = text.lines().any(|one| one.trim() == *line);
            assert!(is_there, "{file} has no line `{line}`");
        }
    }
    // Which user that is says the image, and Kubernetes has to say it by its number.
    assert!(read("docker/Dockerfile").contains("\nUSER 65532:65532\n"));
    for file in [
        "kubernetes/tautline.yaml",
        "helm/tautline/templates/deployment.yaml",
    ] {
        assert!(read(file).contains("runAsUser: 65532\n"), "{file}");
    }
}

/// What is to be kept can be written by whom the server runs as, and by nothing else: in the image, in compose, under systemd
/// and in the chart it is the same directory, which is the book's.
#[test]
fn what_is_kept_has_a_place() {
    const PLACE: &str = "/var/lib/tautline";
    let dockerfile = read("docker/Dockerfile");
    let copied = after(
        &dockerfile,
        "\nCOPY --from=build --chown=65532:65532 --chmod=700 ",
    );
    assert_eq!(copied.split(' ').next_back(), Some(PLACE));
    let compose = read("docker/compose.yaml");
    let mounted = after(&compose, "\n    volumes: [\"").trim_end_matches("\"]");
    let (volume, at) = mounted.split_once(':').unwrap();
    assert_eq!(at, PLACE);
    assert!(compose.contains(&format!("\nvolumes:\n  {volume}:\n")));
    let unit = read("systemd/tautline.service");
    assert_eq!(
        format!("/var/lib/{}", after(&unit, "\nStateDirectory=")),
        PLACE
    );
    let chart = read("helm/tautline/templates/deployment.yaml");
    let (_, mount) = chart.split_once("            - name: state\n").unwrap();
    assert_eq!(after(mount, "mountPath: "), PLACE);
    let book = std::fs::read_to_string(deploy("../docs/going-live.md")).unwrap();
    let named = book.lines().filter(|line| line.contains("directory = \""));
    let named: Vec<_> = named.collect();
    assert!(named.len() > 1);
    for line in named {
        assert!(line.contains(&format!("\"{PLACE}/")), "{line}");
    }
}

/// What is for nobody outside stays there, whatever the server's configuration says of its listeners; and no log has tokens.
#[test]
fn recipes_keep_strangers_from_what_is_inside() {
    let inside = [
        ("nginx/tautline.conf", "~ ^/(api(/|$)|admin(/|$)|metrics$)"),
        (
            "haproxy/haproxy.cfg",
            "{ path /api /admin /metrics } || { path_beg /api/ /admin/ }",
        ),
        (
            "caddy/Caddyfile",
            "@inside path /api /api/* /admin /admin/* /metrics\n",
        ),
    ];
    for (file, line) in inside {
        assert!(read(file).contains(line), "{file}: {line}");
    }
    let nginx = read("nginx/tautline.conf");
    assert!(
        nginx.contains("$uri") && !nginx.contains("$request ") && !nginx.contains("$request_uri")
    );
    assert!(nginx.contains("\n    ssl_protocols TLSv1.2 TLSv1.3;\n"));
    // Or it stays what it was started as.
    let haproxy = read("haproxy/haproxy.cfg");
    for line in ["user haproxy", "group haproxy", "chroot /var/lib/haproxy"] {
        assert!(haproxy.contains(&format!("\n    {line}\n")), "{line}");
    }
}

/// The image has what its build takes, and starts what there is.
#[test]
fn the_image_is_built_of_what_there_is() {
    let root = deploy("..");
    let (dockerfile, ignored) = (
        read("docker/Dockerfile"),
        read("docker/Dockerfile.dockerignore"),
    );
    let taken: BTreeSet<_> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert_eq!(ignored.lines().next(), Some("*"));
    for path in &taken {
        assert!(root.join(path).exists(), "{path} is not there");
    }
    let workspace = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = after(&workspace, "members = [");
    for member in members.trim_end_matches(']').split(',') {
        let member = member.trim().trim_matches('"');
        let is_taken = taken.iter().any(|path| member.starts_with(path));
        assert!(is_taken, "{member} is a part of the workspace");
    }
    for name in ["Cargo.toml", "Cargo.lock", "deploy/docker/tautline.toml"] {
        assert!(taken.contains(name), "{name}");
    }
    // The toolchain is one that the workspace can be built with.
    let toolchain = after(&dockerfile, "\nARG RUST=rust:")
        .split('-')
        .next()
        .unwrap();
    assert_eq!(
        toolchain,
        after(&workspace, "rust-version = ").trim_matches('"')
    );
    // What is copied into the image is the configuration that it is started with.
    let copied = after(&dockerfile, "\nCOPY deploy/docker/tautline.toml ");
    assert_eq!(
        after(&dockerfile, "\nCMD "),
        format!("[\"serve\", \"--config\", \"{copied}\"]")
    );
    let program = after(&dockerfile, "\nCOPY --from=build /tautline ");
    assert_eq!(
        after(&dockerfile, "\nENTRYPOINT "),
        format!("[\"{program}\"]")
    );
    assert!(dockerfile.contains("--package tautline && cp target/release/tautline /tautline\n"));
    let unit = read("systemd/tautline.service");
    assert_eq!(
        after(&unit, "\nExecStart="),
        format!("{program} serve --config {copied}")
    );
    // In a pod, the configuration is mounted over that.
    let folder = copied.rsplit_once('/').unwrap().0;
    assert!(
        read("kubernetes/tautline.yaml").contains(&format!("mountPath: {folder}, readOnly: true"))
    );
    let chart = read("helm/tautline/templates/deployment.yaml");
    assert_eq!(
        after(&chart, "args: "),
        format!("[serve, --config, {folder}/tautline.yaml]")
    );
    assert!(read("helm/tautline/templates/configmap.yaml").contains("\n  tautline.yaml: |\n"));
}

/// What an ingress passes on are doors, all of them but tunnels; what belongs inside stays there.
#[test]
fn an_ingress_passes_on_the_doors_and_nothing_else() {
    let manifest = read("kubernetes/tautline.yaml");
    let paths = manifest.split("- { path: ").skip(1);
    let paths: BTreeSet<_> = paths.map(|rest| rest.split(',').next().unwrap()).collect();
    let doors = [
        "/connection",
        "/emulation",
        "/ws",
        "/events",
        "/lines",
        "/history",
        "/publish",
    ];
    assert_eq!(paths, BTreeSet::from(doors));
    let chart = read("helm/tautline/templates/_helpers.tpl");
    let (_, listed) = chart
        .split_once("{{- define \"tautline.doors\" -}}\n")
        .unwrap();
    let listed: BTreeSet<_> = listed.lines().next().unwrap().split(' ').collect();
    assert_eq!(listed, paths);
    let entry = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/door/entry.rs");
    let entry = std::fs::read_to_string(entry).unwrap();
    let (entry, _) = entry.split_once("#[cfg(test)]").unwrap();
    for door in doors
        .iter()
        .filter(|door| !matches!(**door, "/connection" | "/ws"))
    {
        assert!(
            entry.contains(&format!("\"{door}\" => (Self::")),
            "{door} is none"
        );
    }
    // Each of them there is passed on.
    for line in entry.lines().filter(|line| line.contains("\" => (Self::")) {
        let path = line
            .trim()
            .trim_start_matches('"')
            .split('"')
            .next()
            .unwrap();
        let is_passed_on = path.starts_with("/connection/") || paths.contains(path);
        assert!(is_passed_on, "{path} is not passed on");
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

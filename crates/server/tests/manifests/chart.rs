//! What the chart in `deploy/helm` makes of its values: as Helm renders it, where `HELM` names one, and as it reads.

use super::*;

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
    rendered_of(&values.to_string())
}

/// The same, of values as somebody has written them.
fn rendered_of(values: &str) -> Option<String> {
    let output = helm_of(values)?;
    assert!(output.status.success(), "{values}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn helm(values: &Value) -> Option<Output> {
    helm_of(&values.to_string())
}

fn helm_of(values: &str) -> Option<Output> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let helm = std::env::var_os("HELM")?;
    // Tests ask at the same time.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = Directory::new(&format!("chart-{number}"));
    // JSON is YAML, too.
    let file = directory.file("values.yaml", values);
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

/// Helm reads YAML 1.1, in which `off` is `false` where nothing quotes it: that is what the server is given then.
#[test]
fn the_chart_passes_on_what_is_off() {
    let values = "config:\n  log:\n    connections: off\n  client:\n    connection_rate_limit: off\n  channel:\n    \
                  without_namespace:\n      publish_rate_for_channel: off\n";
    let Some(text) = rendered_of(values) else {
        println!("not looked at: HELM names none");
        return;
    };
    let all = documents(&text);
    let map = all.iter().find(|one| one["kind"] == "ConfigMap").unwrap();
    let config = self::text(&map["data"]["tautline.yaml"]);
    assert_eq!(
        documents(config)[0]["log"]["connections"],
        false,
        "{config}"
    );
    let directory = Directory::new("chart-off");
    let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
        .args(["config", "check"])
        .arg(directory.file("tautline.yaml", config))
        // A pod has it from a secret.
        .env(
            "TAUTLINE_CLIENT_TOKEN_HMAC_SECRET_KEY",
            "0123456789abcdef0123456789abcdef",
        )
        .env("TAUTLINE_HTTP_API_KEY", "a-key-of-the-backend")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
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

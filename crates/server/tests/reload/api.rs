//! Reloading by the server API.

use std::process::Command;

use serde_json::{Value, json};

use crate::process::Server;

const LISTEN: &str = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n";
const KEYS: &str = "[http_api]\nkey = \"dev\"\n";

fn reload(server: &Server) -> Value {
    serde_json::from_str(&server.api("reload", "{}")).expect("JSON")
}

#[test]
fn the_answer_tells_what_has_changed_once_it_counts() {
    let server = Server::serve("api-reload", KEYS);
    let nothing =
        json!({"result": {"changes": [], "warnings": reload(&server)["result"]["warnings"]}});
    assert_eq!(reload(&server), nothing);
    // Whichever worker is asked next.
    for limit in [3, 1000, 5] {
        let more = format!("{LISTEN}{KEYS}max_batch_commands = {limit}\n");
        server.write_config(&more);
        let answer = reload(&server);
        let change = &answer["result"]["changes"][0];
        assert_eq!(change["option"], "http_api.max_batch_commands");
        assert_eq!(change["to"], limit.to_string());
        assert_eq!(change["needs_restart"], false);
        for _ in 0..4 {
            let commands = vec![json!({"info": {}}); limit + 1];
            let refused = server.api("batch", &json!({"commands": commands}).to_string());
            assert!(refused.contains(r#""code":106"#), "{refused}");
        }
    }
    server.write_config("[client]\nping_interval = 5\n");
    let refused = reload(&server);
    assert_eq!(refused["error"]["code"], 107);
    let message = refused["error"]["message"].as_str().expect("a text");
    assert!(message.contains(".toml:2:"), "{message}");
}

#[test]
fn the_development_server_has_nothing_to_reload() {
    let refused = reload(&Server::dev());
    assert_eq!(refused["error"]["code"], 108);
}

#[test]
fn a_command_reloads_and_shows_what_has_changed() {
    let server = Server::serve("cli-reload", KEYS);
    let command = || {
        let output = Command::new(env!("CARGO_BIN_EXE_tautline"))
            .args(["config", "reload", "--json", "--key", "dev", "--url"])
            .arg(format!("http://{}", server.address))
            .output()
            .expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    server.write_config(&format!("{LISTEN}{KEYS}[node]\nworkers = 3\n"));
    let (status, said, _) = command();
    assert_eq!(status, Some(0));
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        said["changes"],
        json!([{"option": "node.workers", "from": "0", "to": "3", "needs_restart": true}])
    );
    server.write_config("nonsense");
    let (status, _, said) = command();
    assert_eq!(status, Some(1));
    assert!(said.contains(".toml:1:"), "{said}");
}

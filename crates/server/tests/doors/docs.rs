//! The examples in the book, as they stand there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::cost::Way;
use crate::process::Server;

/// The blocks of commands of a page.
pub(crate) fn blocks(page: &str) -> Vec<String> {
    let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the page is there");
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().expect("a block ends"));
    blocks.map(str::to_owned).collect()
}

/// Runs commands against a server of their own until they have printed all `parts`.
fn run(commands: &str, parts: &[&str]) {
    let server = Server::dev();
    server.api("publish", r#"{"channel":"news","data":"first"}"#);
    run_with(server, commands, parts);
}

/// The same against that server.
pub(crate) fn run_with(server: Server, commands: &str, parts: &[&str]) {
    let mut server = Some(server);
    let address = server.as_ref().map(|server| server.address.to_string());
    let commands = commands.replace("localhost:8000", &address.expect("an address"));
    let mut shell = Command::new("bash")
        .args(["-e", "-c", &format!("{commands}\nwait\n")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let output = BufReader::new(shell.stdout.take().expect("its output"));
    let mut printed = String::new();
    for line in output.lines() {
        printed.push_str(&line.expect("text"));
        printed.push('\n');
        if parts.iter().all(|part| printed.contains(part)) {
            // What goes on listening ends with the server.
            server = None;
        }
    }
    shell.wait().expect("the shell ends");
    assert!(server.is_none(), "expected {parts:?} in\n{printed}");
}

#[test]
fn the_examples_with_curl_do_what_is_said() {
    let blocks = blocks("transports.md");
    let expected = [
        // Whichever of the two comes first.
        &[r#""event":"subscribed""#, r#""epoch""#][..],
        &["id: 1,"],
        &[r#""data":"first""#, r#""next":"1,"#, r#""more":false"#],
    ];
    assert_eq!(blocks.len(), expected.len(), "{blocks:?}");
    for (commands, parts) in blocks.iter().zip(expected) {
        run(commands, parts);
    }
}

#[test]
fn a_session_can_be_polled_by_hand() {
    let blocks = blocks("long-polling.md");
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    run(
        &blocks[0],
        &[r#""session":"#, r#""connect":{"#, r#""push":"#],
    );
}

/// What `door_cost` measures is what the table has, row by row.
#[test]
fn the_cost_of_every_way_is_told() {
    let path = format!("{}/../../docs/transports.md", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the page is there");
    let (_, table) = text
        .split_once("| way | memory per idle client |")
        .expect("the table is there");
    let rows = table.lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| {
        let row = row.trim_matches('|').split('|');
        row.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let cells: Vec<_> = cells.collect();
    let told: Vec<_> = cells.iter().map(|row| row[0].clone()).collect();
    assert_eq!(told, Way::ALL.map(Way::name));
    for row in cells {
        let units = ["KiB", "ms", "ms", "ms", "ms", ""];
        assert_eq!(row.len(), 1 + units.len(), "{row:?}");
        for (cell, unit) in row[1..].iter().zip(units) {
            let number = cell.strip_suffix(unit).expect("its unit").trim();
            let number: f64 = number.replace(',', "").parse().expect("a figure");
            assert!(number > 0.0, "{row:?}");
        }
    }
}

//! Several commands in one call: `batch`, and the single endpoint of old client libraries.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tautline_protocol::ErrorCode;
use tautline_protocol::message::Error;

use super::ApiLimits;
use super::command::Command;
use super::error::{Failure, error_json, explained, write_error};
use super::execute::{AT_ONCE, Caller, execute};
use super::join::join_all;
use super::method::Method;
use super::params;
use crate::http::node::Node;

/// How many commands of a sequence are executed before others of the thread have their turn.
const IN_A_ROW: usize = 32;

/// Parameters by the name of a method.
type RawCommand<'a> = BTreeMap<Cow<'a, str>, Option<&'a RawValue>>;

/// What a batch asks for.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BatchParams<'a> {
    /// The commands: objects with one key, the name of a method, and its parameters as the value.
    #[serde(borrow)]
    #[cfg_attr(
        test,
        schemars(with = "Option<Vec<BTreeMap<String, serde_json::Value>>>")
    )]
    commands: Option<Vec<Option<RawCommand<'a>>>>,
    /// All at once, in no order, instead of one after the other.
    parallel: Option<bool>,
}

/// The commands of a `batch`, each read already: a batch with something that can't be read is
/// refused before any of it is done.
pub(super) struct Batch {
    commands: Vec<Result<Command, Error>>,
    parallel: bool,
}

impl Batch {
    pub(super) fn parse(body: &Bytes, limits: &ApiLimits) -> Result<Self, Failure> {
        let BatchParams { commands, parallel } = params::parse(body)?;
        let commands = commands.unwrap_or_default();
        check_count(commands.len(), limits)?;
        let commands = commands.into_iter().enumerate();
        let commands = commands.map(|(index, command)| {
            let Some(command) = command else {
                let text = "a command is an object, with the name of its method";
                return Ok(Err(explained(ErrorCode::BadRequest, text)));
            };
            if command.len() > 1 {
                let text = "a command has one key, the name of its method";
                return Ok(Err(explained(ErrorCode::BadRequest, text)));
            }
            let Some((name, Some(params))) = command.into_iter().next() else {
                return Ok(Err(ErrorCode::MethodNotFound.into()));
            };
            let place = format!("commands[{index}]");
            read(&place, &name, params.get().as_bytes(), limits)
        });
        Ok(Self {
            commands: commands.collect::<Result<_, _>>()?,
            parallel: parallel.unwrap_or_default(),
        })
    }

    /// Executes the commands, and returns the whole answer.
    pub(super) async fn run<N: Node>(self, caller: &Caller<'_>, node: &N) -> Vec<u8> {
        let mut out = br#"{"replies":["#.to_vec();
        let one = |command: Result<Command, Error>| async move {
            let command = command?;
            let method = command.method();
            Ok::<_, Error>((method, execute(command, caller, node).await?))
        };
        let mut write = |index: usize, outcome: Result<(Method, Vec<u8>), Error>| {
            if index > 0 {
                out.push(b',');
            }
            match outcome {
                Ok((method, result)) => {
                    out.extend_from_slice(format!(r#"{{"{}":"#, method.name()).as_bytes());
                    out.extend_from_slice(&result);
                    out.push(b'}');
                }
                Err(error) => write_error(&error, &mut out),
            }
        };
        let mut commands = self.commands.into_iter();
        let mut index = 0;
        while commands.len() > 0 {
            if self.parallel {
                for outcome in join_all(commands.by_ref().take(AT_ONCE).map(one)).await {
                    write(index, outcome);
                    index += 1;
                }
            } else {
                for command in commands.by_ref().take(IN_A_ROW) {
                    write(index, one(command).await);
                    index += 1;
                }
            }
            tokio::task::yield_now().await;
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// One of the commands that old client libraries send to `/api`.
#[derive(Deserialize)]
struct LegacyCommand<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// What is in the body of a call to `/api`: one command, or several behind each other.
pub(super) struct Legacy {
    commands: Vec<(Option<u64>, Result<Command, Error>)>,
}

impl Legacy {
    pub(super) fn parse(body: &Bytes, limits: &ApiLimits) -> Result<Self, Failure> {
        let mut commands = Vec::new();
        for command in serde_json::Deserializer::from_slice(body).into_iter() {
            let command: LegacyCommand<'_> =
                command.map_err(|error| Failure::Malformed(error.to_string()))?;
            check_count(commands.len() + 1, limits)?;
            let place = format!("command {}", commands.len() + 1);
            let params = command.params.map_or("{}", RawValue::get);
            let method = command.method.unwrap_or_default();
            let read = read(&place, &method, params.as_bytes(), limits)?;
            commands.push((command.id, read));
        }
        if commands.is_empty() {
            let expected = r#"expected {"method":"…","params":{…}}, got an empty body"#;
            return Err(Failure::Malformed(expected.to_owned()));
        }
        Ok(Self { commands })
    }

    /// Executes the commands one after the other, and returns a line for each.
    pub(super) async fn run<N: Node>(self, caller: &Caller<'_>, node: &N) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (id, command)) in self.commands.into_iter().enumerate() {
            if index > 0 {
                out.push(b'\n');
            }
            let outcome = match command {
                Ok(command) => execute(command, caller, node).await,
                Err(error) => Err(error),
            };
            out.push(b'{');
            if let Some(id) = id.filter(|id| *id != 0) {
                out.extend_from_slice(format!(r#""id":{id},"#).as_bytes());
            }
            let (key, value) = match outcome {
                Ok(result) => ("result", result),
                Err(error) => ("error", error_json(&error)),
            };
            out.extend_from_slice(format!(r#""{key}":"#).as_bytes());
            out.extend_from_slice(&value);
            out.push(b'}');
            if index % IN_A_ROW == IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
        }
        out
    }
}

/// Reads a command. What can't be read at all is everybody's failure, anything else its own.
fn read(
    place: &str,
    name: &str,
    params: &[u8],
    limits: &ApiLimits,
) -> Result<Result<Command, Error>, Failure> {
    let Some(method) = Method::from_name(name) else {
        return Ok(Err(ErrorCode::MethodNotFound.into()));
    };
    match Command::parse(method, params, limits) {
        Ok(command) => Ok(Ok(command)),
        Err(Failure::Error(error)) => Ok(Err(error)),
        Err(Failure::Malformed(reason)) => Err(Failure::Malformed(format!("{place}: {reason}"))),
    }
}

fn check_count(count: usize, limits: &ApiLimits) -> Result<(), Failure> {
    let most = limits.max_batch_commands;
    if count <= most {
        return Ok(());
    }
    let text = format!(
        "a call has at most {most} commands (http_api.max_batch_commands); send them in several"
    );
    Err(explained(ErrorCode::LimitExceeded, text).into())
}

/// Schema of a batch, for the API's document.
#[cfg(test)]
pub(super) fn schema() -> schemars::Schema {
    schemars::schema_for!(BatchParams<'_>)
}

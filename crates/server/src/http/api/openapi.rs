//! The API's description of itself, in OpenAPI 3.1: `GET /api/openapi.json`.
//!
//! The document is made by a test, from the structs that parameters are read into and their doc
//! comments. To take over a change, after having read it:
//! `UPDATE_OPENAPI=1 cargo test -p tautline --lib openapi`.

use http::{Method, StatusCode};

use crate::http::respond::{self, Response};

/// What it is called below `/api/`.
pub(super) const NAME: &str = "openapi.json";

const DOCUMENT: &str = include_str!("../../../assets/openapi.json");

/// The document. It has no secrets, so no key is needed.
pub(super) fn respond(method: &Method) -> Response {
    if method == Method::GET || method == Method::HEAD {
        respond::json(StatusCode::OK, DOCUMENT)
    } else {
        respond::method_not_allowed("GET, HEAD")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, json};

    use super::super::ApiLimits;
    use super::super::command::Command;
    use super::super::method::Method;
    use super::super::params;
    use super::DOCUMENT;

    #[test]
    fn what_is_missing_is_named() {
        for method in Method::ALL {
            if let [name, ..] = required(method) {
                let failure = Command::parse(method, b"{}", &ApiLimits::default()).err();
                let told = failure.map(|failure| failure.to_string());
                let told = told.unwrap_or_default();
                assert!(
                    told.contains(&format!("expected `{name}`")),
                    "{method:?}: {told}"
                );
            }
        }
    }

    /// All but the one whose answer goes on, of which this kind of description knows nothing.
    fn described() -> impl Iterator<Item = Method> {
        let all = Method::ALL.into_iter();
        all.filter(|method| *method != Method::Trace)
    }

    fn summary(method: Method) -> &'static str {
        match method {
            Method::Batch => "Execute several commands in one call",
            Method::Broadcast => "Publish the same into several channels",
            Method::Channels => "List the channels with subscribers",
            Method::DeadEvents => "List the events that the application's backend would not have",
            Method::DeadEventsDrop => "Throw some of those events away",
            Method::DeadEventsRetry => "Send some of those events again",
            Method::Debug => "Tell what the server's workers are at, and where its memory is",
            Method::Disconnect => "End connections of a user",
            Method::History => "Read what a channel keeps",
            Method::HistoryRemove => "Drop what a channel keeps; its position goes on",
            Method::Info => "Tell what the servers carry",
            Method::Presence => "Tell who is in a channel",
            Method::PresenceStats => "Tell how many are in a channel",
            Method::Publish => "Publish into a channel",
            Method::Refresh => "Prolong connections of a user, or shorten them",
            Method::InvalidateUserTokens => "Have tokens of a user count no more",
            Method::RevokeClient => "End a connection, and have its tokens count no more",
            Method::RevokeToken => "Have a token count no more",
            Method::Reload => "Have the server read its configuration again",
            Method::Rpc => "Call an extension of the server",
            Method::Subscribe => "Subscribe connections of a user to a channel",
            Method::Trace => unreachable!("not described"),
            Method::Unsubscribe => "End subscriptions of a user to a channel",
        }
    }

    /// Parameters without which nothing comes of a call.
    fn required(method: Method) -> &'static [&'static str] {
        match method {
            Method::Broadcast => &["channels"],
            Method::History
            | Method::HistoryRemove
            | Method::Presence
            | Method::PresenceStats
            | Method::Publish
            | Method::Subscribe
            | Method::Unsubscribe => &["channel"],
            Method::Rpc => &["method"],
            Method::InvalidateUserTokens => &["user"],
            Method::RevokeClient => &["client"],
            Method::RevokeToken => &["uid"],
            _ => &[],
        }
    }

    fn result(method: Method) -> Value {
        let count = json!({"type": "integer", "minimum": 0});
        let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
        let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
        let named = |value: Value| json!({"type": "object", "additionalProperties": value});
        match method {
            Method::Publish => reference("Position"),
            Method::Broadcast => {
                let either = [
                    object(json!({"result": reference("Position")}), &["result"]),
                    object(json!({"error": reference("Error")}), &["error"]),
                ];
                let responses = json!({"type": "array", "items": {"oneOf": either}});
                object(json!({"responses": responses}), &["responses"])
            }
            Method::Channels => {
                let channel = object(json!({"num_clients": count}), &["num_clients"]);
                object(json!({"channels": named(channel)}), &["channels"])
            }
            Method::DeadEvents => {
                let text = json!({"type": "string"});
                let event = json!({"type": "object"});
                let properties = json!({"failed": count, "error": text, "event": event});
                let letter = object(properties, &["failed", "error", "event"]);
                let properties = json!({
                    "events": {"type": "array", "items": letter}, "total": count, "next": text,
                });
                object(properties, &["events", "total"])
            }
            Method::Debug => {
                let text = json!({"type": "string"});
                let queues = json!({"waiting": count, "bytes": count, "longest": count});
                let sessions = object(
                    json!({"coming": count, "connected": count}),
                    &["coming", "connected"],
                );
                let worker = json!({
                    "name": text, "tasks": count, "sessions": named(sessions), "channels": count,
                    "subscriptions": count, "queues": object(queues, &["waiting", "bytes", "longest"]),
                });
                let worker = object(
                    worker,
                    &[
                        "name",
                        "tasks",
                        "sessions",
                        "channels",
                        "subscriptions",
                        "queues",
                    ],
                );
                let memory = json!({
                    "resident": {"type": ["integer", "null"], "minimum": 0}, "ceiling": count,
                    "histories": count, "kept_channels": count, "queues": count, "addresses": count,
                });
                let memory = object(
                    memory,
                    &[
                        "ceiling",
                        "histories",
                        "kept_channels",
                        "queues",
                        "addresses",
                    ],
                );
                let properties = json!({
                    "name": text, "uid": text, "version": text, "uptime": count,
                    "draining": {"type": "boolean"}, "memory": memory,
                    "workers": {"type": "array", "items": worker},
                });
                object(
                    properties,
                    &[
                        "name", "uid", "version", "uptime", "draining", "memory", "workers",
                    ],
                )
            }
            Method::DeadEventsDrop | Method::DeadEventsRetry => {
                object(json!({"count": count}), &["count"])
            }
            Method::History => {
                let publications = json!({"type": "array", "items": reference("Publication")});
                let properties = json!({
                    "publications": publications, "epoch": {"type": "string"}, "offset": count,
                });
                object(properties, &["publications", "epoch", "offset"])
            }
            Method::Info => {
                let names = [
                    "num_clients",
                    "num_users",
                    "num_channels",
                    "num_subs",
                    "uptime",
                ];
                let mut properties: Map<_, _> = names
                    .map(|name| (name.to_owned(), count.clone()))
                    .into_iter()
                    .collect();
                for name in ["uid", "name", "version"] {
                    properties.insert(name.into(), json!({"type": "string"}));
                }
                let required: Vec<_> = properties.keys().cloned().collect();
                let metrics = json!({"interval": count, "items": named(count.clone())});
                properties.insert("metrics".into(), object(metrics, &["interval", "items"]));
                let process = json!({"cpu": {"type": "number", "minimum": 0}, "rss": count});
                properties.insert("process".into(), object(process, &["cpu", "rss"]));
                let node =
                    json!({"type": "object", "properties": properties, "required": required});
                object(
                    json!({"nodes": {"type": "array", "items": node}}),
                    &["nodes"],
                )
            }
            Method::Presence => {
                let properties = json!({
                    "presence": named(reference("ClientInfo")),
                    "num_clients": count, "num_users": count, "next": {"type": "string"},
                });
                object(properties, &["presence"])
            }
            Method::PresenceStats => {
                let properties = json!({"num_clients": count, "num_users": count});
                object(properties, &["num_clients", "num_users"])
            }
            Method::Reload => {
                let text = json!({"type": "string"});
                let change = object(
                    json!({"option": text, "from": text, "to": text, "needs_restart": {"type": "boolean"}}),
                    &["option", "from", "to", "needs_restart"],
                );
                let properties = json!({
                    "changes": {"type": "array", "items": change},
                    "warnings": {"type": "array", "items": text},
                });
                object(properties, &["changes", "warnings"])
            }
            Method::InvalidateUserTokens | Method::RevokeClient | Method::RevokeToken => {
                let properties = json!({
                    "connections": count, "subscriptions": count, "persisted": {"type": "boolean"},
                });
                object(properties, &["connections", "subscriptions", "persisted"])
            }
            Method::Rpc => object(json!({"data": true}), &[]),
            Method::Batch
            | Method::Disconnect
            | Method::HistoryRemove
            | Method::Refresh
            | Method::Subscribe
            | Method::Trace
            | Method::Unsubscribe => object(json!({}), &[]),
        }
    }

    fn answer(method: Method) -> Value {
        let error = json!({"$ref": "#/components/schemas/ErrorAnswer"});
        if method == Method::Batch {
            // No `result` around it, and errors stay with their commands.
            let replies = json!({"type": "array", "items": {"type": "object", "maxProperties": 1}});
            let done = json!({
                "type": "object", "properties": {"replies": replies}, "required": ["replies"],
            });
            return json!({"oneOf": [done, error]});
        }
        let done = json!({
            "type": "object", "properties": {"result": result(method)}, "required": ["result"],
        });
        json!({"oneOf": [done, error]})
    }

    /// What can be called with what a call was made with, or has answered.
    fn links(method: Method) -> Value {
        let with =
            |operation: &str, body: Value| json!({"operationId": operation, "requestBody": body});
        let channel = json!({"channel": "$request.body#/channel"});
        match method {
            Method::Publish => json!({
                "history": with("history", json!({
                    "channel": "$request.body#/channel",
                    "limit": 10,
                    "since": {
                        "offset": "$response.body#/result/offset",
                        "epoch": "$response.body#/result/epoch",
                    },
                })),
                "history_remove": with("history_remove", channel),
            }),
            Method::Subscribe => json!({
                "presence": with("presence", channel.clone()),
                "unsubscribe": with("unsubscribe", channel),
            }),
            Method::History => json!({"history_remove": with("history_remove", channel)}),
            _ => json!({}),
        }
    }

    /// The schema of a method's parameters; schemas that it refers to go to `components`.
    fn request(method: Method, components: &mut Map<String, Value>) -> Value {
        let mut schema = params::schema(method).to_value();
        let object = schema.as_object_mut().expect("parameters are an object");
        object.remove("$schema");
        object.remove("title");
        if let Some(Value::Object(definitions)) = object.remove("$defs") {
            for (name, mut definition) in definitions {
                bounded(&mut definition);
                components.insert(name, definition);
            }
        }
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            match method {
                Method::Publish => drop(properties.remove("channels")),
                Method::Broadcast => drop(properties.remove("channel")),
                // A command that is nothing has an error of its own in the result.
                Method::Batch => {
                    properties["commands"]["items"]["type"] = json!(["object", "null"]);
                }
                _ => {}
            }
            for name in required(method) {
                let property = properties.get_mut(*name).expect("it is a parameter");
                let kind = &property["type"][0];
                property["type"] = kind.clone();
                if *name == "channels" {
                    // A name that can't be has an error of its own in the result.
                    property["minItems"] = json!(1);
                    continue;
                }
                property["minLength"] = json!(1);
                if *name == "channel" {
                    // Bytes, in whatever script: no schema can say that.
                    property["maxLength"] = json!(255);
                }
            }
        }
        object.insert("required".into(), json!(required(method)));
        if matches!(method, Method::Publish | Method::Broadcast) {
            let either = json!([
                {"required": ["data"]},
                {"required": ["b64data"], "properties": {"b64data": {"type": "string", "minLength": 1}}},
            ]);
            object.insert("anyOf".into(), either);
        }
        bounded(&mut schema);
        schema
    }

    /// Says what numbers there are, and how base64 looks; and where definitions are.
    fn bounded(schema: &mut Value) {
        match schema {
            Value::Object(object) => {
                let bounds = match object.get("format").and_then(Value::as_str) {
                    Some("uint32") => Some((json!(0), json!(u32::MAX))),
                    Some("uint64") => Some((json!(0), json!(u64::MAX))),
                    Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
                    Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                    _ => None,
                };
                if object.get("default") == Some(&Value::Null) {
                    object.remove("default");
                }
                if let Some((least, most)) = bounds {
                    object.insert("minimum".into(), least);
                    object.insert("maximum".into(), most);
                    object.remove("format");
                }
                if let Some(Value::String(reference)) = object.get_mut("$ref") {
                    *reference = reference.replace("#/$defs/", "#/components/schemas/");
                }
                for (name, value) in object.iter_mut() {
                    if name.starts_with("b64") && value.is_object() {
                        value["contentEncoding"] = json!("base64");
                        value["pattern"] = json!("^([A-Za-z0-9+/]{4})*$");
                    }
                    bounded(value);
                }
            }
            Value::Array(all) => all.iter_mut().for_each(bounded),
            _ => {}
        }
    }

    fn document() -> Value {
        let mut components = Map::new();
        let mut paths = Map::new();
        for method in described() {
            let request = request(method, &mut components);
            let description = request["description"].clone();
            let text = |what: &str| {
                json!({
                    "description": what,
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                })
            };
            let refused = |what: &str| {
                let error = json!({"schema": {"$ref": "#/components/schemas/Error"}});
                json!({"description": what, "content": {"application/json": error}})
            };
            let bad = json!({
                "description": "The body can't be read; or, in transport error mode, errors 106 to 110",
                "content": {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/json": {"schema": {"$ref": "#/components/schemas/Error"}},
                },
            });
            let operation = json!({
                "operationId": method.name(),
                "summary": summary(method),
                "description": description,
                "parameters": [{"$ref": "#/components/parameters/ErrorMode"}],
                "requestBody": {
                    "required": true,
                    "content": {"application/json": {"schema": request}},
                },
                "responses": {
                    "200": {
                        "description": "Done; or, unless in transport error mode, an error",
                        "content": {"application/json": {"schema": answer(method)}},
                        "links": links(method),
                    },
                    "400": bad,
                    "401": text("The API key is missing or wrong"),
                    "403": refused("Transport error mode: the key is not good for this (103)"),
                    "404": refused("Transport error mode: unknown channel (102), or not found (104)"),
                    "408": text("The body took too long to arrive"),
                    "413": text("The body is too long"),
                    "416": refused("Transport error mode: unrecoverable position (112)"),
                    "429": refused("Transport error mode: too many requests wait (111)"),
                    "500": refused("Transport error mode: internal server error (100)"),
                    "503": text("Too many calls at a time"),
                },
            });
            paths.insert(
                format!("/api/{}", method.name()),
                json!({"post": operation}),
            );
        }
        let any = |description: &str| json!({"description": description});
        let text = |description: &str| json!({"type": "string", "description": description});
        let offset = json!({"type": "integer", "minimum": 1, "description": "Place in the stream"});
        components.extend([
            (
                "Error".to_owned(),
                json!({
                    "type": "object",
                    "description": "Why a call failed",
                    "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
                    "required": ["code", "message"],
                }),
            ),
            (
                "ErrorAnswer".to_owned(),
                json!({
                    "type": "object",
                    "properties": {"error": {"$ref": "#/components/schemas/Error"}},
                    "required": ["error"],
                }),
            ),
            (
                "Position".to_owned(),
                json!({
                    "type": "object",
                    "description": "Where a publication stands; empty if it isn't kept",
                    "properties": {"offset": offset, "epoch": text("Incarnation of the stream")},
                }),
            ),
            (
                "ClientInfo".to_owned(),
                json!({
                    "type": "object",
                    "description": "A connection, as others see it",
                    "properties": {
                        "user": text("User id; empty for an anonymous user"),
                        "client": text("Id of the connection"),
                        "conn_info": any("What the application attached to the connection"),
                        "chan_info": any("What the application attached to the subscription"),
                    },
                    "required": ["user", "client"],
                }),
            ),
            (
                "Publication".to_owned(),
                json!({
                    "type": "object",
                    "description": "A message of a channel",
                    "properties": {
                        "data": any("The payload"),
                        "info": {"$ref": "#/components/schemas/ClientInfo"},
                        "offset": offset,
                        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                }),
            ),
        ]);
        let header = |name: &str, place: &str, what: &str| json!({"type": "apiKey", "name": name, "in": place, "description": what});
        let mode = json!({
            "name": "X-Centrifugo-Error-Mode",
            "in": "header",
            "required": false,
            "description": "`transport` for errors as statuses instead of in the body of a 200",
            "schema": {"type": "string", "enum": ["body", "transport"]},
        });
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Tautline",
                "version": crate::VERSION,
                "description": "The API with which an application's backend drives a Tautline server.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "security": [{"header": []}, {"authorization": []}, {"query": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "parameters": {"ErrorMode": mode},
                "securitySchemes": {
                    "header": header("X-API-Key", "header", "The key"),
                    "authorization": header("Authorization", "header", "`apikey`, a space, and the key"),
                    "query": header("api_key", "query", "The key"),
                },
            },
        })
    }

    #[test]
    fn the_document_is_what_the_code_says() {
        let expected = serde_json::to_string_pretty(&document()).expect("JSON") + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/openapi.json");
            std::fs::write(path, &expected).expect("the document can be written");
        } else {
            assert!(
                expected == DOCUMENT,
                "assets/openapi.json is not what the code says; to take it over: \
                 UPDATE_OPENAPI=1 cargo test -p tautline --lib openapi"
            );
        }
    }

    /// What a method takes is in the document, and can be read: `null` is nothing, and everything but
    /// payloads has a type.
    #[test]
    fn every_parameter_has_a_description() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        for method in described() {
            let path = &document["paths"][format!("/api/{}", method.name())]["post"];
            let schema = &path["requestBody"]["content"]["application/json"]["schema"];
            let properties = schema["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                assert!(property["description"].is_string(), "{method}: {name}");
            }
        }
    }
}

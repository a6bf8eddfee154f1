//! Writing replies: by hand, straight into the caller's buffer.
//!
//! Publications are what a server writes most: their lengths are computed first, so that nothing is
//! written twice. Of everything else the length is guessed, and put right where the guess was wrong.

use std::sync::Arc;

use super::wire::{Writer, varint_len};
use crate::message::{
    ClientInfo, ConnectResult, Disconnect, Error, HistoryResult, Payload, PresenceResult,
    PresenceStatsResult, Publication, Push, RefreshResult, Reply, Response, RpcResult, Subscribe,
    SubscribeResult, Unsubscribe,
};

/// Appends `reply` to `out`, behind its length.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Ping => out.push(0),
        Reply::Push(Push::Publication(channel, publication)) => {
            encode_publication_push(channel, publication, out);
        }
        Reply::Push(push) => Writer::new(out).delimited(0, |reply| {
            reply.message(4, 0, |writer| encode_push(push, writer));
        }),
        Reply::Answer(id, answer) => {
            let guess = answer.as_ref().map_or(0, guess_response);
            Writer::new(out).delimited(guess, |reply| {
                reply.unsigned(1, u64::from(*id));
                match answer {
                    Ok(response) => encode_response(response, guess, reply),
                    Err(error) => reply.message(2, 0, |writer| encode_error(error, writer)),
                }
            });
        }
    }
}

/// A push of the most frequent kind: every length is known before the first byte is written.
fn encode_publication_push(channel: &str, publication: &Publication, out: &mut Vec<u8>) {
    let size = publication_len(publication);
    let push = bytes_len(channel.len()) + field_len(size);
    let reply = field_len(push);
    out.reserve(varint_len(reply as u64) + reply);
    let mut writer = Writer::new(out);
    writer.varint(reply as u64);
    writer.begin(4, push);
    writer.bytes(2, channel.as_bytes());
    writer.begin(4, size);
    encode_publication(publication, &mut writer);
}

/// About how long a response will be. Only worth the trouble where it may be long.
fn guess_response(response: &Response) -> usize {
    match response {
        Response::Connect(result) => guess_connect(result),
        Response::Subscribe(result) => guess_subscribe(result),
        Response::History(HistoryResult { publications, .. }) => guess_publications(publications),
        Response::Presence(PresenceResult { presence }) => {
            // An entry is the client's id twice, and a little around it.
            let entries = presence.iter();
            entries
                .map(|(client, info)| client.len() + client_info_len(info) + 8)
                .sum()
        }
        Response::Rpc(RpcResult { data }) => data.as_ref().map_or(0, Payload::len),
        _ => 0,
    }
}

fn guess_connect(result: &ConnectResult) -> usize {
    let subs = result.subs.iter();
    let subs: usize = subs
        .map(|(channel, sub)| channel.len() + guess_subscribe(sub) + 8)
        .sum();
    subs + result.data.as_ref().map_or(0, Payload::len)
}

fn guess_subscribe(result: &SubscribeResult) -> usize {
    guess_publications(&result.publications) + result.data.as_ref().map_or(0, Payload::len)
}

fn guess_publications(publications: &[Arc<Publication>]) -> usize {
    let publications = publications.iter();
    publications
        .map(|publication| field_len(publication_len(publication)))
        .sum()
}

fn encode_response(response: &Response, guess: usize, reply: &mut Writer<'_>) {
    match response {
        Response::Connect(result) => {
            reply.message(5, guess, |writer| encode_connect(result, writer));
        }
        Response::Subscribe(result) => {
            reply.message(6, guess, |writer| encode_subscribe(result, writer));
        }
        Response::Unsubscribe => reply.message(7, 0, |_| {}),
        Response::Publish => reply.message(8, 0, |_| {}),
        Response::Presence(result) => {
            reply.message(9, guess, |writer| encode_presence(result, writer));
        }
        Response::PresenceStats(PresenceStatsResult {
            num_clients,
            num_users,
        }) => reply.message(10, 0, |writer| {
            writer.unsigned(1, u64::from(*num_clients));
            writer.unsigned(2, u64::from(*num_users));
        }),
        Response::History(HistoryResult {
            publications,
            position,
        }) => reply.message(11, guess, |writer| {
            encode_publications(1, publications, writer);
            writer.bytes(2, position.epoch.as_bytes());
            writer.unsigned(3, position.offset);
        }),
        Response::Rpc(RpcResult { data }) => {
            reply.message(13, guess, |writer| encode_payload(1, data.as_ref(), writer));
        }
        Response::Refresh(result) => {
            reply.message(14, 0, |writer| encode_expiry(3, result.ttl, writer));
        }
        Response::SubRefresh(result) => {
            reply.message(15, 0, |writer| encode_expiry(1, result.ttl, writer));
        }
    }
}

fn encode_error(error: &Error, writer: &mut Writer<'_>) {
    writer.unsigned(1, u64::from(error.code));
    writer.bytes(2, error.message.as_bytes());
    writer.boolean(3, error.temporary);
}

fn encode_connect(result: &ConnectResult, writer: &mut Writer<'_>) {
    writer.bytes(1, result.client.as_bytes());
    writer.bytes(2, result.version.as_bytes());
    encode_expiry(3, result.ttl, writer);
    encode_payload(5, result.data.as_ref(), writer);
    encode_subs(6, result, writer);
    encode_connect_tail(result, writer);
}

/// The same as a push, where most of the fields have other numbers.
fn encode_connect_push(result: &ConnectResult, writer: &mut Writer<'_>) {
    writer.bytes(1, result.client.as_bytes());
    writer.bytes(2, result.version.as_bytes());
    encode_payload(3, result.data.as_ref(), writer);
    encode_subs(4, result, writer);
    encode_expiry(5, result.ttl, writer);
    encode_connect_tail(result, writer);
}

fn encode_subs(number: u32, result: &ConnectResult, writer: &mut Writer<'_>) {
    for (channel, sub) in &result.subs {
        let guess = guess_subscribe(sub);
        writer.message(number, guess + channel.len(), |entry| {
            entry.bytes_always(1, channel.as_bytes());
            entry.message(2, guess, |writer| encode_subscribe(sub, writer));
        });
    }
}

fn encode_connect_tail(result: &ConnectResult, writer: &mut Writer<'_>) {
    writer.unsigned(7, u64::from(result.ping));
    writer.boolean(8, result.pong);
    writer.bytes(9, result.session.as_deref().unwrap_or_default().as_bytes());
    writer.bytes(10, result.node.as_deref().unwrap_or_default().as_bytes());
    writer.signed(11, result.time.unwrap_or_default());
}

fn encode_subscribe(result: &SubscribeResult, writer: &mut Writer<'_>) {
    encode_expiry(1, result.ttl, writer);
    writer.boolean(3, result.recoverable);
    writer.bytes(6, result.epoch.as_bytes());
    encode_publications(7, &result.publications, writer);
    writer.boolean(8, result.recovered);
    writer.unsigned(9, result.offset);
    writer.boolean(10, result.positioned);
    encode_payload(11, result.data.as_ref(), writer);
    writer.boolean(12, result.was_recovering);
    writer.boolean(13, result.delta);
}

fn encode_presence(result: &PresenceResult, writer: &mut Writer<'_>) {
    for (client, info) in &result.presence {
        let size = client_info_len(info);
        writer.begin(1, field_len(client.len()) + field_len(size));
        writer.bytes_always(1, client.as_bytes());
        writer.begin(2, size);
        encode_client_info(info, writer);
    }
}

/// `expires` and the `ttl` behind it, which is never zero where there is one.
fn encode_expiry(expires: u32, ttl: Option<u32>, writer: &mut Writer<'_>) {
    if let Some(ttl) = ttl {
        writer.boolean(expires, true);
        writer.unsigned(expires + 1, u64::from(ttl));
    }
}

fn encode_push(push: &Push, writer: &mut Writer<'_>) {
    match push {
        Push::Publication(channel, publication) => {
            writer.bytes(2, channel.as_bytes());
            writer.begin(4, publication_len(publication));
            encode_publication(publication, writer);
        }
        Push::Join(channel, info) => {
            writer.bytes(2, channel.as_bytes());
            writer.message(5, 0, |writer| encode_client_info_field(1, info, writer));
        }
        Push::Leave(channel, info) => {
            writer.bytes(2, channel.as_bytes());
            writer.message(6, 0, |writer| encode_client_info_field(1, info, writer));
        }
        Push::Unsubscribe(channel, Unsubscribe { code, reason }) => {
            writer.bytes(2, channel.as_bytes());
            writer.message(7, 0, |writer| {
                writer.unsigned(2, u64::from(*code));
                writer.bytes(3, reason.as_bytes());
            });
        }
        Push::Message(data) => {
            writer.message(8, data.len(), |writer| writer.bytes(1, data));
        }
        Push::Subscribe(channel, subscribe) => {
            writer.bytes(2, channel.as_bytes());
            writer.message(9, 0, |writer| encode_subscribe_push(subscribe, writer));
        }
        Push::Connect(result) => writer.message(10, guess_connect(result), |writer| {
            encode_connect_push(result, writer);
        }),
        Push::Disconnect(Disconnect { code, reason }) => writer.message(11, 0, |writer| {
            writer.unsigned(1, u64::from(*code));
            writer.bytes(2, reason.as_bytes());
        }),
        Push::Refresh(RefreshResult { ttl }) => {
            writer.message(12, 0, |writer| encode_expiry(1, *ttl, writer));
        }
    }
}

fn encode_subscribe_push(subscribe: &Subscribe, writer: &mut Writer<'_>) {
    writer.boolean(1, subscribe.recoverable);
    writer.bytes(4, subscribe.position.epoch.as_bytes());
    writer.unsigned(5, subscribe.position.offset);
    writer.boolean(6, subscribe.positioned);
    encode_payload(7, subscribe.data.as_ref(), writer);
}

fn encode_payload(number: u32, payload: Option<&Payload>, writer: &mut Writer<'_>) {
    writer.bytes(number, payload.map(AsRef::as_ref).unwrap_or_default());
}

fn encode_publications(number: u32, publications: &[Arc<Publication>], writer: &mut Writer<'_>) {
    for publication in publications {
        writer.begin(number, publication_len(publication));
        encode_publication(publication, writer);
    }
}

fn encode_publication(publication: &Publication, writer: &mut Writer<'_>) {
    writer.bytes(4, &publication.data);
    if let Some(info) = &publication.info {
        encode_client_info_field(5, info, writer);
    }
    writer.unsigned(6, publication.offset);
    for (key, value) in &publication.tags {
        writer.begin(7, field_len(key.len()) + field_len(value.len()));
        writer.bytes_always(1, key.as_bytes());
        writer.bytes_always(2, value.as_bytes());
    }
    writer.boolean(8, publication.delta);
    writer.signed(9, publication.time);
    writer.bytes(
        10,
        publication
            .channel
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    );
}

/// Exactly how long [`encode_publication`] makes it.
fn publication_len(publication: &Publication) -> usize {
    let info = publication.info.as_deref();
    let tags = publication.tags.iter();
    let tags: usize = tags
        .map(|(key, value)| field_len(field_len(key.len()) + field_len(value.len())))
        .sum();
    bytes_len(publication.data.len())
        + info.map_or(0, |info| field_len(client_info_len(info)))
        + unsigned_len(publication.offset)
        + tags
        + unsigned_len(u64::from(publication.delta))
        + unsigned_len(publication.time as u64)
        + bytes_len(publication.channel.as_deref().map_or(0, str::len))
}

fn encode_client_info_field(number: u32, info: &ClientInfo, writer: &mut Writer<'_>) {
    writer.begin(number, client_info_len(info));
    encode_client_info(info, writer);
}

fn encode_client_info(info: &ClientInfo, writer: &mut Writer<'_>) {
    writer.bytes(1, info.user.as_bytes());
    writer.bytes(2, info.client.as_bytes());
    encode_payload(3, info.conn_info.as_ref(), writer);
    encode_payload(4, info.chan_info.as_ref(), writer);
}

/// Exactly how long [`encode_client_info`] makes it.
fn client_info_len(info: &ClientInfo) -> usize {
    bytes_len(info.user.len())
        + bytes_len(info.client.len())
        + bytes_len(info.conn_info.as_ref().map_or(0, Payload::len))
        + bytes_len(info.chan_info.as_ref().map_or(0, Payload::len))
}

// All of the fields that are measured have numbers below 16, so their keys take one byte.

/// How long a field with `length` bytes in it is.
fn field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// The same, where an empty field is left out.
fn bytes_len(length: usize) -> usize {
    if length == 0 { 0 } else { field_len(length) }
}

fn unsigned_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

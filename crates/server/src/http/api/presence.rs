//! The result of `presence`: all who are there, or a page of them with what else there is.

use tautline_hub::PresenceList;
use tautline_protocol::message::{PresenceResult, Response as ProtocolResult};

use super::execute::protocol_result;

/// `{"presence":{…}}`, and for a page also how many there are in all, and the cursor of
/// the next one if there is one: `"num_clients":5000,"num_users":4200,"next":"8a3f…"`.
pub(super) fn result(list: PresenceList, is_page: bool) -> Vec<u8> {
    let PresenceList {
        presence,
        stats,
        next,
    } = list;
    let mut out = protocol_result(&ProtocolResult::Presence(PresenceResult { presence }));
    if !is_page {
        return out;
    }
    out.truncate(out.len() - "}".len());
    let (clients, users) = (stats.num_clients, stats.num_users);
    out.extend_from_slice(format!(r#","num_clients":{clients},"num_users":{users}"#).as_bytes());
    // Connection ids are text without anything to escape, but that is not for here to know.
    if let Some(Ok(next)) = next.map(|next| serde_json::to_vec(&*next)) {
        out.extend_from_slice(br#","next":"#);
        out.extend_from_slice(&next);
    }
    out.push(b'}');
    out
}

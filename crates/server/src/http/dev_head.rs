//! `GET /dev/head`: how long the head of a request is, which a page isn't told by its browser.

use http::{Method, Request, StatusCode};

use super::respond::{self, Response};

pub(super) const PATH: &str = "/dev/head";

/// Tells how long the head of this request is.
pub(super) fn respond<B>(request: &Request<B>) -> Response {
    if request.method() != Method::GET {
        return respond::method_not_allowed("GET");
    }
    respond::json(StatusCode::OK, format!("{{\"bytes\":{}}}", length(request)))
}

/// The bytes of a head as it is written in HTTP/1.1 (RFC 9112 section 2.1).
fn length<B>(request: &Request<B>) -> usize {
    let target = request.uri().path_and_query();
    let target = target.map_or(1, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>() + "\r\n".len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_head_is_counted() {
        let head = "GET /dev/head?x HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n";
        let request = Request::get("/dev/head?x")
            .header("host", "localhost")
            .header("accept", "*/*")
            .body(())
            .expect("a request");
        assert_eq!(length(&request), head.len());
        assert_eq!(respond(&request).status(), 200);
        let other = Request::post("/dev/head").body(()).expect("a request");
        assert_eq!(respond(&other).status(), 405);
    }
}

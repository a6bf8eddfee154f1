//! Publishes by the HTTP API, on one connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// Publishes so many as fast as they are taken.
pub(crate) fn flood(address: SocketAddr, start: Instant, count: usize) -> Result<()> {
    let mut line = Line::connect(address)?;
    let mut left = count;
    while left > 0 {
        let many = left.min(AT_ONCE);
        left -= many;
        let now = start.elapsed();
        line.publish(std::iter::repeat_n(now, many))?;
    }
    Ok(())
}

/// Publishes so many, each at its time: one that comes late says when it should have been sent.
pub(crate) fn steady(address: SocketAddr, start: Instant, rate: f64, count: usize) -> Result<()> {
    let mut line = Line::connect(address)?;
    let begin = start.elapsed();
    let at = |number: usize| begin + Duration::from_secs_f64(number as f64 / rate);
    let mut next = 0;
    while next < count {
        thread::sleep(at(next).saturating_sub(start.elapsed()));
        let now = start.elapsed();
        let due = (next..count.min(next + AT_ONCE)).take_while(|number| at(*number) <= now);
        let due: Vec<_> = due.map(at).collect();
        next += due.len();
        line.publish(due.into_iter())?;
    }
    Ok(())
}

struct Line {
    reads: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Line {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            reads: BufReader::new(stream),
            address,
        })
    }

    /// Has one published for each of these times, and waits until all are.
    fn publish(&mut self, times: impl ExactSizeIterator<Item = Duration>) -> Result<()> {
        let (address, count) = (self.address, times.len());
        let mut requests = Vec::new();
        for time in times {
            let time = time.as_nanos();
            let body = format!(r#"{{"channel":"c","data":{{"text":"{TEXT}","t":{time}}}}}"#);
            let len = body.len();
            write!(
                requests,
                "POST /api/publish HTTP/1.1\r\nHost: {address}\r\nX-API-Key: dev\r\nContent-Length: {len}\r\n\r\n{body}"
            )?;
        }
        self.reads.get_mut().write_all(&requests)?;
        for _ in 0..count {
            self.answer()?;
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<()> {
        let (mut len, mut line) = (0, String::new());
        loop {
            line.clear();
            if self.reads.read_line(&mut line)? == 0 {
                return Err("the server takes no publications any more".into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.starts_with("http/1.1") && !line.contains(" 200") {
                return Err(line.into());
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                len = value.parse()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; len];
        self.reads.read_exact(&mut body)?;
        Ok(())
    }
}

/// How many requests are on their way at a time.
const AT_ONCE: usize = 32;

/// With what is around it, a publication is some 100 bytes long.
const TEXT: &str = "sixty bytes of something that somebody may want to be told..";

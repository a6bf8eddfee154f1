//! What is between the reader and the server: it passes bytes on until so many have gone, and then breaks the connection
//! there, wherever in a head, a frame, a chunk or a line that is. What happens depends on bytes alone, never on times.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Something in between, for as long as the test.
pub(super) struct Middle {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

/// A break to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) towards: Towards,
    /// After so many more bytes that way.
    pub(super) after: usize,
    pub(super) how: How,
    /// Whether nothing gets through any more then, until it is mended.
    pub(super) lasts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Towards {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Both sides see the connection reset (RST).
    Reset,
    /// Both sides see its end (FIN).
    Close,
    /// Neither sees anything: what both say is swallowed. Once that was so many bytes, it is reset.
    Hole(usize),
}

/// What it has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) resets: u64,
    pub(super) closes: u64,
    pub(super) holes: u64,
    /// Breaks of what the client said.
    pub(super) upwards: u64,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    /// All connections end: by a reset, or without.
    ends: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    planned: Option<Break>,
    /// What is being swallowed, and how much of it still.
    hole: Option<(Break, usize)>,
    is_down: bool,
    tally: Tally,
}

impl Middle {
    pub(super) fn start(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("it can be");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            ends: watch::Sender::new(false),
        });
        let its = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((near, _)) = listener.accept().await {
                    tokio::spawn(carry(near, Arc::clone(&its)));
                }
            });
        });
        Self { address, shared }
    }

    /// Has it break; nothing else that was planned happens.
    pub(super) fn plan(&self, planned: Break) {
        self.shared.state().planned = Some(planned);
    }

    /// Nothing that was planned happens.
    pub(super) fn forget(&self) {
        self.shared.state().planned = None;
    }

    /// How often it has broken so far.
    pub(super) fn breaks(&self) -> u64 {
        let Tally {
            resets,
            closes,
            holes,
            ..
        } = self.tally();
        resets + closes + holes
    }

    pub(super) fn tally(&self) -> Tally {
        self.shared.state().tally
    }

    pub(super) fn is_down(&self) -> bool {
        self.shared.state().is_down
    }

    /// It passes everything on again.
    pub(super) fn mend(&self) {
        self.shared.state().is_down = false;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// How many of so many bytes are passed on.
    fn pass(&self, towards: Towards, len: usize) -> usize {
        let mut state = self.state();
        if let Some((planned, left)) = state.hole {
            self.swallow(&mut state, planned, left, len);
            return 0;
        }
        let Some(planned) = state.planned.as_mut() else {
            return len;
        };
        if planned.towards != towards {
            return len;
        }
        if len < planned.after {
            planned.after -= len;
            return len;
        }
        let planned = *planned;
        state.planned = None;
        match planned.how {
            How::Hole(depth) => {
                self.swallow(&mut state, planned, depth, len - planned.after);
            }
            _ => self.end(&mut state, planned),
        }
        planned.after
    }

    fn swallow(&self, state: &mut State, planned: Break, left: usize, len: usize) {
        if len < left {
            state.hole = Some((planned, left - len));
        } else {
            self.end(state, planned);
        }
    }

    fn end(&self, state: &mut State, planned: Break) {
        state.hole = None;
        state.is_down = planned.lasts;
        let tally = &mut state.tally;
        tally.upwards += u64::from(planned.towards == Towards::Server);
        *match planned.how {
            How::Reset => &mut tally.resets,
            How::Close => &mut tally.closes,
            How::Hole(_) => &mut tally.holes,
        } += 1;
        self.ends.send_replace(planned.how != How::Close);
    }
}

/// Carries a connection until it ends, or all do.
async fn carry(mut near: TcpStream, shared: Arc<Shared>) {
    let mut ends = shared.ends.subscribe();
    if shared.state().is_down {
        let _ = near.set_zero_linger();
        return;
    }
    let Ok(mut far) = TcpStream::connect(shared.server).await else {
        return;
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("it can be");
    }
    let (mut up, mut down) = (vec![0; BUFFER], vec![0; BUFFER]);
    let is_reset = loop {
        let passed = tokio::select! {
            // What was planned for all comes before what else there is.
            biased;
            _ = ends.changed() => break *ends.borrow(),
            read = near.read(&mut up) => match read {
                Ok(len @ 1..) => {
                    let len = shared.pass(Towards::Server, len);
                    far.write_all(&up[..len]).await
                }
                _ => break false,
            },
            read = far.read(&mut down) => match read {
                Ok(len @ 1..) => {
                    let len = shared.pass(Towards::Client, len);
                    near.write_all(&down[..len]).await
                }
                _ => break false,
            },
        };
        if passed.is_err() {
            break false;
        }
    };
    if is_reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

const BUFFER: usize = 16 * 1024;

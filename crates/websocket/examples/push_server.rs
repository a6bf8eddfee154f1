//! Sends the time to every client every few seconds, whether or not they say something. Clients
//! that are gone without a word are found by pings, and Ctrl-C closes all connections before the
//! server ends.
//!
//! ```text
//! cargo run -p tautline-websocket --example push_server -- 127.0.0.1:9003 2
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tautline_websocket::conn::{AcceptOptions, Error, Group, Tracker, accept};
use tautline_websocket::proto::{CloseCode, KeepAliveOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9003".to_owned());
    let seconds = args.next().map_or(Ok(2), |arg| arg.parse());
    let (Ok(seconds @ 1..), None) = (seconds, args.next()) else {
        eprintln!("usage: push_server [ADDRESS:PORT [SECONDS]]");
        return ExitCode::from(2);
    };
    match run(&address, Duration::from_secs(seconds)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("push_server: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until Ctrl-C.
async fn run(address: &str, every: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(address).await?;
    eprintln!("pushing on ws://{}; Ctrl-C ends", listener.local_addr()?);
    let (options, group, tracker) = (
        Arc::new(AcceptOptions::default()),
        Group::new(),
        Tracker::new(),
    );
    let mut ticks = interval(every);
    // Were this process held up, there would be nothing to make up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ctrl_c = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (options, group, tracker) = (options.clone(), group.clone(), tracker.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, &options, &group, &tracker).await {
                            eprintln!("a connection has ended: {error}");
                        }
                    });
                }
                Err(error) => {
                    eprintln!("can't accept: {error}");
                    tokio::task::yield_now().await;
                }
            },
            _ = ticks.tick() => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
                // One frame for all of them.
                group.publish(&format!(r#"{{"now":{now},"clients":{}}}"#, group.len()))?;
            }
            result = &mut ctrl_c => {
                result?;
                break;
            }
        }
    }
    drop(listener);
    let patience = Duration::from_secs(10);
    let code = CloseCode::GOING_AWAY;
    tracker
        .shutdown(code, "the server ends", patience)
        .await??;
    Ok(())
}

/// One connection, from its handshake to its end.
async fn serve(
    stream: TcpStream,
    options: &AcceptOptions,
    group: &Group,
    tracker: &Tracker,
) -> Result<(), Box<dyn std::error::Error>> {
    let websocket = accept(stream, options).await?.websocket;
    let mut websocket = websocket.with_keep_alive(KeepAliveOptions::default());
    websocket.track(tracker);
    websocket.join(group)?;
    // What clients say is of no interest here.
    match websocket.serve(|_, _| ()).await {
        Ok(_) | Err(Error::CutOff) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

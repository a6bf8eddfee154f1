//! What somebody is told who watches some of the publications of clients.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tautline_hub::Now;
use tautline_hub::engine::testkit::DelayOptions;
use tautline_hub::watch::{PublishWatch, WatchedPublish};
use tautline_protocol::message::ClientInfo;

use crate::support::{Setup, World};

/// Chooses each second publication.
#[derive(Clone, Default)]
struct Watch {
    told: Rc<RefCell<Vec<String>>>,
    count: usize,
}

struct Watched(Watch);

impl PublishWatch for Watch {
    fn begin(
        &mut self,
        _: Now,
        client: &ClientInfo,
        channel: &Arc<str>,
    ) -> Option<Box<dyn WatchedPublish>> {
        self.count += 1;
        if self.count.is_multiple_of(2) {
            return None;
        }
        assert!(!client.client.is_empty());
        self.told.borrow_mut().push(format!("begins in {channel}"));
        Some(Box::new(Watched(self.clone())))
    }
}

impl WatchedPublish for Watched {
    fn published(&mut self, offset: Option<u64>) {
        self.0
            .told
            .borrow_mut()
            .push(format!("published {offset:?}"));
    }

    fn refused(&mut self, code: u32) {
        self.0.told.borrow_mut().push(format!("refused {code}"));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.told.borrow_mut().push("over".to_owned());
    }
}

#[test]
fn some_publications_are_followed_from_the_command_to_the_engine() {
    for delays in [None, Some(DelayOptions::default())] {
        let mut world = World::with(Setup {
            delays,
            ..Setup::default()
        });
        let watch = Watch::default();
        for worker in &mut world.workers {
            worker.hub.set_publish_watch(Some(Box::new(watch.clone())));
        }
        let client = world.connect(0);
        let publish = |id: u32, channel: &str| {
            format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":1}}}}")
        };
        // What isn't allowed doesn't begin.
        world.send_only(client, &publish(2, "nowhere:a"));
        for id in 3..6 {
            world.send_only(client, &publish(id, "room:a"));
        }
        world.settle();
        let heard = world.heard(client);
        assert_eq!(heard.len(), 4, "{heard:?}");
        let told = watch.told.take();
        let of = |offset: u64| {
            [
                "begins in room:a".to_owned(),
                format!("published {:?}", Some(offset)),
                "over".to_owned(),
            ]
        };
        assert_eq!(told, [of(1), of(3)].concat());
        for worker in &mut world.workers {
            worker.hub.set_publish_watch(None);
        }
        world.send_only(client, &publish(9, "room:a"));
        world.settle();
        assert!(watch.told.take().is_empty());
    }
}

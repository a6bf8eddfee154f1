//! The rules. All of the game's state is here, and it changes in one place, step by step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Size of the field.
const WIDTH: i32 = 800;
const HEIGHT: i32 = 480;
/// How far a player gets in a step.
const SPEED: i32 = 12;
/// How near one has to be to a coin.
const REACH: i32 = 24;

/// What a player says: which way it wants to go, from -1 to 1 on each axis.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Input {
    x: i32,
    y: i32,
}

/// A player, as all see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Player {
    name: String,
    x: i32,
    y: i32,
    score: u32,
    #[serde(skip)]
    input: Input,
}

/// The field and who is on it. Written as JSON it is what players are shown.
#[derive(Debug, Serialize)]
pub(crate) struct Arena {
    /// By id, so that they stay where they are in the text: what is a small change is a small patch.
    players: BTreeMap<String, Player>,
    coin: (i32, i32),
    #[serde(skip)]
    coins_found: i32,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Self {
            players: BTreeMap::new(),
            coin: place(0),
            coins_found: 0,
        }
    }

    pub(crate) fn join(&mut self, id: String, name: String) {
        let (x, y) = place(self.players.len() as i32 + 7);
        let player = Player {
            name,
            x,
            y,
            score: 0,
            input: Input::default(),
        };
        self.players.insert(id, player);
    }

    pub(crate) fn leave(&mut self, id: &str) {
        self.players.remove(id);
    }

    /// Takes note of what a player wants. It counts from the next step on, until it wants something else.
    pub(crate) fn steer(&mut self, id: &str, input: Input) {
        if let Some(player) = self.players.get_mut(id) {
            // Whatever a player says: it goes no faster than others.
            player.input = Input {
                x: input.x.signum(),
                y: input.y.signum(),
            };
        }
    }

    pub(crate) fn step(&mut self) {
        for player in self.players.values_mut() {
            player.x = (player.x + player.input.x * SPEED).clamp(0, WIDTH);
            player.y = (player.y + player.input.y * SPEED).clamp(0, HEIGHT);
            let (dx, dy) = (player.x - self.coin.0, player.y - self.coin.1);
            if dx * dx + dy * dy <= REACH * REACH {
                player.score += 1;
                self.coins_found += 1;
                self.coin = place(self.coins_found);
            }
        }
    }
}

/// Somewhere on the field: looks like chance, and can be tested.
fn place(number: i32) -> (i32, i32) {
    ((number * 311 + 170) % WIDTH, (number * 197 + 230) % HEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_move_within_the_field_and_no_faster_for_what_they_say() {
        let mut arena = Arena::new();
        arena.join("a".into(), "Ann".into());
        arena.steer(
            "a",
            Input {
                x: 9000,
                y: i32::MIN,
            },
        );
        let before = arena.players["a"].x;
        arena.step();
        assert_eq!(arena.players["a"].x, before + SPEED);
        for _ in 0..1000 {
            arena.step();
        }
        assert_eq!((arena.players["a"].x, arena.players["a"].y), (WIDTH, 0));
    }

    #[test]
    fn who_reaches_the_coin_scores_and_the_coin_moves_on() {
        let mut arena = Arena::new();
        arena.join("a".into(), "Ann".into());
        let coin = arena.coin;
        let player = arena.players.get_mut("a").unwrap();
        (player.x, player.y) = coin;
        arena.step();
        assert_eq!(arena.players["a"].score, 1);
        assert_ne!(arena.coin, coin);
    }
}

//! What stands in for `deflate` without the feature of that name: nothing is ever agreed, so there
//! is no [`Direction`], and nothing that would take one is ever called.

#![expect(dead_code, reason = "the engine is written as if there were a codec")]

use super::error::PeerFault;
use super::limits::Limits;

pub(super) enum MessageCodec {}

impl MessageCodec {
    pub(super) fn split(&mut self) -> (&mut Vec<u8>, &mut Packer) {
        match *self {}
    }

    pub(super) fn release(&mut self) {
        match *self {}
    }
}

#[derive(Debug)]
pub(super) enum Packer {}

impl Packer {
    pub(super) fn pack(&mut self, _: Direction, _: &mut Context, _: &[u8]) -> Option<&[u8]> {
        match *self {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {}

#[derive(Debug, Default)]
pub(super) struct Context;

impl Context {
    pub(super) const NONE: Self = Self;
}

pub(super) struct Loan<'i, 'p> {
    pub(super) inflated: Option<&'i mut Vec<u8>>,
    pub(super) packer: Option<&'p mut Packer>,
}

pub(super) enum Inflated<'i> {
    Lent(&'i [u8]),
    Own(Vec<u8>),
}

pub(super) fn inflate<'i>(
    incoming: Direction,
    _: &mut Context,
    _: &[u8],
    _: &Limits,
    _: Loan<'i, '_>,
) -> Result<Inflated<'i>, PeerFault> {
    match incoming {}
}

//! The codecs, each used as a WebSocket library would use it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::inflate::stream::InflateState;
use miniz_oxide::{DataFormat, MZFlush};
use tautline_deflate::{Codec, History, InflateLimits};
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

/// What a sender leaves out, and a receiver puts back (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Turns one message into another.
pub(crate) type Work = Box<dyn FnMut(&[u8], &mut Vec<u8>)>;

/// A codec at a level.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) work: Work,
}

/// Compressors that take each message by itself.
pub(crate) fn compressors_alone() -> Vec<Named> {
    let mut all = vec![
        named("tautline 1", tautline(1, None)),
        named("tautline 2", tautline(2, None)),
    ];
    for level in [1, 3, 6] {
        let mut zlib = Deflate::new(level, false, 15);
        all.push(named(
            format!("zlib-rs {level}"),
            move |message: &[u8], out: &mut Vec<u8>| {
                zlib.reset();
                let room = message.len() + 64;
                out.resize(room, 0);
                let _ = zlib.compress(message, out, DeflateFlush::SyncFlush);
                out.truncate(zlib.total_out() as usize - TAIL.len());
            },
        ));
    }
    for level in [1, 6] {
        let mut zlib = Compress::new(Compression::new(level), false);
        all.push(named(
            format!("zlib {level}"),
            move |message: &[u8], out: &mut Vec<u8>| {
                zlib.reset();
                out.reserve(message.len() + 64);
                let _ = zlib.compress_vec(message, out, FlushCompress::Sync);
                out.truncate(out.len() - TAIL.len());
            },
        ));
    }
    for level in [1, 6] {
        let flags = create_comp_flags_from_zip_params(level, -15, 0);
        let mut miniz = Box::new(CompressorOxide::new(flags));
        all.push(named(
            format!("miniz_oxide {level}"),
            move |message: &[u8], out: &mut Vec<u8>| {
                miniz.reset();
                out.resize(message.len() + 64, 0);
                let done =
                    miniz_oxide::deflate::stream::deflate(&mut miniz, message, out, MZFlush::Sync);
                out.truncate(done.bytes_written - TAIL.len());
            },
        ));
    }
    for level in [1, 6] {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap_or_default());
        all.push(named(
            format!("libdeflate {level}"),
            move |message: &[u8], out: &mut Vec<u8>| {
                out.resize(compressor.deflate_compress_bound(message.len()), 0);
                let len = compressor
                    .deflate_compress(message, out)
                    .unwrap_or_default();
                out.truncate(len);
            },
        ));
    }
    all
}

/// Compressors that refer to the messages before; how much each connection keeps is in the name. Ours
/// are lent to somebody else after each message, unless it is "in a row".
pub(crate) fn compressors_with_context() -> Vec<Named> {
    let mut all = Vec::new();
    for level in [1, 2] {
        for memory in [512, 1024, 2048, 4096] {
            let name = format!("tautline {level}, {memory} B");
            all.push(named(name, tautline(level, Some((memory, true)))));
        }
        let name = format!("tautline {level}, 1024 B, in a row");
        all.push(named(name, tautline(level, Some((1024, false)))));
    }
    all.push(named("tautline 6, 1024 B", tautline(6, Some((1024, true)))));
    for (level, bits, kept) in [(1, 15, "380 KiB"), (6, 15, "380 KiB"), (6, 12, "265 KiB")] {
        let mut zlib = Deflate::new(level, false, bits);
        all.push(named(
            format!("zlib-rs {level}, {kept}"),
            move |message: &[u8], out: &mut Vec<u8>| {
                let before = zlib.total_out();
                out.resize(message.len() + 64, 0);
                let _ = zlib.compress(message, out, DeflateFlush::SyncFlush);
                out.truncate((zlib.total_out() - before) as usize - TAIL.len());
            },
        ));
    }
    let mut zlib = Compress::new(Compression::new(6), false);
    all.push(named(
        "zlib 6, 256 KiB",
        move |message: &[u8], out: &mut Vec<u8>| {
            out.reserve(message.len() + 64);
            let _ = zlib.compress_vec(message, out, FlushCompress::Sync);
            out.truncate(out.len() - TAIL.len());
        },
    ));
    all
}

/// Ours; with a context of so many bytes, and as if each message were another connection's.
fn tautline(level: u8, context: Option<(usize, bool)>) -> impl FnMut(&[u8], &mut Vec<u8>) {
    let mut codec = Codec::new(level);
    let mut history = context.map(|(memory, _)| History::with_capacity(memory));
    let primed = context.is_some_and(|(_, primed)| primed);
    move |message, out| {
        if primed {
            // Somebody else's message, of next to no length, comes between.
            codec.compress(15, None, b"-", out);
            out.clear();
        }
        codec.compress(15, history.as_mut(), message, out);
    }
}

/// Decompressors that take each message by itself.
pub(crate) fn decompressors_alone() -> Vec<Named> {
    let mut codec = Codec::new(1);
    let mut zlib_rs = Inflate::new(false, 15);
    let mut zlib = Decompress::new(false);
    let mut miniz = InflateState::new_boxed(DataFormat::Raw);
    let mut libdeflate = Decompressor::new();
    vec![
        named("tautline", move |message: &[u8], out: &mut Vec<u8>| {
            codec
                .inflate(15, None, message, InflateLimits::default(), out)
                .expect("good");
        }),
        named("zlib-rs", move |message: &[u8], out: &mut Vec<u8>| {
            zlib_rs.reset(false);
            out.resize(ROOM, 0);
            for part in [message, &TAIL] {
                let filled = zlib_rs.total_out() as usize;
                zlib_rs
                    .decompress(part, &mut out[filled..], InflateFlush::SyncFlush)
                    .expect("good");
            }
            out.truncate(zlib_rs.total_out() as usize);
        }),
        named("zlib", move |message: &[u8], out: &mut Vec<u8>| {
            zlib.reset(false);
            out.reserve(ROOM);
            for part in [message, &TAIL] {
                zlib.decompress_vec(part, out, FlushDecompress::Sync)
                    .expect("good");
            }
        }),
        named("miniz_oxide", move |message: &[u8], out: &mut Vec<u8>| {
            miniz.reset(DataFormat::Raw);
            out.resize(ROOM, 0);
            let mut filled = 0;
            for part in [message, &TAIL] {
                let done = miniz_oxide::inflate::stream::inflate(
                    &mut miniz,
                    part,
                    &mut out[filled..],
                    MZFlush::None,
                );
                filled += done.bytes_written;
            }
            out.truncate(filled);
        }),
        named("libdeflate", move |message: &[u8], out: &mut Vec<u8>| {
            // It wants a final block behind the tail.
            let mut whole = [0; 64 * 1024];
            whole[..message.len()].copy_from_slice(message);
            let end = [0, 0, 0xff, 0xff, 0x03, 0x00];
            whole[message.len()..message.len() + end.len()].copy_from_slice(&end);
            out.resize(ROOM, 0);
            let len = libdeflate
                .deflate_decompress(&whole[..message.len() + end.len()], out)
                .expect("good");
            out.truncate(len);
        }),
    ]
}

/// Decompressors that remember the messages before.
pub(crate) fn decompressors_with_context() -> Vec<Named> {
    let mut all = Vec::new();
    for bits in [10, 15] {
        let (mut codec, mut history) = (Codec::new(1), History::new(bits));
        all.push(named(
            format!("tautline, {} B", 1 << bits),
            move |message: &[u8], out: &mut Vec<u8>| {
                codec
                    .inflate(
                        bits,
                        Some(&mut history),
                        message,
                        InflateLimits::default(),
                        out,
                    )
                    .expect("good");
            },
        ));
    }
    let mut zlib = Inflate::new(false, 15);
    all.push(named(
        "zlib-rs, 47.5 KiB",
        move |message: &[u8], out: &mut Vec<u8>| {
            out.resize(ROOM, 0);
            let before = zlib.total_out();
            for part in [message, &TAIL] {
                let filled = (zlib.total_out() - before) as usize;
                zlib.decompress(part, &mut out[filled..], InflateFlush::SyncFlush)
                    .expect("good");
            }
            out.truncate((zlib.total_out() - before) as usize);
        },
    ));
    all
}

/// More than any message.
const ROOM: usize = 17 * 1024;

fn named(name: impl Into<String>, work: impl FnMut(&[u8], &mut Vec<u8>) + 'static) -> Named {
    Named {
        name: name.into(),
        work: Box::new(work),
    }
}

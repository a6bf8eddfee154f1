//! Counts the heap of a process from outside: preloaded (`LD_PRELOAD`), it stands before glibc's allocator and
//! keeps the number of live bytes and live blocks in a file that the driver maps too.
//!
//! So every server is counted the same way, whatever it is written in, and none has to be built for it. A block
//! counts with its usable size (what the allocator set aside for it, a little more than what was asked for).
//! What does not pass through `malloc` is not seen: allocators of a language's own (Go, Bun), `mmap`, stacks.
//! For those the resident set is the figure to read.
//!
//! The file's name comes in `COMPARE_HEAP_FILE`; it must be at least 16 bytes long and holds two native 64-bit
//! integers, bytes and blocks. Linux with glibc only.

// An interposed allocator cannot be written without `unsafe`: each function here is the C symbol it replaces.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

#[repr(C)]
struct Counters {
    bytes: AtomicI64,
    blocks: AtomicI64,
}

/// Counts until the file is mapped, and for ever where there is no file.
static UNMAPPED: Counters = Counters {
    bytes: AtomicI64::new(0),
    blocks: AtomicI64::new(0),
};
static COUNTERS: AtomicPtr<Counters> = AtomicPtr::new((&raw const UNMAPPED).cast_mut());

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(alignment: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
    fn malloc_usable_size(block: *mut c_void) -> usize;
}

fn count(bytes: i64, blocks: i64) {
    // SAFETY: the pointer is always that of a static or of a mapping that is never unmapped.
    let counters = unsafe { &*COUNTERS.load(Ordering::Relaxed) };
    counters.bytes.fetch_add(bytes, Ordering::Relaxed);
    counters.blocks.fetch_add(blocks, Ordering::Relaxed);
}

fn size_of_block(block: *mut c_void) -> i64 {
    // SAFETY: callers pass null (size 0) or a live block of glibc's allocator.
    let size = unsafe { malloc_usable_size(block) };
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn counted(block: *mut c_void) -> *mut c_void {
    if !block.is_null() {
        count(size_of_block(block), 1);
    }
    block
}

/// `malloc(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: same contract.
    counted(unsafe { __libc_malloc(size) })
}

/// `calloc(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    // SAFETY: same contract.
    counted(unsafe { __libc_calloc(number, size) })
}

/// `realloc(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    let before = size_of_block(block);
    let had = i64::from(!block.is_null());
    // SAFETY: same contract.
    let moved = unsafe { __libc_realloc(block, size) };
    // Null means failure (the old block lives on) unless the caller asked for nothing (it is gone).
    if !moved.is_null() {
        count(size_of_block(moved) - before, 1 - had);
    } else if size == 0 {
        count(-before, -had);
    }
    moved
}

/// `free(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        count(-size_of_block(block), -1);
    }
    // SAFETY: same contract.
    unsafe { __libc_free(block) }
}

/// `memalign(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: same contract.
    counted(unsafe { __libc_memalign(alignment, size) })
}

/// `aligned_alloc(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: same contract.
    counted(unsafe { __libc_memalign(alignment, size) })
}

/// `posix_memalign(3)`.
///
/// # Safety
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(
    out: *mut *mut c_void,
    alignment: usize,
    size: usize,
) -> c_int {
    if !alignment.is_power_of_two() || !alignment.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    // SAFETY: same contract; the alignment is a power of two.
    let block = counted(unsafe { __libc_memalign(alignment, size) });
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller lends a place for one pointer.
    unsafe { out.write(block) };
    0
}

/// Maps the file before `main` and moves the counts there. No allocation of ours: it would count itself.
extern "C" fn map_counters() {
    // SAFETY: constant C strings; the process has one thread yet; the mapping is as large as `Counters`, aligned to
    // a page, shared, and never unmapped.
    unsafe {
        let name = libc::getenv(c"COMPARE_HEAP_FILE".as_ptr());
        if name.is_null() {
            return;
        }
        let file = libc::open(name, libc::O_RDWR | libc::O_CLOEXEC);
        if file < 0 {
            return;
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let length = size_of::<Counters>();
        let page = libc::mmap(
            core::ptr::null_mut(),
            length,
            protection,
            libc::MAP_SHARED,
            file,
            0,
        );
        libc::close(file);
        if page == libc::MAP_FAILED {
            return;
        }
        let counters = page.cast::<Counters>();
        (*counters)
            .bytes
            .store(UNMAPPED.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        (*counters)
            .blocks
            .store(UNMAPPED.blocks.load(Ordering::Relaxed), Ordering::Relaxed);
        COUNTERS.store(counters, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = map_counters;

//! A directory of a test's own.

#![allow(dead_code, reason = "each test binary uses another part")]

use std::fs;
use std::path::{Path, PathBuf};

/// Empty when made, gone when dropped.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// One of that name, which no other test of the same program has.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("tautline-test-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // What a test of the same number has left behind, some time ago.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where something in it would be.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file there.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).expect("a temporary file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

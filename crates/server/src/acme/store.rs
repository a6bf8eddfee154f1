//! The directory of an authority's account and certificates: whole files, for nobody else to read.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::kept;

/// What is kept of one authority. Each has a directory of its own, so that certificates of one for trials are never taken
/// for another's.
#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

/// Held by the one process that orders.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closing it unlocks it")] File);

impl Store {
    pub(super) fn new(cache: &Path, host: &str, directory_url: &str) -> Self {
        let hash = digest(&SHA256, directory_url.as_bytes());
        let mut name = String::new();
        // What can't be a file's name isn't one.
        name.extend(host.chars().map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => char,
            _ => '_',
        }));
        name.push('-');
        for byte in &hash.as_ref()[..4] {
            let _ = write!(name, "{byte:02x}");
        }
        Self {
            directory: cache.join(name),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory where there is none, and takes the turn to order; `None` if another process has it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        kept::directory(&self.directory)?;
        let file = private()
            .create(true)
            .truncate(false)
            .open(self.directory.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Chain and key of a name, in PEM.
    pub(super) fn certificate(&self, domain: &str) -> io::Result<Option<Vec<u8>>> {
        self.read(&format!("{domain}.pem"))
    }

    pub(super) fn keep_certificate(&self, domain: &str, pem: &[u8]) -> io::Result<()> {
        self.write(&format!("{domain}.pem"), pem)
    }

    /// The account, as JSON.
    pub(super) fn account(&self) -> io::Result<Option<Vec<u8>>> {
        self.read(ACCOUNT)
    }

    pub(super) fn keep_account(&self, json: &[u8]) -> io::Result<()> {
        self.write(ACCOUNT, json)
    }

    /// Writes as much as an account takes, and takes it away again.
    ///
    /// # Errors
    ///
    /// What would become of an account that is to be kept.
    pub(super) fn has_room(&self) -> io::Result<()> {
        let beside = self.write_beside(ACCOUNT, &[b' '; MOST_OF_ACCOUNT])?;
        fs::remove_file(beside)
    }

    /// The authority doesn't know it any more.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        fs::remove_file(self.directory.join(ACCOUNT))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut read = Vec::new();
        file.take(MAX_LEN).read_to_end(&mut read)?;
        Ok(Some(read))
    }

    /// There is always the whole old file or the whole new one.
    fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let beside = self.write_beside(name, contents)?;
        fs::rename(&beside, self.directory.join(name))?;
        #[cfg(unix)]
        File::open(&self.directory)?.sync_all()?;
        Ok(())
    }

    /// Writes what is to be in the place of a file, and says where that is.
    fn write_beside(&self, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
        let beside = self.directory.join(format!("{name}.new"));
        // Of a process that was killed: its rights may be others.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&beside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        Ok(beside)
    }
}

/// To write what nobody else may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

const ACCOUNT: &str = "account.json";
/// No account is longer: a key, some URLs and addresses of mail.
const MOST_OF_ACCOUNT: usize = 8 * 1024;
/// No chain of certificates is longer.
const MAX_LEN: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> PathBuf {
        let directory = std::env::temp_dir();
        let directory = directory.join(format!("tautline-acme-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn what_is_kept_is_found_again_and_for_nobody_else() {
        let cache = cache("kept");
        let store = Store::new(&cache, "acme.example", "https://acme.example/directory");
        assert_eq!(store.certificate("a.example").expect("nothing wrong"), None);
        let lock = store.lock().expect("a lock").expect("nobody has it");
        store.keep_certificate("a.example", b"old").expect("room");
        // Left by a process that was killed, for all to read.
        fs::write(store.directory().join("a.example.pem.new"), "half").expect("room");
        store.keep_certificate("a.example", b"new").expect("room");
        store.keep_account(b"{}").expect("room");
        drop(lock);
        let other = Store::new(&cache, "acme.example", "https://acme.example/staging");
        assert_eq!(other.certificate("a.example").expect("nothing wrong"), None);
        let again = Store::new(&cache, "acme.example", "https://acme.example/directory");
        assert_eq!(
            again.certificate("a.example").expect("it is there"),
            Some(b"new".to_vec())
        );
        assert_eq!(again.account().expect("it is there"), Some(b"{}".to_vec()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| {
                fs::metadata(path)
                    .expect("it is there")
                    .permissions()
                    .mode()
                    & 0o777
            };
            assert_eq!(mode(&cache), 0o700);
            assert_eq!(mode(store.directory()), 0o700);
            let files = fs::read_dir(store.directory()).expect("a directory");
            let files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
            assert_eq!(files.len(), 3, "{files:?}");
            for file in files {
                assert_eq!(mode(&file), 0o600, "{}", file.display());
            }
        }
        again.forget_account().expect("it is there");
        assert_eq!(again.account().expect("nothing wrong"), None);
        fs::remove_dir_all(cache).expect("it is ours");
    }

    #[test]
    fn one_process_has_the_turn() {
        let cache = cache("turn");
        let store = Store::new(&cache, "a", "https://a/");
        let lock = store.lock().expect("a lock");
        assert!(lock.is_some());
        assert!(store.lock().expect("no error").is_none());
        drop(lock);
        assert!(store.lock().expect("a lock").is_some());
        fs::remove_dir_all(cache).expect("it is ours");
    }
}

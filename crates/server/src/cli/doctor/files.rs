//! Files that nobody but the server should read, and the directory that it writes to.

use std::fs::{self, Metadata};
use std::path::Path;

use super::finding::Finding;

/// A finding about the file of a private key, if it is one and others can read it.
pub(super) fn key(option: &str, file: &Path) -> Option<Finding> {
    let about = fs::metadata(file).ok().filter(Metadata::is_file)?;
    // The group may be one that was made for it.
    let mode = mode(&about).filter(|mode| mode & 0o007 != 0)?;
    let file = file.display();
    let text = format!(
        "every user of this machine can read the key of {option} ({file} has the mode {mode:03o})"
    );
    Some(Finding::doubtful("key", text).remedy(format!("chmod o= {file}")))
}

/// A finding about the file of a configuration, if others can change it, or read the secrets that are in it.
pub(super) fn configuration(file: &Path, has_secrets: bool) -> Option<Finding> {
    let about = fs::metadata(file).ok().filter(Metadata::is_file)?;
    let mode = mode(&about)?;
    let file = file.display();
    if mode & 0o002 != 0 {
        let text = format!(
            "every user of this machine can change what the server does ({file} has the mode {mode:03o})"
        );
        return Some(Finding::bad(CONFIGURATION, text).remedy(format!("chmod o-w {file}")));
    }
    if has_secrets && mode & 0o004 != 0 {
        let text = format!(
            "every user of this machine can read the secrets in it ({file} has the mode {mode:03o})"
        );
        return Some(Finding::doubtful(CONFIGURATION, text).remedy(format!(
            "chmod o= {file}   # or keep them in files of their own, which variables such as TAUTLINE_HTTP_API_KEY_FILE name"
        )));
    }
    None
}

/// A finding about a directory of what the server keeps, which has users in it.
pub(super) fn kept(
    option: &'static str,
    directory: &Path,
    may_write: impl Fn(&Path) -> bool,
) -> Option<Finding> {
    // A relative path begins where the server is started.
    let mut above = directory.ancestors();
    let there = above.find(|path| fs::symlink_metadata(path).is_ok())?;
    let shown = there.display();
    let Some(about) = fs::metadata(there).ok().filter(Metadata::is_dir) else {
        let text = format!("{shown} is no directory, so the server doesn't start");
        return Some(Finding::bad(option, text).remedy(KEPT));
    };
    if !may_write(there) {
        let text = format!(
            "who runs this can't write to {shown}: a server that can't either doesn't start"
        );
        return Some(Finding::bad(option, text).remedy(KEPT));
    }
    if there != directory {
        return Some(Finding::good(option, will_be_made(directory)));
    }
    let is_open = mode(&about).is_some_and(|mode| mode & 0o007 != 0);
    if is_open {
        let text =
            format!("every user of this machine can look into {shown}, which has users in it");
        return Some(Finding::doubtful(option, text).remedy(format!("chmod o= {shown}")));
    }
    Some(Finding::good(
        option,
        format!("{shown} can be written, and others can't look into it"),
    ))
}

/// Findings about where ordered certificates are kept: the directory of the option, and the one of the authority in it.
pub(super) fn cache(
    directory: &Path,
    of_authority: &Path,
    may_write: impl Fn(&Path) -> bool,
) -> Vec<Finding> {
    let there = of_authority
        .ancestors()
        .find(|path| fs::symlink_metadata(path).is_ok());
    let Some(there) = there else {
        // A relative path begins where the server is started.
        return vec![Finding::good(CACHE, will_be_made(directory))];
    };
    let shown = there.display();
    let Some(about) = fs::metadata(there).ok().filter(Metadata::is_dir) else {
        let text = format!("{shown} is no directory");
        return vec![Finding::bad(CACHE, text).remedy(WRITABLE)];
    };
    if !may_write(there) {
        let text = format!("nothing can be kept: who runs this can't write to {shown}");
        return vec![Finding::bad(CACHE, text).remedy(WRITABLE)];
    }
    if there != of_authority {
        return vec![Finding::good(CACHE, will_be_made(directory))];
    }
    let mut findings = Vec::new();
    for (path, about) in private(there, about) {
        let shown = path.display();
        match path.is_dir() {
            true if about.is_open => {
                let text = format!("others than the server can look into {shown}");
                findings.push(Finding::doubtful(CACHE, text).remedy(format!("chmod 700 {shown}")));
            }
            false if about.is_open => {
                let text = format!("others than the server can read {shown}, which has a key");
                findings.push(Finding::doubtful(CACHE, text).remedy(format!("chmod 600 {shown}")));
            }
            _ => {}
        }
        if about.is_of_other {
            let text = format!("{shown} is not of the user whose the directory is");
            let remedy = format!("chown --reference={} {shown}", there.display());
            findings.push(Finding::doubtful(CACHE, text).remedy(remedy));
        }
    }
    if findings.is_empty() {
        let text = format!("{shown} can be written, and is for nobody else");
        findings.push(Finding::good(CACHE, text));
    }
    findings
}

/// Whether who runs this may make files there.
#[cfg(unix)]
pub(super) fn may_write(directory: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
pub(super) fn may_write(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|about| !about.permissions().readonly())
}

fn will_be_made(directory: &Path) -> String {
    format!("{} is not there yet, and will be made", directory.display())
}

/// What is wrong with who may do what.
struct Rights {
    is_open: bool,
    is_of_other: bool,
}

/// The directory, and the files in it, with what is wrong with each.
#[cfg(unix)]
fn private(
    directory: &Path,
    about: Metadata,
) -> impl Iterator<Item = (std::path::PathBuf, Rights)> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = about.uid();
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let files = files.filter_map(|file| Some((file.path(), file.metadata().ok()?)));
    std::iter::once((directory.to_owned(), about))
        .chain(files)
        .map(move |(path, about)| {
            let rights = Rights {
                is_open: about.mode() & 0o077 != 0,
                is_of_other: about.uid() != owner,
            };
            (path, rights)
        })
}

#[cfg(not(unix))]
fn private(_: &Path, _: Metadata) -> impl Iterator<Item = (std::path::PathBuf, Rights)> {
    std::iter::empty()
}

#[cfg(unix)]
fn mode(about: &Metadata) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    Some(about.mode() & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> Option<u32> {
    None
}

const CONFIGURATION: &str = "configuration";
const KEPT: &str = "a directory that the server's user may write to, such as one below /var/lib/tautline, where the unit of \
                    systemd has StateDirectory=tautline, and the image a volume";
const CACHE: &str = "certificate cache";
const WRITABLE: &str = "http_server.tls.acme.cache_directory: a directory that the server's user may write to, such as \
                        /var/lib/tautline/acme, where the unit of systemd has StateDirectory=tautline";

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::super::finding::Grade;
    use super::*;

    /// A directory of the test's own, gone when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir();
            let path = path.join(format!("tautline-doctor-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn told(findings: &[Finding]) -> Vec<(Grade, &str)> {
        let told = findings.iter();
        told.map(|one| (one.grade, one.remedy.as_deref().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_is_kept_is_for_nobody_else_to_read() {
        let root = Directory::new("cache");
        let (cache, inner) = (root.0.join("acme"), root.0.join("acme/authority"));
        let look = || super::cache(&cache, &inner, |_| true);
        assert_eq!(told(&look()), [(Grade::Good, "")]);
        assert!(look()[0].text.ends_with("will be made"));
        fs::create_dir_all(&inner).expect("room");
        set(&inner, 0o700);
        let file = inner.join("a.example.pem");
        fs::write(&file, "x").expect("room");
        set(&file, 0o600);
        assert_eq!(told(&look()), [(Grade::Good, "")]);
        for mode in [0o640, 0o604, 0o620] {
            set(&file, mode);
            let remedy = format!("chmod 600 {}", file.display());
            assert_eq!(told(&look()), [(Grade::Doubtful, &*remedy)], "{mode:o}");
        }
        set(&file, 0o600);
        for mode in [0o750, 0o705, 0o755] {
            set(&inner, mode);
            let remedy = format!("chmod 700 {}", inner.display());
            assert_eq!(told(&look()), [(Grade::Doubtful, &*remedy)], "{mode:o}");
        }
        set(&inner, 0o700);
        // Left by somebody who has started the server as root, once. Only root can try that.
        if std::os::unix::fs::chown(&file, Some(12_345), None).is_ok() {
            let remedy = format!("chown --reference={} {}", inner.display(), file.display());
            assert_eq!(told(&look()), [(Grade::Doubtful, &*remedy)]);
        }
    }

    #[test]
    fn a_directory_has_to_be_one_that_can_be_written() {
        let root = Directory::new("unwritable");
        let cache = root.0.join("acme");
        let inner = cache.join("authority");
        // Where it would have to be made, and where it is.
        for there in [&root.0, &cache, &inner] {
            fs::create_dir_all(there).expect("room");
            set(there, 0o700);
            let findings = super::cache(&cache, &inner, |path| path != there);
            assert_eq!(told(&findings), [(Grade::Bad, WRITABLE)]);
            assert!(findings[0].text.contains(&there.display().to_string()));
            assert_eq!(super::cache(&cache, &inner, may_write).len(), 1);
        }
        fs::remove_dir_all(&cache).expect("it is ours");
        fs::write(&cache, "").expect("room");
        let findings = super::cache(&cache, &inner, |_| true);
        assert_eq!(told(&findings), [(Grade::Bad, WRITABLE)]);
        assert!(findings[0].text.ends_with("acme is no directory"));
        assert!(!may_write(&root.0.join("nowhere")) && may_write(&root.0));
    }

    #[test]
    fn what_is_kept_can_be_written_and_is_for_nobody_else() {
        let root = Directory::new("state");
        let directory = root.0.join("state/events");
        let look = |may_write: bool| {
            let found = kept("events.directory", &directory, |_| may_write);
            let found = found.expect("the root is there");
            (found.grade, found.text)
        };
        let (grade, text) = look(true);
        assert!(
            grade == Grade::Good && text.ends_with("will be made"),
            "{text}"
        );
        let (grade, text) = look(false);
        assert!(
            grade == Grade::Bad && text.contains("can't write"),
            "{text}"
        );
        crate::kept::directory(&directory).expect("room");
        assert_eq!(look(true).0, Grade::Good);
        set(&directory, 0o755);
        let (grade, text) = look(true);
        assert!(
            grade == Grade::Doubtful && text.contains("look into"),
            "{text}"
        );
        fs::remove_dir(&directory).expect("it is ours");
        fs::write(&directory, "").expect("room");
        let (grade, text) = look(true);
        assert!(
            grade == Grade::Bad && text.contains("is no directory"),
            "{text}"
        );
    }

    #[test]
    fn a_key_is_for_the_server_and_its_group() {
        let root = Directory::new("key");
        let file = root.0.join("key.pem");
        assert_eq!(key("key_pem", &file), None, "it is no file");
        fs::write(&file, "x").expect("room");
        for (mode, is_open) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            set(&file, mode);
            let finding = key("key_pem", &file);
            assert_eq!(finding.is_some(), is_open, "{mode:o}");
            let remedy = finding.and_then(|finding| finding.remedy);
            assert!(remedy.is_none_or(|remedy| remedy.starts_with("chmod o= /")));
        }
    }
}

//! Directories of what the server keeps on disk: keys, events, who was locked out.

use std::fs::DirBuilder;
use std::io;
use std::path::Path;

/// Makes a directory where there is none, with those above it, for nobody else on this machine to look into. One that is
/// there stays as it is: somebody has made it as it is meant.
///
/// # Errors
///
/// What the system says, also when something else has the name.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

//! Lists the files of the embedded pages: path in the URL, media type, entity tag, content.

use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), String> {
    let variable = |name| std::env::var(name).map_err(|error| format!("{name}: {error}"));
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("assets");
    println!("cargo::rerun-if-changed={}", root.display());

    let table = table("CHAT", "", &root.join("chat"))? + &table("LAB", "/lab", &root.join("lab"))?;
    let target = PathBuf::from(variable("OUT_DIR")?).join("assets.rs");
    fs::write(&target, table).map_err(|error| format!("{}: {error}", target.display()))
}

/// Rust source of a constant with all files below `directory`, which are behind `prefix` in the URL.
fn table(name: &str, prefix: &str, directory: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();

    let mut source = format!("/// All files below `assets/{}`.\n", name.to_lowercase());
    source.push_str(&format!("pub(crate) static {name}: &[Asset] = &[\n"));
    for file in files {
        let content = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let relative = file
            .strip_prefix(directory)
            .map_err(|error| error.to_string())?;
        let parts: Vec<_> = relative
            .components()
            .map(|part| part.as_os_str().to_string_lossy())
            .collect();
        let url = format!("{prefix}/{}", parts.join("/"));
        let url = url.strip_suffix("index.html").unwrap_or(&url);
        let etag = format!("\"{}\"", sha1_smol::Sha1::from(&content).digest());
        source.push_str(&format!(
            "    Asset {{ path: {url:?}, content_type: {:?}, etag: {etag:?}, immutable: {}, \
             content: include_bytes!({file:?}) }},\n",
            content_type(&file)?,
            has_hash(&file),
        ));
    }
    source.push_str("];\n");
    Ok(source)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// A type that is missing here would be sniffed or refused by browsers, so it stops the build.
fn content_type(file: &Path) -> Result<&'static str, String> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("css") => Ok("text/css; charset=utf-8"),
        Some("html") => Ok("text/html; charset=utf-8"),
        Some("ico") => Ok("image/x-icon"),
        Some("js") => Ok("text/javascript; charset=utf-8"),
        Some("json") => Ok("application/json"),
        Some("png") => Ok("image/png"),
        Some("svg") => Ok("image/svg+xml"),
        Some("txt") => Ok("text/plain; charset=utf-8"),
        Some("webmanifest") => Ok("application/manifest+json"),
        Some("woff2") => Ok("font/woff2"),
        _ => Err(format!(
            "{}: add its media type to build.rs",
            file.display()
        )),
    }
}

/// Whether a name carries a hash of the content, as bundlers write it: `app-7QX2ZK4M.js`. When in
/// doubt it doesn't; the file is then only asked for more often than needed.
fn has_hash(file: &Path) -> bool {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let Some((_, hash)) = stem.rsplit_once(['-', '.']) else {
        return false;
    };
    let base32 = hash
        .bytes()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let hex = hash
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    hash.len() >= 8 && (base32 || hex)
}

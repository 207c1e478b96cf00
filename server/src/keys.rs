//! The keys that sign: generated for one owner only in the data folder, or named in the configuration.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use secrecy::SecretSlice;

/// Bytes of a generated key.
const KEY_BYTES: usize = 32;

/// Reads the keys in `files`, or, where none is named, the one that is kept in the data folder, made at first start.
///
/// # Errors
/// If a file cannot be read or written, holds less than 32 bytes, or can be read by others.
pub(crate) fn load(files: &[PathBuf], data_dir: &Path, name: &str) -> anyhow::Result<Vec<SecretSlice<u8>>> {
    if files.is_empty() {
        return Ok(vec![own(&data_dir.join("keys").join(name))?]);
    }
    files.iter().map(|file| read(file)).collect()
}

/// The same, making none: for commands that look at what a server did.
///
/// # Errors
/// As [`load`], and if there is none.
pub(crate) fn present(files: &[PathBuf], data_dir: &Path, name: &str) -> anyhow::Result<Vec<SecretSlice<u8>>> {
    let own = [data_dir.join("keys").join(name)];
    let files = if files.is_empty() { &own } else { files };
    files.iter().map(|file| read(file)).collect()
}

fn own(file: &Path) -> anyhow::Result<SecretSlice<u8>> {
    if !file.exists() {
        let folder = file.parent().context("a key file needs a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let mut key = [0_u8; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        // Whole or not at all: half a key would keep every later start from reading it.
        let mut out = tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write in {}", folder.display()))?;
        out.write_all(hex::encode(key).as_bytes())?;
        out.as_file().sync_all()?;
        if let Err(error) = out.persist_noclobber(file)
            && error.error.kind() != ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("cannot write {}", file.display()));
        }
        fs::File::open(folder)?.sync_all()?;
    }
    read(file)
}

/// Reads one key.
///
/// # Errors
/// If the file cannot be read, holds less than 32 bytes, or can be read by others.
pub(crate) fn read(file: &Path) -> anyhow::Result<SecretSlice<u8>> {
    let meta = fs::metadata(file).with_context(|| format!("cannot read key file {}", file.display()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        bail!("key file {} can be read by others: run `chmod 600` on it", file.display());
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read key file {}", file.display()))?;
    let text = text.trim();
    let key = hex::decode(text).unwrap_or_else(|_| text.as_bytes().to_vec());
    if key.len() < KEY_BYTES {
        bail!("key file {} holds {} bytes: it takes {KEY_BYTES} or more, as text or as hex", file.display(), key.len());
    }
    Ok(SecretSlice::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_key_is_made_once_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(&[], dir.path(), "button").unwrap();
        let again = load(&[], dir.path(), "button").unwrap();
        assert_eq!(first[0].expose_secret(), again[0].expose_secret());
        let mode = fs::metadata(dir.path().join("keys/button")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        fs::write(&file, "k".repeat(40)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load(&[file], dir.path(), "button").unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

//! The log file of a child: it takes what the child writes even while no server runs, and is kept from filling the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A log longer than this is moved aside, over the one moved before.
const MAX: u64 = 8 * 1024 * 1024;

/// For the child to append to.
pub(super) fn open(file: &Path) -> io::Result<File> {
    cut(file)?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(file)
}

/// Moves a log aside that has grown too long. The child keeps its open file, so the content is copied and the file emptied; lines
/// written in between are lost.
pub(super) fn cut(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Ok(about) if about.len() > MAX => {
            fs::copy(file, file.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(file)?.set_len(0)
        }
        _ => Ok(()),
    }
}

/// The end of a file, at most `max` bytes.
pub(crate) fn tail(file: &Path, max: u64) -> io::Result<Vec<u8>> {
    let about = fs::metadata(file)?;
    if !about.is_file() {
        // A pipe would wait for its writer, a device might never end.
        return Err(io::Error::other("it is not a plain file"));
    }
    let (mut open, length) = (File::open(file)?, about.len());
    open.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut bytes = vec![];
    open.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

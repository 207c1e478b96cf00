//! The folders of executions. One that is done with is used again: a file system may take longer to find a free inode than everything else about a
//! command takes, because it does not like to use again at once what was just deleted.
//!
//! The name of a folder is its execution's. One that waits has a name that is none, and what it holds says nothing to anybody: its files have the names
//! of files that are not finished. Should a power cut mix that up, whatever is read names its execution too.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::de::DeserializeOwned;

/// Who an execution is, until its shim begins it.
pub(crate) const ABOUT: &str = "about.json";
/// The same from just before the command is started: without it nothing of it ever happened.
pub(crate) const BEGUN: &str = "begun";
/// What it came to.
pub(crate) const RESULT: &str = "result";
/// There if the command is to end. A signal alone could reach a shim that by now does something else.
pub(crate) const STOP: &str = "stop";
/// What is being written.
const NEW_ABOUT: &str = "about.new";
const NEW_RESULT: &str = "result.new";
/// So many folders wait at most.
const MOST: usize = 64;
/// A file of so many bytes fits into one block.
const SHORT: usize = 4096;
/// Names of those that wait begin with it; names of executions do not.
const WAITS: char = '.';

/// The folder of all of them.
#[derive(Debug)]
pub(crate) struct Folders {
    home: PathBuf,
    waiting: Mutex<Vec<PathBuf>>,
    number: AtomicU64,
}

impl Folders {
    /// Makes the folder, and removes those that an earlier start left waiting.
    pub(crate) fn open(home: &Path) -> io::Result<Folders> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(home)?;
        for entry in fs::read_dir(home)?.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(WAITS)) {
            remove(&entry.path());
        }
        Ok(Folders { home: home.to_owned(), waiting: Mutex::default(), number: AtomicU64::new(0) })
    }

    /// Where all of them are.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Names come from ids of ours; anything else is refused, not cleaned.
    pub(crate) fn of(&self, id: &str) -> Option<PathBuf> {
        let fits = !id.is_empty() && id.len() <= 100 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| self.home.join(id))
    }

    /// The names of all executions whose folders are there.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.home).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with(WAITS)).collect()
    }

    /// A folder in which nothing is known of this execution.
    ///
    /// # Errors
    /// If there is one, or none can be made.
    pub(crate) fn make(&self, folder: &Path) -> io::Result<()> {
        let spare = self.lock().pop();
        if let Some(spare) = spare {
            match fs::rename(&spare, folder) {
                Ok(()) => return Ok(()),
                Err(_) => remove(&spare),
            }
        }
        fs::DirBuilder::new().mode(0o700).create(folder)
    }

    /// An execution's folder is no longer that.
    pub(crate) fn forget(&self, folder: &Path) {
        match self.keep(folder) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(false) | Err(_) => remove(folder),
        }
    }

    /// Keeps a folder for another execution, if nothing is in it but what every execution leaves.
    fn keep(&self, folder: &Path) -> io::Result<bool> {
        let mut names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<OsString>>>()?;
        names.sort();
        if names != [BEGUN, RESULT] || self.lock().len() >= MOST {
            return Ok(false);
        }
        let spare = self.home.join(format!("{WAITS}{}", self.number.fetch_add(1, Ordering::Relaxed)));
        // First the name: from here on nobody finds the execution.
        fs::rename(folder, &spare)?;
        let emptied = || {
            blank(&spare.join(RESULT))?;
            fs::rename(spare.join(RESULT), spare.join(NEW_RESULT))?;
            fs::rename(spare.join(BEGUN), spare.join(NEW_ABOUT))
        };
        match emptied() {
            Ok(()) => self.lock().push(spare),
            Err(_) => remove(&spare),
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a folder, and first what names its shim, which may do something else by now.
fn remove(folder: &Path) {
    let about = [ABOUT, BEGUN].map(|name| fs::remove_file(folder.join(name)));
    let there = |done: io::Result<()>| done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) });
    if let Err(error) = about.into_iter().chain([fs::remove_dir_all(folder)]).try_for_each(there) {
        tracing::warn!(%error, folder = %folder.display(), "an execution's folder cannot be removed");
    }
}

/// Writes who an execution is. Not synced: what a power cut takes away, it takes from the shims too.
pub(crate) fn write_about(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    write(folder, NEW_ABOUT, bytes)?;
    fs::rename(folder.join(NEW_ABOUT), folder.join(ABOUT))
}

/// Puts a file that was written in the place of another. The other is kept under the name of the first: to be written anew, inode and all.
pub(crate) fn put(new: &Path, file: &Path) -> io::Result<()> {
    renameat_with(CWD, new, CWD, file, RenameFlags::EXCHANGE).or_else(|_| fs::rename(new, file))
}

/// Who an execution is, whether it has begun or not.
pub(crate) fn read_about<T: DeserializeOwned>(folder: &Path) -> Option<T> {
    let bytes = fs::read(folder.join(ABOUT)).or_else(|_| fs::read(folder.join(BEGUN))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Marks that an execution begins. Nobody can do so twice.
pub(crate) fn begin(folder: &Path) -> io::Result<()> {
    fs::rename(folder.join(ABOUT), folder.join(BEGUN))
}

/// Writes the result: it is whole, synced and there, or it is not there.
pub(crate) fn write_result(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    write(folder, NEW_RESULT, bytes)?.sync_data()?;
    fs::rename(folder.join(NEW_RESULT), folder.join(RESULT))?;
    File::open(folder)?.sync_all()
}

/// Writes over what is there: to free a block and to find another takes longer than all the rest.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::options().create(true).truncate(false).write(true).mode(0o600).open(folder.join(name))?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    Ok(file)
}

/// Takes away what a file says, which is not redacted; a short one keeps its block.
fn blank(path: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    match usize::try_from(file.metadata()?.len()) {
        Ok(length) if length <= SHORT => file.write_all(&vec![0; length]),
        _ => file.set_len(0),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn inode(path: &Path) -> u64 {
        fs::metadata(path).unwrap().ino()
    }

    fn carry_out(folders: &Folders, id: &str) -> PathBuf {
        let folder = folders.of(id).unwrap();
        folders.make(&folder).unwrap();
        write_about(&folder, id.as_bytes()).unwrap();
        begin(&folder).unwrap();
        assert!(begin(&folder).is_err(), "it began twice");
        write_result(&folder, b"a secret").unwrap();
        folder
    }

    #[test]
    fn a_folder_is_used_again_and_says_nothing_of_the_execution_before() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path()).unwrap();
        let first = carry_out(&folders, "first-0-1");
        let inodes = [first.clone(), first.join(BEGUN), first.join(RESULT)].map(|path| inode(&path));
        folders.forget(&first);
        folders.forget(&first);
        assert!(!first.exists() && folders.kept().is_empty());
        let spare = folders.lock()[0].clone();
        assert_eq!(fs::read(spare.join(NEW_RESULT)).unwrap(), [0; 8], "what was printed is kept for nobody");
        let second = folders.of("second-0-1").unwrap();
        folders.make(&second).unwrap();
        assert_eq!(folders.kept(), ["second-0-1"]);
        for name in [ABOUT, BEGUN, RESULT, STOP] {
            assert!(!second.join(name).exists(), "{name}");
        }
        write_about(&second, b"second").unwrap();
        begin(&second).unwrap();
        write_result(&second, b"said").unwrap();
        assert_eq!(inodes, [second.clone(), second.join(BEGUN), second.join(RESULT)].map(|path| inode(&path)), "that was to save new ones");
        assert_eq!(fs::read(second.join(RESULT)).unwrap(), b"said");
        // One that has an execution's name already is not overwritten.
        folders.forget(&carry_out(&folders, "third-0-1"));
        assert!(folders.make(&second).is_err());
        assert_eq!(fs::read(second.join(RESULT)).unwrap(), b"said");
    }

    #[test]
    fn a_long_result_leaves_nothing_either() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), RESULT, &vec![b's'; SHORT + 1]).unwrap();
        blank(&dir.path().join(RESULT)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        write(dir.path(), RESULT, b"longer").unwrap();
        write(dir.path(), RESULT, b"short").unwrap();
        assert_eq!(fs::read(dir.path().join(RESULT)).unwrap(), b"short");
    }

    #[test]
    fn what_holds_more_or_less_than_every_execution_leaves_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path()).unwrap();
        for name in [STOP, "stdout.0", ABOUT] {
            let folder = carry_out(&folders, "more-0-1");
            fs::write(folder.join(name), "").unwrap();
            folders.forget(&folder);
            assert!(!folder.exists());
        }
        let folder = folders.of("less-0-1").unwrap();
        folders.make(&folder).unwrap();
        write_about(&folder, b"less").unwrap();
        folders.forget(&folder);
        assert!(!folder.exists() && folders.lock().is_empty());
    }

    #[test]
    fn so_many_wait_and_none_after_another_start() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path()).unwrap();
        let all: Vec<PathBuf> = (0..MOST + 3).map(|n| carry_out(&folders, &format!("e-{n}"))).collect();
        all.iter().for_each(|folder| folders.forget(folder));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MOST);
        let kept = carry_out(&folders, "kept-0-1");
        let folders = Folders::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!((folders.kept(), fs::read(kept.join(RESULT)).unwrap()), (vec!["kept-0-1".to_owned()], b"a secret".to_vec()));
    }

    #[test]
    fn a_file_is_put_in_anothers_place() {
        let dir = tempfile::tempdir().unwrap();
        let (new, file) = (dir.path().join("new"), dir.path().join("file"));
        for text in ["one", "two", "three"] {
            fs::write(&new, text).unwrap();
            put(&new, &file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&new).unwrap(), "two");
    }
}

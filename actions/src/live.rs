//! What a command prints while it runs: a tap in its captures, small files in its folder that outlive the server, and the way from either to whoever
//! watches. Best effort, and bounded: what nobody takes in time is dropped, and the result tells all that is kept.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::action::RunHost;
use domain::printed::{Printed, Source};

/// How often a shim writes down what was printed. A command that ends sooner leaves its result alone.
const WRITE: Duration = Duration::from_millis(250);
/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(500);
/// What waits to be taken, of each stream, in bytes.
const WAITING: usize = 64 * 1024;
/// Size of a file at which the next begins; the two newest of each stream are there. In bytes.
const FILE: u64 = 64 * 1024;
/// The largest piece that is passed on, in bytes.
const PIECE: u64 = 32 * 1024;

/// Where captures put a copy of what they read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap(Arc<Mutex<[Waiting; 2]>>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Tap {
    pub(crate) fn push(&self, source: Source, bytes: &[u8]) {
        let waiting = &mut self.lock()[source as usize];
        waiting.end += bytes.len() as u64;
        waiting.bytes.extend(bytes);
        let excess = waiting.bytes.len().saturating_sub(WAITING);
        waiting.bytes.drain(..excess);
    }

    /// What was printed since it was last taken.
    fn take(&self, source: Source) -> Option<Printed> {
        let waiting = &mut self.lock()[source as usize];
        let bytes: Vec<u8> = std::mem::take(&mut waiting.bytes).into();
        let offset = waiting.end - bytes.len() as u64;
        (!bytes.is_empty()).then_some(Printed { source, offset, oldest: true, bytes })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Waiting; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what a command of this process prints.
pub(crate) async fn tell(tap: &Tap, host: &dyn RunHost) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        for piece in Source::ALL.into_iter().filter_map(|source| tap.take(source)) {
            // Nobody keeps it for a second try.
            let _passed_on = host.printed(&piece).await;
        }
    }
}

/// Writes what a command prints into its folder, for as long as it runs.
pub(crate) async fn keep(tap: &Tap, folder: &Path) -> Infallible {
    let mut files = Source::ALL.map(|_| None::<Growing>);
    loop {
        tokio::time::sleep(WRITE).await;
        for source in Source::ALL {
            if let Some(piece) = tap.take(source) {
                // A disk that is full has no room for this: the result may need it.
                let _kept = write(&mut files[source as usize], folder, &piece);
            }
        }
    }
}

/// A file that is written to. Its name says how much was printed before it.
struct Growing {
    file: File,
    path: PathBuf,
    before: Option<PathBuf>,
    start: u64,
    end: u64,
}

fn write(growing: &mut Option<Growing>, folder: &Path, piece: &Printed) -> io::Result<()> {
    let goes_on = growing.as_ref().is_some_and(|now| now.end == piece.offset && now.end - now.start < FILE);
    if !goes_on {
        let path = folder.join(format!("{}.{}", piece.source.as_str(), piece.offset));
        let file = File::create(&path)?;
        let last = growing.take();
        if let Some(old) = last.as_ref().and_then(|last| last.before.as_ref()) {
            fs::remove_file(old)?;
        }
        *growing = Some(Growing { file, path, before: last.map(|last| last.path), start: piece.offset, end: piece.offset });
    }
    let Some(now) = growing else { return Ok(()) };
    now.file.write_all(&piece.bytes)?;
    now.end += piece.bytes.len() as u64;
    Ok(())
}

/// Passes on what is written into an execution's folder.
pub(crate) async fn watch(folder: &Path, host: &dyn RunHost) -> Infallible {
    let mut ends = [0; 2];
    loop {
        tokio::time::sleep(LOOK).await;
        if host.anew() {
            ends = [0; 2];
        }
        for source in Source::ALL {
            let end = &mut ends[source as usize];
            if let Ok(Some(piece)) = next(folder, source, *end)
                && host.printed(&piece).await
            {
                *end = piece.offset + piece.bytes.len() as u64;
            }
        }
    }
}

/// The next piece after `from`; where that is gone, the oldest that is there.
fn next(folder: &Path, source: Source, from: u64) -> io::Result<Option<Printed>> {
    let mut starts: Vec<u64> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let start: Option<u64> = name.to_str().and_then(|name| name.strip_prefix(source.as_str())?.strip_prefix('.')?.parse().ok());
        starts.extend(start);
    }
    starts.sort_unstable();
    let holding = starts.iter().rposition(|start| *start <= from).unwrap_or(0);
    for start in starts.iter().skip(holding) {
        let mut file = File::open(folder.join(format!("{}.{start}", source.as_str())))?;
        let offset = from.max(*start);
        file.seek(SeekFrom::Start(offset - start))?;
        let mut bytes = Vec::new();
        file.take(PIECE).read_to_end(&mut bytes)?;
        if !bytes.is_empty() {
            let oldest = starts.first() == Some(&offset) || offset > from;
            return Ok(Some(Printed { source, offset, oldest, bytes }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, bytes: &[u8]) -> Printed {
        Printed { source: Source::Stdout, offset, oldest: true, bytes: bytes.to_vec() }
    }

    /// All that can be read from `from` on.
    fn read(folder: &Path, mut from: u64) -> Vec<(u64, bool, usize)> {
        let mut all = Vec::new();
        while let Some(piece) = next(folder, Source::Stdout, from).unwrap() {
            from = piece.offset + piece.bytes.len() as u64;
            all.push((piece.offset, piece.oldest, piece.bytes.len()));
        }
        all
    }

    #[test]
    fn a_tap_that_nobody_takes_from_keeps_the_newest() {
        let tap = Tap::default();
        assert_eq!(tap.take(Source::Stdout), None);
        tap.push(Source::Stdout, b"one");
        tap.push(Source::Stderr, b"err");
        assert_eq!(tap.take(Source::Stdout), Some(piece(0, b"one")));
        tap.push(Source::Stdout, &vec![b'x'; WAITING]);
        tap.push(Source::Stdout, b"two");
        let taken = tap.take(Source::Stdout).unwrap();
        assert_eq!((taken.offset, taken.bytes.len()), (6, WAITING));
        assert!(taken.bytes.ends_with(b"xxtwo"));
        assert_eq!(tap.take(Source::Stderr).unwrap().bytes, b"err");
    }

    #[test]
    fn files_are_read_from_where_it_was_left_and_are_never_many() {
        let dir = tempfile::tempdir().unwrap();
        let (mut growing, mut end) = (None, 0);
        assert!(read(dir.path(), 0).is_empty());
        write(&mut growing, dir.path(), &piece(0, b"one\n")).unwrap();
        write(&mut growing, dir.path(), &piece(4, b"two\n")).unwrap();
        assert_eq!(read(dir.path(), 0), [(0, true, 8)]);
        assert_eq!(read(dir.path(), 4), [(4, false, 4)]);
        assert!(read(dir.path(), 8).is_empty());
        end += 8;
        for _ in 0..20 {
            write(&mut growing, dir.path(), &piece(end, &vec![b'y'; 40_000])).unwrap();
            end += 40_000;
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let all = read(dir.path(), 8);
        assert!(all[0].1 && all[0].0 > 8, "what is gone is gone: {all:?}");
        assert!(all[1..].iter().all(|(_, oldest, length)| !oldest && *length as u64 <= PIECE), "{all:?}");
        assert_eq!(all.iter().map(|(.., length)| *length as u64).sum::<u64>(), end - all[0].0);
        // A piece was dropped before it: the next file begins behind it.
        write(&mut growing, dir.path(), &piece(end + 100, b"later\n")).unwrap();
        assert_eq!(read(dir.path(), end), [(end + 100, true, 6)]);
    }
}

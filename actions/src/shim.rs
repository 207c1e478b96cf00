//! `watchkeeper shim`: the small process that carries out one command and outlives the server that asked for it.
//!
//! It leads a session of its own and adopts whatever its command leaves behind, so that a crash, a stop or an update of the server changes nothing
//! for the command. The order comes on standard input: without a whole one nothing runs. The result is a file that is either whole or not there:
//! written, synced, renamed, and the folder synced. TERM ends the command and all of its descendants.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Capture;
use crate::program::{Bounds, Finished, How, Invocation, ProgramError, Reach, run_within};

/// The argument that makes the server's program a shim.
pub const WORD: &str = "shim";
/// The result, in the execution's folder.
const RESULT: &str = "result";
/// No order is longer: standard input for the command is at most 1 MiB.
const MAX_ORDER: u64 = 8 * 1024 * 1024;

/// What a shim is told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The execution's folder.
    pub(crate) folder: PathBuf,
    pub(crate) what: Invocation,
    /// How long it may take, in milliseconds.
    pub(crate) limit_ms: u64,
}

/// What the result file begins with, as one line of JSON. The captures' bytes follow.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    end: End,
    took_ms: u64,
    stdout: [u64; 3],
    stderr: [u64; 3],
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// The wait status, as `waitpid(2)` gives it.
    Ended(i32),
    TimedOut,
    Stopped,
    NotStarted(String),
    Lost(String),
}

/// Is a shim: reads the order, carries it out, writes the result. Call it before anything else starts threads or opens files.
pub fn run() -> ExitCode {
    // Led by nobody: neither the server's end nor a terminal's reaches it. Who leads a session already keeps it.
    let _leads_already = rustix::process::setsid();
    // Orphans of the command come to us, so that an end can reach those too that left its group.
    let _without_it_only_the_group_is_reached = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let Some(order) = read_order(io::stdin().lock()) else { return ExitCode::SUCCESS };
    let folder = order.folder.clone();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return written(write_result(&folder, Err(not_started(format!("the shim has no runtime: {error}"))), Duration::ZERO)),
    };
    let (result, took) = runtime.block_on(carry_out(order));
    written(write_result(&folder, result, took))
}

fn written(done: io::Result<()>) -> ExitCode {
    // Nobody is there to be told: without a file the outcome is unknown, and the server says so.
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn carry_out(order: Order) -> (Result<Finished, ProgramError>, Duration) {
    let began = tokio::time::Instant::now();
    let mut term = match signal(SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => return (Err(not_started(format!("the shim cannot hear signals: {error}"))), Duration::ZERO),
    };
    let stop = async move {
        term.recv().await;
    };
    let bounds = Bounds { limit: Duration::from_millis(order.limit_ms), stop, reach: Reach::Descendants };
    let result = run_within(order.what, bounds).await;
    (result, began.elapsed())
}

fn not_started(problem: String) -> ProgramError {
    ProgramError::NotStarted { program: "the command".to_owned(), error: io::Error::other(problem) }
}

/// An order on the wire: its length in eight bytes, then JSON. Anything less is no order.
pub(crate) fn encode(order: &Order) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(order)?;
    let mut bytes = (body.len() as u64).to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

fn read_order(mut from: impl Read) -> Option<Order> {
    let mut length = [0; 8];
    from.read_exact(&mut length).ok()?;
    let length = u64::from_be_bytes(length);
    let mut body = vec![];
    from.take(length.min(MAX_ORDER)).read_to_end(&mut body).ok()?;
    if body.len() as u64 == length { serde_json::from_slice(&body).ok() } else { None }
}

fn write_result(folder: &Path, result: Result<Finished, ProgramError>, took: Duration) -> io::Result<()> {
    let (end, stdout, stderr) = match result {
        Ok(done) => {
            let end = match done.how {
                How::Ended(status) => End::Ended(status.into_raw()),
                How::TimedOut => End::TimedOut,
                How::Stopped => End::Stopped,
            };
            (end, done.stdout, done.stderr)
        }
        Err(ProgramError::NotStarted { error, .. }) => (End::NotStarted(error.to_string()), Capture::default(), Capture::default()),
        Err(ProgramError::Lost(problem)) => (End::Lost(problem), Capture::default(), Capture::default()),
    };
    let ((out, out_bytes), (err, err_bytes)) = (stdout.into_parts(), stderr.into_parts());
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let mut bytes = serde_json::to_vec(&Header { end, took_ms, stdout: out, stderr: err })?;
    bytes.push(b'\n');
    bytes.extend(out_bytes);
    bytes.extend(err_bytes);
    let new = folder.join("result.new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(new, folder.join(RESULT))?;
    File::open(folder)?.sync_all()
}

/// The result in a folder, if its command has ended.
///
/// # Errors
/// If there is one that cannot be read.
pub(crate) fn read_result(folder: &Path, program: &Path) -> io::Result<Option<Result<Finished, ProgramError>>> {
    let bytes = match fs::read(folder.join(RESULT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
    let header: Header = serde_json::from_slice(&bytes[..line])?;
    let (stdout, rest) = Capture::from_parts(header.stdout, &bytes[line + 1..]).ok_or(io::ErrorKind::InvalidData)?;
    let (stderr, _) = Capture::from_parts(header.stderr, rest).ok_or(io::ErrorKind::InvalidData)?;
    let how = match header.end {
        End::Ended(raw) => How::Ended(std::process::ExitStatus::from_raw(raw)),
        End::TimedOut => How::TimedOut,
        End::Stopped => How::Stopped,
        End::NotStarted(why) => {
            return Ok(Some(Err(ProgramError::NotStarted { program: program.display().to_string(), error: io::Error::other(why) })));
        }
        End::Lost(problem) => return Ok(Some(Err(ProgramError::Lost(problem)))),
    };
    Ok(Some(Ok(Finished { how, stdout, stderr, took: Duration::from_millis(header.took_ms) })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_order_is_none() {
        let what = Invocation { program: "/bin/true".into(), args: vec![], env: vec![], cwd: "/".into(), stdin: None };
        let whole = encode(&Order { folder: "/x".into(), what, limit_ms: 5 }).unwrap();
        assert_eq!(read_order(&whole[..]).unwrap().limit_ms, 5);
        for length in 0..whole.len() {
            assert!(read_order(&whole[..length]).is_none(), "{length}");
        }
        assert!(read_order(&u64::MAX.to_be_bytes()[..]).is_none());
    }

    #[test]
    fn a_result_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/true");
        assert!(read_result(dir.path(), program).unwrap().is_none());
        let problem = ProgramError::Lost("gone".to_owned());
        write_result(dir.path(), Err(problem), Duration::from_millis(7)).unwrap();
        assert!(matches!(read_result(dir.path(), program).unwrap(), Some(Err(ProgramError::Lost(_)))));
        let file = dir.path().join(RESULT);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_result(dir.path(), program).is_err());
    }
}

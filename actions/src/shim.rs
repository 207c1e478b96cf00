//! `watchkeeper shim`: the small process that carries out commands, one after the other, and outlives the server that asked for them.
//!
//! It leads a session of its own and adopts whatever its command leaves behind, so that a crash, a stop or an update of the server changes nothing
//! for the command. Orders come on standard input: without a whole one nothing runs. The result is a file that is either whole or not there:
//! written, synced, renamed, and the folder synced. TERM ends the command and all of its descendants, and the shim.
//!
//! It takes another order only when nothing of the last command is left; else it ends. So no command meets what an earlier one left behind, and what a
//! command left behind on purpose is not ended with a later one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cgroup::Cgroup;
use crate::folders::{self, BEGUN, RESULT, STOP};
use crate::live::{self, Tap};
use crate::output::Capture;
use crate::proc;
use crate::program::{Bounds, Finished, How, Invocation, ProgramError, Reach, run_within};

/// The argument that makes the server's program a shim.
pub const WORD: &str = "shim";
/// How long a shim waits before it tries again to write a result for which there was no room.
const NO_ROOM: Duration = Duration::from_secs(1);
/// In the environment of every command: the name of its execution. So what it left is found when its shim was killed.
pub(crate) const MARK: &str = "WATCHKEEPER_EXECUTION";
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
    /// Whose it is. Shims of earlier versions do not say.
    #[serde(default)]
    id: Option<String>,
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

/// Is a shim: reads orders, carries them out, writes the results. Call it before anything else starts threads or opens files.
pub fn run() -> ExitCode {
    // Led by nobody: neither the server's end nor a terminal's reaches it. Who leads a session already keeps it.
    let _leads_already = rustix::process::setsid();
    // Orphans of the command come to us, so that an end can reach those too that left its group.
    let _without_it_only_the_group_is_reached = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // For whoever looks at the host; else it would be `exe`.
    let _shown_otherwise = rustix::thread::set_name(c"wk-shim");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Nobody is there to be told: what did not begin has no mark, and what has no result is unknown, and the server says so.
    match runtime.and_then(|runtime| runtime.block_on(serve())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What a shim listens to besides its orders.
struct Ears {
    /// Ends everything.
    term: Signal,
    /// Says that it is to look whether its command is to end. Ignored by who does not listen yet, and by terminals of which there is none here.
    look: Signal,
}

async fn serve() -> io::Result<()> {
    let mut ears = Ears { term: signal(SignalKind::terminate())?, look: signal(SignalKind::window_change())? };
    let mut orders = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    // One for all its commands: of one that ended by itself nothing is left inside when the next begins.
    let cgroup = Cgroup::make(&std::process::id().to_string()).filter(Cgroup::enter).map(Arc::new);
    loop {
        let order = tokio::select! {
            biased;
            _ = ears.term.recv() => return Ok(()),
            order = read_order(&mut orders) => order,
        };
        let Some(order) = order else { return Ok(()) };
        // Before anything happens, and by nobody twice.
        folders::begin(&order.folder)?;
        let folder = order.folder.clone();
        let (result, took) = carry_out(order, &mut ears, cgroup.clone()).await;
        let by_itself = matches!(&result, Ok(Finished { how: How::Ended(_), .. }) | Err(ProgramError::NotStarted { .. }));
        keep_result(&folder, result, took, &mut ears).await?;
        if !by_itself || !proc::childless() {
            return Ok(());
        }
        // On a line of its own, whatever stands before it.
        let mut out = io::stdout().lock();
        write!(out, "\n{}\n", said(&folder))?;
        out.flush()?;
    }
}

/// The line by which a shim says that this execution has its result and that it takes another order.
pub(crate) fn said(folder: &Path) -> String {
    format!("ended {}", folder.file_name().unwrap_or_default().display())
}

async fn carry_out(mut order: Order, ears: &mut Ears, cgroup: Option<Arc<Cgroup>>) -> (Result<Finished, ProgramError>, Duration) {
    let began = tokio::time::Instant::now();
    if order.folder.join(STOP).exists() {
        return (Err(not_started("it was stopped before it began".to_owned())), Duration::ZERO);
    }
    order.what.env.extend(name(&order.folder).map(|id| (MARK.to_owned(), id)));
    let stop = stopped(ears, &order.folder);
    let tap = Tap::default();
    let limit = Duration::from_millis(order.limit_ms);
    let bounds = Bounds { limit, stop, reach: Reach::Descendants, cgroup, tap: tap.clone() };
    let result = tokio::select! {
        result = run_within(order.what, bounds) => result,
        never = live::keep(&tap, &order.folder) => match never {},
    };
    (result, began.elapsed())
}

fn not_started(problem: String) -> ProgramError {
    ProgramError::NotStarted { program: "the command".to_owned(), error: io::Error::other(problem) }
}

/// Asks whoever carries out what is in this folder to end it. The shim looks when it is sent [`LOOK`].
///
/// # Errors
/// If it cannot be written. A folder that is gone is no error: nobody does anything there.
pub(crate) fn ask_to_stop(folder: &Path) -> io::Result<()> {
    match File::create(folder.join(STOP)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        made => made.map(drop),
    }
}

/// What makes a shim look whether it is to stop. One that is not so far yet ignores it, and looks before it begins.
pub(crate) const LOOK: rustix::process::Signal = rustix::process::Signal::WINCH;

/// Whether the execution in this folder is over, whatever its shim does now.
pub(crate) fn is_over(folder: &Path) -> bool {
    folder.join(RESULT).exists()
}

/// Whether nothing of the execution in this folder has happened. Only where its shim is gone nothing will.
pub(crate) fn never_began(folder: &Path) -> bool {
    matches!(folder.join(BEGUN).try_exists(), Ok(false))
}

/// An order on the wire: its length in eight bytes, then JSON. Anything less is no order.
pub(crate) fn encode(order: &Order) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(order)?;
    let mut bytes = (body.len() as u64).to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

async fn read_order(from: &mut (impl AsyncRead + Unpin)) -> Option<Order> {
    let length = from.read_u64().await.ok().filter(|length| *length <= MAX_ORDER)?;
    let mut body = vec![0; usize::try_from(length).ok()?];
    from.read_exact(&mut body).await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// Writes the result. On a full disk it waits for room: what is known now nobody could find out again. Who wants it to end is not kept waiting.
async fn keep_result(folder: &Path, result: Result<Finished, ProgramError>, took: Duration, ears: &mut Ears) -> io::Result<()> {
    let bytes = encode_result(folder, result, took)?;
    let stop = stopped(ears, folder);
    tokio::pin!(stop);
    loop {
        match folders::write_result(folder, &bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => tokio::select! {
                () = &mut stop => return Err(error),
                () = tokio::time::sleep(NO_ROOM) => {}
            },
            written => return written,
        }
    }
}

/// Until TERM, or until somebody has asked for the end of the execution in this folder.
async fn stopped(ears: &mut Ears, folder: &Path) {
    let asked = folder.join(STOP);
    loop {
        tokio::select! {
            _ = ears.term.recv() => return,
            _ = ears.look.recv() => if asked.exists() { return },
        }
    }
}

fn encode_result(folder: &Path, result: Result<Finished, ProgramError>, took: Duration) -> io::Result<Vec<u8>> {
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
        Err(error @ ProgramError::NeverBegan) => (End::NotStarted(error.to_string()), Capture::default(), Capture::default()),
        Err(ProgramError::Lost(problem)) => (End::Lost(problem), Capture::default(), Capture::default()),
    };
    let ((out, out_bytes), (err, err_bytes)) = (stdout.into_parts(), stderr.into_parts());
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let mut bytes = serde_json::to_vec(&Header { id: name(folder), end, took_ms, stdout: out, stderr: err })?;
    bytes.push(b'\n');
    bytes.extend(out_bytes);
    bytes.extend(err_bytes);
    Ok(bytes)
}

fn name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.to_owned())
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
    if header.id.is_some() && header.id != name(folder) {
        return Err(io::Error::other("it is of another execution"));
    }
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

    #[tokio::test]
    async fn half_an_order_is_none() {
        let what = Invocation { program: "/bin/true".into(), args: vec![], env: vec![], cwd: "/".into(), stdin: None };
        let whole = encode(&Order { folder: "/x".into(), what, limit_ms: 5 }).unwrap();
        let twice = [&whole[..], &whole[..]].concat();
        let mut orders = &twice[..];
        for _ in 0..2 {
            assert_eq!(read_order(&mut orders).await.unwrap().limit_ms, 5);
        }
        assert!(read_order(&mut orders).await.is_none());
        for length in 0..whole.len() {
            assert!(read_order(&mut &whole[..length]).await.is_none(), "{length}");
        }
        assert!(read_order(&mut &u64::MAX.to_be_bytes()[..]).await.is_none());
    }

    #[test]
    fn a_result_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/true");
        assert!(read_result(dir.path(), program).unwrap().is_none());
        let problem = ProgramError::Lost("gone".to_owned());
        folders::write_result(dir.path(), &encode_result(dir.path(), Err(problem), Duration::from_millis(7)).unwrap()).unwrap();
        assert!(matches!(read_result(dir.path(), program).unwrap(), Some(Err(ProgramError::Lost(_)))));
        let file = dir.path().join(RESULT);
        let bytes = fs::read(&file).unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join(RESULT), &bytes).unwrap();
        assert!(read_result(other.path(), program).unwrap_err().to_string().contains("another execution"));
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_result(dir.path(), program).is_err());
    }
}

//! Signed checkpoints: Ed25519 over what the chain of the audit log was at a time, one JSON object a line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use domain::audit::Checkpoint;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The file in the data folder.
pub(crate) const FILE: &str = "audit-checkpoints.jsonl";
/// What the log says with each of them, and by what one is found there.
pub(crate) const SAID: &str = "the audit log is sealed up to here";
/// How a line of the file begins.
const BARE: &str = "{\"batch\":";

/// All of the newest stay.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Fewer than this are not worth a new file.
const WORTH: usize = 50;

/// A checkpoint and who says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedCheckpoint {
    /// What is said.
    #[serde(flatten)]
    pub(crate) checkpoint: Checkpoint,
    /// Who says it, in hex.
    pub(crate) public_key: String,
    /// Over [`Checkpoint::statement`], in hex.
    pub(crate) signature: String,
}

/// Signs. The first key signs; the others' signatures are believed too.
pub(crate) struct Signer(Vec<Ed25519KeyPair>);

/// Public keys that are believed, in hex.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trusted(Vec<String>);

impl Signer {
    /// Signs with these keys; any 32 bytes or more make one.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn new(keys: &[SecretSlice<u8>]) -> anyhow::Result<Self> {
        let pair = |key: &SecretSlice<u8>| {
            let seed = Sha256::new().chain_update(b"watchkeeper audit checkpoint\n").chain_update(key.expose_secret()).finalize();
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| anyhow::anyhow!("no Ed25519 key can be made: {error}"))
        };
        let pairs = keys.iter().map(pair).collect::<anyhow::Result<Vec<_>>>()?;
        if pairs.is_empty() { bail!("no checkpoint key") } else { Ok(Self(pairs)) }
    }

    /// Signs a checkpoint.
    pub(crate) fn sign(&self, checkpoint: Checkpoint) -> SignedCheckpoint {
        let signature = self.sign_bytes(checkpoint.statement().as_bytes());
        SignedCheckpoint { checkpoint, public_key: self.public_key(), signature }
    }

    /// Signs anything else; it must begin with a line of its own.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> String {
        hex::encode(self.0[0].sign(bytes))
    }

    /// The key that signs now, for whoever verifies.
    pub(crate) fn public_key(&self) -> String {
        hex::encode(self.0[0].public_key())
    }

    /// All of them.
    pub(crate) fn trusted(&self) -> Trusted {
        Trusted(self.0.iter().map(|pair| hex::encode(pair.public_key())).collect())
    }
}

impl Trusted {
    /// Adds keys: in hex, or the paths of files with a key in hex a line.
    ///
    /// # Errors
    /// If one is neither.
    pub(crate) fn add(&mut self, keys: &[String]) -> anyhow::Result<()> {
        for key in keys {
            if is_key(key) {
                self.0.push(key.to_ascii_lowercase());
                continue;
            }
            let text = fs::read_to_string(key).with_context(|| format!("{key} is no public key of 64 hexadecimal digits, and no file"))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                if !is_key(line) {
                    bail!("{key} holds something else than public keys of 64 hexadecimal digits");
                }
                self.0.push(line.to_ascii_lowercase());
            }
        }
        Ok(())
    }

    /// Whether nobody is believed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this key is believed and signed these bytes.
    ///
    /// # Errors
    /// Says which of both is not so.
    pub(crate) fn check(&self, public_key: &str, bytes: &[u8], signature: &str) -> Result<(), String> {
        if !self.0.iter().any(|key| key == public_key) {
            return Err(format!("it is signed by {public_key}, who is not among the trusted public keys"));
        }
        let key = hex::decode(public_key).unwrap_or_default();
        let signature = hex::decode(signature).map_err(|_| "its signature cannot be read".to_owned())?;
        UnparsedPublicKey::new(&ED25519, key).verify(bytes, &signature).map_err(|_| "its signature is wrong".to_owned())
    }

    /// The same for a checkpoint.
    ///
    /// # Errors
    /// Says why it is not believed.
    pub(crate) fn check_checkpoint(&self, signed: &SignedCheckpoint) -> Result<Checkpoint, String> {
        let statement = signed.checkpoint.statement();
        self.check(&signed.public_key, statement.as_bytes(), &signed.signature).map(|()| signed.checkpoint)
    }
}

/// The checkpoints of a file; none if there is no file. A last line that was cut by a crash is left out.
///
/// # Errors
/// If it cannot be read, or a line is none.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<SignedCheckpoint>> {
    let name = || format!("cannot read {}", file.display());
    let text = match File::open(file) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(name),
    };
    let lines = text.lines().collect::<Result<Vec<String>, _>>().with_context(name)?;
    let mut all = Vec::with_capacity(lines.len());
    for (n, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(signed) => all.push(signed),
            Err(_) if n + 1 == lines.len() => {}
            Err(error) => return Err(error).with_context(|| format!("line {} of {} is no checkpoint", n + 1, file.display())),
        }
    }
    Ok(all)
}

/// The checkpoints that a log sink kept: a file with one a line, or lines of the server's log, in either format, among whatever else stands there. A last
/// line that was cut is left out.
///
/// # Errors
/// If it cannot be read, there is none in it, or a line is half of one.
pub(crate) fn read_log(file: &Path) -> anyhow::Result<Vec<SignedCheckpoint>> {
    let name = || format!("cannot read {}", file.display());
    let mut log = BufReader::new(File::open(file).with_context(name)?);
    let (mut all, mut line, mut half) = (Vec::new(), Vec::new(), None);
    for number in 1.. {
        line.clear();
        if log.read_until(b'\n', &mut line).with_context(name)? == 0 {
            break;
        }
        if let Some(half) = half {
            bail!("line {half} of {} is no checkpoint", file.display());
        }
        let text = String::from_utf8_lossy(&line);
        let bare = text.starts_with(BARE);
        let told = bare || text.contains(SAID);
        match told.then(|| quoted(&text)).flatten() {
            Some(signed) => all.push(signed),
            None => half = bare.then_some(number),
        }
    }
    if all.is_empty() { bail!("there is no checkpoint in {}", file.display()) } else { Ok(all) }
}

/// The checkpoint in a text: its first JSON object, or what a string in that quotes, and so on, as a log in JSON does and a sink that wraps its lines.
fn quoted(text: &str) -> Option<SignedCheckpoint> {
    let object = &text[text.find('{')?..];
    let object: Value = serde_json::Deserializer::from_str(object).into_iter().next()?.ok()?;
    let inside = |object: &Value| object.as_object()?.values().filter_map(Value::as_str).find_map(quoted);
    SignedCheckpoint::deserialize(&object).ok().or_else(|| inside(&object))
}

/// Takes away the end of a last line that a crash cut, so that the next one stands alone.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn mend(file: &Path) -> anyhow::Result<()> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() {
        let open = File::options().write(true).open(file);
        open.and_then(|file| file.set_len(whole as u64)).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Adds a line, and returns when it is on disk. What a full disk took of a line before is taken away first: in front of another it would be damage.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn append(file: &Path, signed: &SignedCheckpoint) -> anyhow::Result<()> {
    let name = || format!("cannot write {}", file.display());
    let mut out = File::options().create(true).append(true).read(true).mode(0o600).open(file).with_context(name)?;
    let (length, mut last) = (out.metadata().with_context(name)?.len(), [b'\n']);
    if length > 0 {
        out.read_exact_at(&mut last, length - 1).with_context(name)?;
    }
    if last != [b'\n'] {
        mend(file)?;
    }
    out.write_all(format!("{}\n", serde_json::to_string(signed)?).as_bytes()).with_context(name)?;
    out.sync_data().with_context(name)
}

/// Lets go of what later checkpoints say as well: of days that are a week old the last one stays, and the last one before the chain was another (after a
/// restore). Gives how many went; so few that they are not worth a new file stay.
///
/// # Errors
/// If the file cannot be read or written; then all are there.
pub(crate) fn thin(file: &Path, now: Timestamp) -> anyhow::Result<usize> {
    let all = read(file)?;
    let day = |signed: &SignedCheckpoint| signed.checkpoint.at.to_zoned(TimeZone::UTC).date();
    let stays = |n: usize, signed: &SignedCheckpoint| match all.get(n + 1) {
        Some(next) => {
            now.duration_since(signed.checkpoint.at) < WEEK || day(next) != day(signed) || next.checkpoint.batch <= signed.checkpoint.batch
        }
        None => true,
    };
    let kept: Vec<&SignedCheckpoint> = all.iter().enumerate().filter(|(n, signed)| stays(*n, signed)).map(|(_, signed)| signed).collect();
    let gone = all.len() - kept.len();
    if gone < WORTH {
        return Ok(0);
    }
    let name = || format!("cannot write {}", file.display());
    let new = file.with_extension("new");
    let mut lines = Vec::new();
    for signed in kept {
        serde_json::to_writer(&mut lines, signed)?;
        lines.push(b'\n');
    }
    let mut out = File::options().create(true).write(true).truncate(true).mode(0o600).open(&new).with_context(name)?;
    out.write_all(&lines).and_then(|()| out.sync_all()).with_context(name)?;
    fs::rename(&new, file).with_context(name)?;
    // If a power cut takes the new name away, the old file is whole.
    Ok(gone)
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use domain::audit::START;
    use serde_json::json;

    use super::*;

    fn signer(byte: u8) -> Signer {
        Signer::new(&[vec![byte; 32].into(), vec![byte + 1; 32].into()]).unwrap()
    }

    fn checkpoint(batch: i64) -> Checkpoint {
        Checkpoint { batch, seq: 9, rows: 9, hash: START, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_checkpoint_is_believed_of_a_trusted_key_only_and_word_for_word() {
        let signed = signer(1).sign(checkpoint(3));
        assert_eq!(signer(1).trusted().check_checkpoint(&signed), Ok(checkpoint(3)));
        assert_eq!(signer(0).trusted().check_checkpoint(&signed), Ok(checkpoint(3)), "the key before the present one");
        assert!(signer(5).trusted().check_checkpoint(&signed).unwrap_err().contains("not among the trusted"));
        let mut changed = signed.clone();
        changed.checkpoint.rows = 8;
        assert!(signer(1).trusted().check_checkpoint(&changed).unwrap_err().contains("signature is wrong"));
        let mut trusted = Trusted::default();
        trusted.add(&[signed.public_key.to_uppercase()]).unwrap();
        assert!(trusted.check_checkpoint(&signed).is_ok() && trusted.add(&["/no/such/file".to_owned()]).is_err());
    }

    #[test]
    fn of_old_days_the_last_one_stays_and_the_end_of_each_chain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.jsonl");
        let start: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let signer = signer(1);
        // Four a day for forty days; on the tenth day a restore takes the chain back.
        let all: Vec<SignedCheckpoint> = (0..160_i64)
            .map(|n| {
                let at = start + SignedDuration::from_hours(6 * n);
                signer.sign(Checkpoint { batch: if n < 38 { n } else { n - 20 }, at, ..checkpoint(0) })
            })
            .collect();
        for one in &all {
            append(&file, one).unwrap();
        }
        let now = start + SignedDuration::from_hours(40 * 24 - 1);
        assert_eq!(thin(&file, start).unwrap(), 0, "all are new");
        let gone = thin(&file, now).unwrap();
        let kept = read(&file).unwrap();
        assert_eq!(gone + kept.len(), all.len());
        let old = all[..132].iter().enumerate().filter(|(n, _)| n % 4 == 3 || *n == 37).map(|(_, one)| one);
        assert_eq!(kept, old.chain(&all[132..]).cloned().collect::<Vec<_>>());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(thin(&file, now).unwrap(), 0);
        append(&file, &signer.sign(checkpoint(200))).unwrap();
        assert_eq!(read(&file).unwrap().len(), kept.len() + 1);
        assert_eq!(thin(&dir.path().join("none"), now).unwrap(), 0);
    }

    #[test]
    fn lines_are_appended_and_one_that_a_crash_cut_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.jsonl");
        assert_eq!(read(&file).unwrap(), []);
        append(&file, &signer(1).sign(checkpoint(1))).unwrap();
        let mut text = fs::read(&file).unwrap();
        text.extend_from_slice(br#"{"batch":2,"#);
        fs::write(&file, text).unwrap();
        assert_eq!(read(&file).unwrap().len(), 1);
        mend(&file).unwrap();
        append(&file, &signer(1).sign(checkpoint(2))).unwrap();
        // A full disk took the first half, and the server goes on.
        let mut text = fs::read(&file).unwrap();
        text.extend_from_slice(br#"{"batch":3,"seq"#);
        fs::write(&file, text).unwrap();
        for batch in [3, 4] {
            append(&file, &signer(1).sign(checkpoint(batch))).unwrap();
        }
        assert_eq!(read(&file).unwrap().iter().map(|signed| signed.checkpoint.batch).collect::<Vec<_>>(), [1, 2, 3, 4]);
        fs::write(&file, "nonsense\n{}\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn checkpoints_are_found_in_a_log_of_either_format_whatever_a_sink_put_around_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let read = |text: String| {
            fs::write(&file, text).unwrap();
            read_log(&file)
                .map(|all| all.iter().map(|signed| signed.checkpoint.batch).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        let line = |batch| serde_json::to_string(&signer(1).sign(checkpoint(batch))).unwrap();
        let logged = |batch| json!({ "level": "INFO", "message": SAID, "checkpoint": line(batch), "target": "server::audit" }).to_string();
        let text = |batch| {
            format!("2026-03-01T00:00:00Z \u{1b}[32m INFO\u{1b}[0m {SAID} \u{1b}[3mcheckpoint\u{1b}[0m\u{1b}[2m=\u{1b}[0m{}", line(batch))
        };
        let wrapped = |batch| json!({ "log": format!("{}\n", logged(batch)), "stream": "stderr" }).to_string();
        let other = r#"{"level":"INFO","message":"ready","checkpoint":"none"}"#;
        let all =
            [line(1), logged(2), other.to_owned(), text(3), wrapped(4), format!("Mar  1 00:00:00 host watchkeeper[7]: {}", logged(5))];
        assert_eq!(read(all.join("\n")).unwrap(), [1, 2, 3, 4, 5]);
        // Of a line that is about something else what it quotes is not ours.
        assert!(read(logged(1).replace(SAID, "somebody says")).unwrap_err().contains("there is no checkpoint in"));
        assert!(read(String::new()).unwrap_err().contains("there is no checkpoint in"));
        let half = format!("{}\n{}", line(1), &line(2)[..40]);
        assert_eq!(read(half.clone()).unwrap(), [1], "it was cut");
        assert!(read(format!("{half}\n{}", line(3))).unwrap_err().contains("line 2"));
        assert!(read_log(&dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }
}

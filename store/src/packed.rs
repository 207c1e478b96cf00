//! Bodies as they are kept: those of several pages are packed, because alerts of one body say much the same. That is written (twice on SQLite: to its log and
//! then to its file) and kept for days.

use std::borrow::Cow;

use bytes::Bytes;
use lz4_flex::block::{compress, decompress};

use crate::Error;

/// Smaller bodies stay as they are, in bytes: about a page of either database, which is what is saved at the least.
const WORTH: usize = 4 * 1024;
/// Larger ones are packed off the threads that serve everybody, in bytes: about a millisecond of work.
const LONG: usize = 256 * 1024;
/// A byte of LZ4's block format stands for no more than these (github.com/lz4/lz4, doc/lz4_Block_format.md): a length grows by 255 with each.
const MOST: usize = 255;

/// A body in the form in which it is kept.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) raw: Bytes,
    /// How long it was, in bytes, if it is packed.
    pub(crate) length: Option<i64>,
    /// The body itself. Whoever brought it may count the bytes that are on their way: they are until it is stored.
    _body: Bytes,
}

impl Packed {
    /// Packs a body if that is worth it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] in a process that ends.
    pub(crate) async fn new(body: Bytes) -> Result<Self, Error> {
        if body.len() <= LONG {
            return Ok(Self::now(body));
        }
        let work = tokio::task::spawn_blocking(move || Self::now(body)).await;
        work.map_err(|error| Error::Unavailable(format!("a body could not be packed: {error}")))
    }

    fn now(body: Bytes) -> Self {
        if body.len() >= WORTH {
            let packed = compress(&body);
            if let (true, Ok(length)) = (packed.len() <= body.len() / 4 * 3, i64::try_from(body.len())) {
                return Self { raw: packed.into(), length: Some(length), _body: body };
            }
        }
        Self { raw: body.clone(), length: None, _body: body }
    }
}

/// A body as it came, from the two columns in which it is kept; or why nobody can tell.
pub(crate) fn unpack(raw: &[u8], length: Option<i64>) -> Result<Cow<'_, [u8]>, String> {
    let Some(length) = length else { return Ok(Cow::Borrowed(raw)) };
    // A length that was damaged must not become a reservation of memory.
    let length = usize::try_from(length).ok().filter(|length| *length <= raw.len().saturating_mul(MOST));
    let length = length.ok_or("it says that it is longer than it can be")?;
    match decompress(raw, length) {
        Ok(body) if body.len() == length => Ok(Cow::Owned(body)),
        Ok(body) => Err(format!("it has {} bytes instead of {length}", body.len())),
        Err(error) => Err(format!("it cannot be unpacked: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alerts(count: usize) -> Vec<u8> {
        (0..count)
            .map(|n| format!(r#"{{"labels":{{"alertname":"Down","instance":"host-{n}"}},"startsAt":"2026-03-01T12:00:00Z"}},"#))
            .collect::<String>()
            .into()
    }

    /// Bytes without any pattern.
    fn noise(count: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        std::iter::repeat_with(|| random.u8(..)).take(count).collect()
    }

    #[tokio::test]
    async fn what_is_packed_comes_back_byte_for_byte() {
        for (body, packed) in
            [(alerts(10), false), (alerts(100), true), (noise(100_000), false), (alerts(20_000), true), (vec![0; 1 << 22], true)]
        {
            let kept = Packed::new(body.clone().into()).await.unwrap();
            assert_eq!((kept.length.is_some(), kept.length.unwrap_or(body.len() as i64)), (packed, body.len() as i64));
            assert!(!packed || kept.raw.len() * 4 <= body.len() * 3, "{} of {} bytes", kept.raw.len(), body.len());
            assert!(*unpack(&kept.raw, kept.length).unwrap() == body[..]);
        }
    }

    #[tokio::test]
    async fn what_was_damaged_is_refused_and_takes_no_memory() {
        let kept = Packed::new(alerts(100).into()).await.unwrap();
        let length = kept.length.unwrap();
        for wrong in [-1, 0, length - 1, length + 1, i64::MAX] {
            assert!(unpack(&kept.raw, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(unpack(&kept.raw[..kept.raw.len() / 2], Some(length)).is_err());
        assert!(unpack(&[], Some(length)).is_err());
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..2_000 {
            let mut raw = kept.raw.to_vec();
            let at = random.usize(..raw.len());
            raw[at] ^= random.u8(1..);
            // It may say something else then, of the same length; whoever reads it finds out.
            if let Ok(body) = unpack(&raw, Some(length)) {
                assert_eq!(body.len() as i64, length);
            }
        }
    }
}

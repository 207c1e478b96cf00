//! Reads request bodies within bounds: size, time, and the bytes of all requests together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::ApiError;

/// A bound on the body bytes that are held at once.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

/// A body with its share of the budget. The share goes back when the last clone of the bytes is gone, wherever they went: a request that
/// gave up waiting does not make room for another while its body still waits to be stored.
struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bounds of one body.
pub(crate) struct Bounds<'a> {
    /// Bytes.
    pub(crate) limit: usize,
    /// From the first byte to the last.
    pub(crate) within: Duration,
    /// Shared with whom.
    pub(crate) budget: &'a Budget,
    /// Whether to take the sender's word for the size and reserve it. Who has not proved anything pays by what has arrived.
    pub(crate) proven: bool,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has a `Content-Encoding`: it could grow without bound, and no sender of ours needs one.
    Encoded,
    /// Larger than the limit, in bytes.
    TooLarge(usize),
    /// The budget is spent.
    NoRoom,
    /// It took too long.
    Slow,
    /// The connection broke, or the framing is wrong.
    Broken,
}

/// Refused bodies that are read to their end at the same time, so that their senders see the answer instead of a broken connection.
static DRAINS: Semaphore = Semaphore::const_new(64);

impl Budget {
    /// At most `bytes` at once.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Unread> {
        let bytes = u32::try_from(bytes).map_err(|_| Unread::NoRoom)?;
        self.0.clone().try_acquire_many_owned(bytes).map_err(|_| Unread::NoRoom)
    }
}

/// Reads a body. A refused one is drained in the background, within bounds.
pub(crate) async fn read(headers: &HeaderMap, body: Body, bounds: &Bounds<'_>) -> Result<Bytes, Unread> {
    let mut stream = body.into_data_stream();
    let read = collect(headers, &mut stream, bounds);
    let result = timeout(bounds.within, read).await.unwrap_or(Err(Unread::Slow));
    if matches!(result, Err(Unread::Encoded | Unread::TooLarge(_) | Unread::NoRoom)) && bounds.proven {
        drain(headers, stream, 2 * bounds.limit, bounds.within);
    }
    result
}

/// Reads at most `bytes` of a body that nobody wants, so that a sender in the middle of writing sees the answer.
pub(crate) fn discard(headers: &HeaderMap, body: Body, bytes: usize) {
    drain(headers, body.into_data_stream(), bytes, Duration::from_secs(1));
}

async fn collect(headers: &HeaderMap, stream: &mut BodyDataStream, bounds: &Bounds<'_>) -> Result<Bytes, Unread> {
    let plain = |value: &header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(Unread::Encoded);
    }
    let announced = announced(headers);
    if announced.is_some_and(|n| n > bounds.limit) {
        return Err(Unread::TooLarge(bounds.limit));
    }
    let reserve = announced.filter(|_| bounds.proven).unwrap_or(0);
    let mut share = bounds.budget.take(reserve)?;
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        let length = whole.len() + chunk.len();
        if length > bounds.limit {
            return Err(Unread::TooLarge(bounds.limit));
        }
        if let Some(more) = length.checked_sub(share.num_permits()).filter(|more| *more > 0) {
            share.merge(bounds.budget.take(more)?);
        }
        if whole.is_empty() && announced == Some(chunk.len()) {
            return Ok(Bytes::from_owner(Held { bytes: chunk, _share: share }));
        }
        if whole.is_empty() {
            whole.reserve(reserve.max(chunk.len()));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Bytes::from_owner(Held { bytes: whole.freeze(), _share: share }))
}

fn drain(headers: &HeaderMap, mut stream: BodyDataStream, bytes: usize, within: Duration) {
    // Who waits for `100 Continue` has sent nothing yet, and reading would invite it.
    let waits = headers.contains_key(header::EXPECT);
    let hopeless = announced(headers).is_some_and(|n| n > bytes);
    let Ok(permit) = DRAINS.try_acquire() else { return };
    if waits || hopeless {
        return;
    }
    tokio::spawn(async move {
        let _permit = permit;
        let mut left = bytes;
        let swallow = async {
            while let Some(Ok(chunk)) = stream.next().await {
                let Some(rest) = left.checked_sub(chunk.len()) else { return };
                left = rest;
            }
        };
        // A sender that is slower than this sees a broken connection.
        let _ = timeout(within, swallow).await;
    });
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Unread {
    /// A stable word for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Encoded => "encoded",
            Self::TooLarge(_) => "too_large",
            Self::NoRoom => "no_room",
            Self::Slow => "slow",
            Self::Broken => "broken",
        }
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Encoded => Self::Unsupported("Send the body as it is, without Content-Encoding."),
            Unread::TooLarge(limit) => Self::TooLarge(limit),
            Unread::NoRoom => Self::Busy { code: "overloaded", detail: "Too many bytes in flight: send it again.".to_owned() },
            // 408 would be final to Alertmanager; a slow network is not.
            Unread::Slow => Self::Busy { code: "body_too_slow", detail: "The body took too long to arrive: send it again.".to_owned() },
            Unread::Broken => Self::Invalid("The body broke off.".to_owned()),
        }
    }
}

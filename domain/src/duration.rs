//! Durations as Prometheus and Alertmanager write them: `30s`, `5m`, `1h30m`, `250ms`, `7d`, `2w`.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time with millisecond resolution, between zero and [`Dur::MAX`].
///
/// Text form: Prometheus' (`prometheus/common/model/time.go`): units `y w d h m s ms`, largest first, each at most once, no sign,
/// no fraction; a bare `0` is allowed. `d` is 24 h, `w` 7 d and `y` 365 d: calendars and zones play no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dur(Duration);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: {reason}; write it like 30s, 5m, 1h30m, 250ms, 7d or 2w")]
pub struct DurError {
    text: String,
    reason: &'static str,
}

impl Dur {
    /// No time at all.
    pub const ZERO: Dur = Dur(Duration::ZERO);
    /// The longest span accepted, 100 years of 365 days: far from the overflow of any clock or database column.
    pub const MAX: Dur = Dur(Duration::from_secs(100 * 365 * 86_400));

    /// This many milliseconds, at most [`Dur::MAX`].
    pub const fn from_millis(n: u64) -> Dur {
        Dur::clamped(Duration::from_millis(n))
    }

    /// This many seconds, at most [`Dur::MAX`].
    pub const fn from_secs(n: u64) -> Dur {
        Dur::clamped(Duration::from_secs(n))
    }

    /// This many minutes, at most [`Dur::MAX`].
    pub const fn from_mins(n: u64) -> Dur {
        Dur::from_secs(n.saturating_mul(60))
    }

    /// This many hours, at most [`Dur::MAX`].
    pub const fn from_hours(n: u64) -> Dur {
        Dur::from_secs(n.saturating_mul(3600))
    }

    /// From the standard type: parts below a millisecond are dropped, [`Dur::MAX`] is the ceiling.
    pub const fn from_std(d: Duration) -> Dur {
        let d = Dur::clamped(d).0;
        Dur(Duration::new(d.as_secs(), d.subsec_millis() * 1_000_000))
    }

    /// The time from `earlier` to `later`; zero when the clock went backwards.
    pub fn between(earlier: Timestamp, later: Timestamp) -> Dur {
        Dur::from_std(Duration::try_from(later.duration_since(earlier)).unwrap_or_default())
    }

    /// The standard library's form.
    pub const fn as_std(self) -> Duration {
        self.0
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0.as_secs() * 1000 + self.0.subsec_millis() as u64
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Whether this is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Jiff's signed form, for arithmetic with its types.
    pub const fn as_signed(self) -> SignedDuration {
        SignedDuration::new(self.0.as_secs() as i64, self.0.subsec_nanos() as i32)
    }

    /// The instant this long after `t`, or the last representable one.
    pub fn after(self, t: Timestamp) -> Timestamp {
        t.checked_add(self.as_signed()).unwrap_or(Timestamp::MAX)
    }

    /// The instant this long before `t`, or the first representable one.
    pub fn before(self, t: Timestamp) -> Timestamp {
        t.checked_sub(self.as_signed()).unwrap_or(Timestamp::MIN)
    }

    /// This span `n` times, at most [`Dur::MAX`]: for back-off and repeat intervals.
    pub fn times(self, n: u32) -> Dur {
        Dur::from_std(self.0.saturating_mul(n))
    }

    /// For people, the two largest units: `2 min`, `1 h 30 min`, `3 d 4 h`, `250 ms`. Smaller units are dropped.
    pub fn human(self) -> String {
        const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
        let total = self.as_millis();
        let Some(first) = UNITS.iter().position(|(size, _)| total >= *size) else {
            return "0 s".to_owned();
        };
        let (size, unit) = UNITS[first];
        let mut out = format!("{} {unit}", total / size);
        // Milliseconds beside seconds are noise in a chat line.
        if let Some((next, unit)) = UNITS.get(first + 1).filter(|(next, _)| *next > 1) {
            let rest = total % size / next;
            if rest > 0 {
                out.push_str(&format!(" {rest} {unit}"));
            }
        }
        out
    }

    const fn clamped(d: Duration) -> Dur {
        if d.as_secs() >= Dur::MAX.0.as_secs() { Dur::MAX } else { Dur(d) }
    }
}

/// Largest first, in milliseconds: the order in which the text form must use them.
const UNITS: [(&str, u64); 7] =
    [("y", 365 * 86_400_000), ("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Dur {
    type Err = DurError;

    fn from_str(text: &str) -> Result<Dur, DurError> {
        parse(text).map_err(|reason| DurError { text: text.chars().take(40).collect(), reason })
    }
}

fn parse(text: &str) -> Result<Dur, &'static str> {
    if text == "0" {
        return Ok(Dur::ZERO);
    }
    if text.is_empty() {
        return Err("it is empty");
    }
    let (mut rest, mut next_unit, mut total) = (text, 0, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err("a whole number was expected");
        }
        let n: u64 = rest[..digits].parse().map_err(|_| "the number is too large")?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        if letters == 0 {
            return Err("a number has no unit (y, w, d, h, m, s or ms)");
        }
        let at = UNITS.iter().position(|(name, _)| *name == &rest[..letters]).ok_or("a unit is not one of y, w, d, h, m, s, ms")?;
        if at < next_unit {
            return Err("units must go from large to small, each once");
        }
        next_unit = at + 1;
        rest = &rest[letters..];
        total = n.checked_mul(UNITS[at].1).and_then(|ms| total.checked_add(ms)).ok_or("it is too long")?;
    }
    if total > Dur::MAX.as_millis() {
        return Err("it is longer than 100 years");
    }
    Ok(Dur::from_millis(total))
}

impl fmt::Display for Dur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in UNITS {
            // As Prometheus: years and weeks only where nothing would be left, `8d` rather than `1w1d`.
            let whole_only = matches!(unit, "y" | "w");
            if rest < size || (whole_only && !rest.is_multiple_of(size)) {
                continue;
            }
            write!(f, "{}{unit}", rest / size)?;
            rest %= size;
        }
        Ok(())
    }
}

impl From<Dur> for Duration {
    fn from(d: Dur) -> Duration {
        d.0
    }
}

impl Add<Dur> for Timestamp {
    type Output = Timestamp;

    /// Saturates, as [`Dur::after`].
    fn add(self, d: Dur) -> Timestamp {
        d.after(self)
    }
}

impl Sub<Dur> for Timestamp {
    type Output = Timestamp;

    /// Saturates, as [`Dur::before`].
    fn sub(self, d: Dur) -> Timestamp {
        d.before(self)
    }
}

impl Serialize for Dur {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dur {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Dur, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Dur {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A duration: whole numbers with the units y, w, d, h, m, s, ms, from large to small.",
            "pattern": "^(0|([0-9]+(y|w|d|h|ms|m|s))+)$",
            "examples": ["30s", "5m", "1h30m"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dur(text: &str) -> Dur {
        text.parse().unwrap()
    }

    #[test]
    fn reads_what_prometheus_reads() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("1y", 31_536_000_000),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(dur(text).as_millis(), ms, "{text}");
        }
    }

    #[test]
    fn refuses_everything_else_and_says_why() {
        for text in
            ["", " 5m", "5", "-5m", "5m ", "1.5h", "m", "5M", "5min", "1m1h", "1m1m", "99999999999999999999s", "200y", "५m", "1h 30m"]
        {
            let error = text.parse::<Dur>().unwrap_err().to_string();
            assert!(error.contains("write it like"), "{text}: {error}");
        }
        assert!("1m1h".parse::<Dur>().unwrap_err().to_string().contains("large to small"));
    }

    #[test]
    fn speaks_to_people() {
        for (text, human) in [
            ("0s", "0 s"),
            ("250ms", "250 ms"),
            ("2m", "2 min"),
            ("1h30m", "1 h 30 min"),
            ("1h30s", "1 h"),
            ("3d4h5m", "3 d 4 h"),
            ("1s5ms", "1 s"),
            ("2w", "14 d"),
        ] {
            assert_eq!(dur(text).human(), human);
        }
    }

    #[test]
    fn timestamps_move_and_saturate() {
        let t: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        assert_eq!((t + dur("1h30m")).to_string(), "2026-11-22T11:30:00Z");
        assert_eq!(t - dur("1d"), dur("1d").before(t));
        assert_eq!(Timestamp::MAX + dur("1s"), Timestamp::MAX);
        assert_eq!(Timestamp::MIN - dur("1s"), Timestamp::MIN);
        assert_eq!(Dur::between(t, t + dur("5m")), dur("5m"));
        assert_eq!(Dur::between(t + dur("5m"), t), Dur::ZERO);
    }

    #[test]
    fn travels_as_a_string() {
        assert_eq!(serde_json::to_string(&dur("90m")).unwrap(), r#""1h30m""#);
        assert_eq!(serde_json::from_str::<Dur>(r#""1h30m""#).unwrap(), dur("90m"));
        assert!(serde_json::from_str::<Dur>("30").is_err());
        assert_eq!(dur("1w1d").to_string(), "8d");
        assert!(schemars::schema_for!(Dur).as_value()["pattern"].is_string());
    }

    proptest! {
        #[test]
        fn text_round_trips(ms in 0..=Dur::MAX.as_millis()) {
            let d = Dur::from_millis(ms);
            prop_assert_eq!(d.to_string().parse::<Dur>().unwrap(), d);
        }

        #[test]
        fn order_is_that_of_the_length(a in 0u64..10_000_000, b in 0u64..10_000_000) {
            prop_assert_eq!(Dur::from_millis(a).cmp(&Dur::from_millis(b)), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<Dur>();
        }
    }
}

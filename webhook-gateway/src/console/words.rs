//! Times and states in words.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

/// A time as people say it, exact on hover; the script shows it in the reader's own zone.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let exact = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let text = relative(now.duration_since(at));
    html! { time datetime=(exact) title=(exact) { (text) } }
}

/// A clock time, for timelines.
pub(super) fn clock(at: Timestamp) -> Markup {
    let exact = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(exact) title=(exact) { (at.strftime("%H:%M:%S").to_string()) " UTC" } }
}

fn relative(age: SignedDuration) -> String {
    let future = age.is_negative();
    let seconds = age.abs().as_secs();
    let text = match seconds {
        0..=9 => return "now".to_owned(),
        10..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    };
    if future { format!("in {text}") } else { format!("{text} ago") }
}

/// A state as a badge.
pub(super) fn badge(state: &str) -> Markup {
    html! { span class={ "badge " (state) } { (state.replace('_', " ")) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, text) in
            [(3, "now"), (30, "30 s ago"), (600, "10 min ago"), (7200, "2 h ago"), (200_000, "2 d ago"), (-600, "in 10 min")]
        {
            assert_eq!(relative(SignedDuration::from_secs(seconds)), text);
        }
    }
}

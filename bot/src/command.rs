//! The grammar of the slash commands, the same on every platform: Slack sends words, Discord's typed options are put into words.

use serde_json::{Map, Value};

/// A slash command with its verbs: the help text, the nearest verb and Discord's option lists all come from here.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) verbs: &'static [Sub],
}

/// One verb of a command.
pub(crate) struct Sub {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) args: &'static [Arg],
    pub(crate) example: &'static str,
}

/// An argument of a verb.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arg {
    /// An incident's number, required.
    Number,
    /// The rest of the line, required.
    Text,
    /// A runbook's name, required.
    Runbook,
    /// An incident's number, optional.
    For,
    /// `key=value` words, optional.
    Params,
    /// The rest of the line, optional.
    Reason,
}

/// All commands.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "incident",
        about: "See and handle incidents",
        verbs: &[
            sub("list", "The open incidents", &[], "list"),
            sub("show", "One incident", &[Arg::Number], "show 142"),
            sub("ack", "Take an incident", &[Arg::Number], "ack 142"),
            sub("unack", "Give an incident back", &[Arg::Number], "unack 142"),
            sub("resolve", "Call an incident resolved", &[Arg::Number], "resolve 142"),
            sub("reopen", "Open an incident again", &[Arg::Number], "reopen 142"),
            sub("close", "Close an incident for good", &[Arg::Number], "close 142"),
            sub("note", "Write on an incident's timeline", &[Arg::Number, Arg::Text], "note 142 the new disk arrives at noon"),
        ],
    },
    Command {
        name: "runbook",
        about: "See runbooks and ask for a run",
        verbs: &[
            sub("list", "The runbooks there are", &[], "list"),
            sub("run", "Ask for a run", &[Arg::Runbook, Arg::For, Arg::Params], "run restart-service #142 target=api"),
        ],
    },
    Command {
        name: "automation",
        about: "Stop and restart all automation",
        verbs: &[
            sub("pause", "Start no remedy until resumed", &[Arg::Reason], "pause migrating the database"),
            sub("resume", "Let remedies start again", &[Arg::Reason], "resume"),
        ],
    },
];

const fn sub(name: &'static str, about: &'static str, args: &'static [Arg], example: &'static str) -> Sub {
    Sub { name, about, args, example }
}

/// What a person typed.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    /// Help, or what was wrong: to be told at once.
    Say(String),
    /// The open incidents.
    Incidents,
    /// One of them.
    Incident(i64),
    /// The runbooks.
    Runbooks,
    /// Something to record.
    Do(Wish),
}

/// An act whose incident is still a number.
#[derive(Debug, PartialEq)]
pub(crate) enum Wish {
    OnIncident { number: i64, deed: Deed },
    Run { runbook: String, incident: Option<i64>, params: Map<String, Value> },
    Pause { paused: bool, reason: String },
}

/// What to do with an incident.
#[derive(Debug, PartialEq)]
pub(crate) enum Deed {
    Acknowledge,
    Unacknowledge,
    Resolve,
    Reopen,
    Close,
    Note(String),
}

/// Reads a command's words; `command` with or without its slash.
pub(crate) fn parse(command: &str, text: &str) -> Asked {
    let name = command.trim_start_matches('/');
    let Some(command) = COMMANDS.iter().find(|known| known.name == name) else {
        return Asked::Say(format!("Watchkeeper has no command /{name}. It has {}.", commands()));
    };
    let (verb, rest) = first(text);
    let verb = verb.to_ascii_lowercase();
    if verb.is_empty() || verb == "help" {
        return Asked::Say(help(command));
    }
    let Some(sub) = command.verbs.iter().find(|sub| sub.name == verb) else {
        return Asked::Say(unknown(command, &verb));
    };
    read(command, sub, rest).unwrap_or_else(|missing| {
        Asked::Say(format!("/{} {} {missing}. For example: /{} {}", command.name, sub.name, command.name, sub.example))
    })
}

fn read(command: &Command, sub: &Sub, rest: &str) -> Result<Asked, &'static str> {
    let on = |deed| Ok(Asked::Do(Wish::OnIncident { number: number(first(rest).0)?, deed }));
    match (command.name, sub.name) {
        ("incident", "list") => Ok(Asked::Incidents),
        ("incident", "show") => Ok(Asked::Incident(number(first(rest).0)?)),
        ("incident", "ack") => on(Deed::Acknowledge),
        ("incident", "unack") => on(Deed::Unacknowledge),
        ("incident", "resolve") => on(Deed::Resolve),
        ("incident", "reopen") => on(Deed::Reopen),
        ("incident", "close") => on(Deed::Close),
        ("incident", _) => match first(rest).1 {
            "" => Err("needs a number and a text"),
            text => on(Deed::Note(text.to_owned())),
        },
        ("runbook", "list") => Ok(Asked::Runbooks),
        ("runbook", _) => run(rest),
        (_, verb) => Ok(Asked::Do(Wish::Pause { paused: verb == "pause", reason: rest.trim().to_owned() })),
    }
}

fn run(rest: &str) -> Result<Asked, &'static str> {
    let mut words = words(rest).into_iter();
    let runbook = words.next().ok_or("needs the name of a runbook")?;
    let (mut incident, mut params) = (None, Map::new());
    for word in words {
        match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => drop(params.insert(key.to_owned(), Value::String(value.to_owned()))),
            _ if word.starts_with('#') => incident = Some(number(&word)?),
            _ => return Err("takes only #NUMBER and key=value after the name"),
        }
    }
    Ok(Asked::Do(Wish::Run { runbook, incident, params }))
}

fn number(word: &str) -> Result<i64, &'static str> {
    let digits = word.strip_prefix('#').unwrap_or(word);
    digits.parse().ok().filter(|number| *number > 0).ok_or("needs the number of an incident")
}

fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// Splits at white space outside double quotes, which are taken away.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut begun) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            c if c.is_whitespace() && !quoted => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

fn help(command: &Command) -> String {
    let lines = command.verbs.iter().map(|sub| format!("/{} {}: {}", command.name, sub.example, sub.about));
    format!("{}:\n{}", command.about, lines.collect::<Vec<_>>().join("\n"))
}

fn unknown(command: &Command, verb: &str) -> String {
    let near = command.verbs.iter().map(|sub| (strsim::damerau_levenshtein(sub.name, verb), sub)).min_by_key(|(far, _)| *far);
    let hint = match near {
        Some((far, sub)) if far <= 2 => format!("Did you mean /{} {}?\n", command.name, sub.example),
        _ => String::new(),
    };
    format!("/{} has no verb {verb:?}. {hint}{}", command.name, help(command))
}

fn commands() -> String {
    COMMANDS.iter().map(|command| format!("/{}", command.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(command: &str, text: &str) -> String {
        match parse(command, text) {
            Asked::Say(text) => text,
            other => panic!("expected an answer, not {other:?}"),
        }
    }

    #[test]
    fn every_example_is_understood() {
        for command in COMMANDS {
            for sub in command.verbs {
                let asked = parse(command.name, sub.example);
                assert!(!matches!(asked, Asked::Say(_)), "/{} {}: {asked:?}", command.name, sub.example);
            }
        }
    }

    #[test]
    fn reads_numbers_texts_and_parameters() {
        let note = Wish::OnIncident { number: 142, deed: Deed::Note("two  words".to_owned()) };
        assert_eq!(parse("/incident", "  NOTE #142 two  words "), Asked::Do(note));
        let Value::Object(params) = json!({"target": "api", "why": "a b", "sum": "1=1"}) else { unreachable!() };
        let run = Wish::Run { runbook: "restart".to_owned(), incident: Some(7), params };
        assert_eq!(parse("runbook", r#"run restart target=api why="a b" #7 sum=1=1"#), Asked::Do(run));
        let pause = Wish::Pause { paused: true, reason: "db move".to_owned() };
        assert_eq!(parse("automation", "pause db move"), Asked::Do(pause));
    }

    #[test]
    fn mistakes_are_answered_with_an_example() {
        insta::assert_snapshot!(said("incident", "ack"), @"/incident ack needs the number of an incident. For example: /incident ack 142");
        insta::assert_snapshot!(said("incident", "note 142"), @"/incident note needs a number and a text. For example: /incident note 142 the new disk arrives at noon");
        insta::assert_snapshot!(said("runbook", "run x y"), @"/runbook run takes only #NUMBER and key=value after the name. For example: /runbook run restart-service #142 target=api");
        insta::assert_snapshot!(said("automation", "puase"), @r#"
        /automation has no verb "puase". Did you mean /automation pause migrating the database?
        Stop and restart all automation:
        /automation pause migrating the database: Start no remedy until resumed
        /automation resume: Let remedies start again
        "#);
        insta::assert_snapshot!(said("automation", ""), @"
        Stop and restart all automation:
        /automation pause migrating the database: Start no remedy until resumed
        /automation resume: Let remedies start again
        ");
        insta::assert_snapshot!(said("nosuch", "x"), @"Watchkeeper has no command /nosuch. It has /incident, /runbook, /automation.");
        assert!(said("incident", "ack -5").contains("needs the number"));
        assert!(!said("incident", "frobnicate 5").contains("Did you mean"));
    }
}

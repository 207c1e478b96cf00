//! What the tests of both platforms share: the rest of Watchkeeper as an edge sees it, cards, and what an attacker would write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::act::{Act, ActOutcome};
use domain::button::ButtonKeys;
use domain::card::{ApprovalCard, Button, ButtonKind, ButtonStyle, Card, CardAlert};
use domain::event::{Delivery, Payload};
use domain::id::{ApprovalId, IncidentId};
use domain::inbox::{Accepted, Choice, HttpInbound, HttpRequest, Inbox, InboxError, Lookup};
use domain::incident::IncidentState;
use jiff::Timestamp;
use secrecy::SecretSlice;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// An inbox in memory, which can be told to fail or to hang.
#[derive(Default)]
pub(crate) struct Memory {
    heard: Mutex<Vec<Delivery>>,
    pub(crate) broken: Mutex<Option<InboxError>>,
    pub(crate) hangs: Mutex<bool>,
}

impl Memory {
    /// The acts stored so far, each once.
    pub(crate) fn acts(&self) -> Vec<Act> {
        let heard = self.heard.lock().unwrap();
        let mut keys = Vec::new();
        let events = heard.iter().flat_map(|delivery| &delivery.events);
        let fresh = events.filter(|event| {
            !keys.contains(&event.key) && {
                keys.push(event.key);
                true
            }
        });
        let act = |payload: &Payload| match payload {
            Payload::Act(act) => (**act).clone(),
            other => panic!("chat stores acts only, not {other:?}"),
        };
        fresh.map(|event| act(&event.payload)).collect()
    }

    /// The one act stored.
    pub(crate) fn act(&self) -> Act {
        let acts = self.acts();
        assert_eq!(acts.len(), 1, "{acts:#?}");
        acts.into_iter().next().unwrap()
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.heard.lock().unwrap().clone()
    }
}

#[async_trait]
impl Inbox for Memory {
    async fn accept(&self, delivery: Delivery) -> Result<Accepted, InboxError> {
        let (broken, hangs) = (self.broken.lock().unwrap().clone(), *self.hangs.lock().unwrap());
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(error) = broken {
            return Err(error);
        }
        self.heard.lock().unwrap().push(delivery);
        Ok(Accepted { seqs: vec![1], repeats: Some(0) })
    }

    async fn outcome(&self, _seq: i64, _wait: Duration) -> Result<Option<ActOutcome>, InboxError> {
        Ok(None)
    }
}

/// Serves a platform's routes over HTTP on a loopback port, as the gateway would, and returns the address without a path.
pub(crate) async fn serve(inbound: Arc<dyn HttpInbound>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(exchange(inbound.clone(), stream));
        }
    });
    address
}

/// One request and its answer on one connection.
async fn exchange(inbound: Arc<dyn HttpInbound>, stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) < 3 {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let header = |line: &String| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let headers: Vec<(String, String)> = lines.iter().skip(1).filter_map(header).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let answer = inbound.handle(HttpRequest { path, headers, body: body.into() }).await;
    let (status, kind, length) = (answer.status, answer.content_type, answer.body.len());
    let head = format!("HTTP/1.1 {status} x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &answer.body].concat()).await.unwrap();
}

/// One open incident, #142, and two runbooks.
pub(crate) struct Known;

#[async_trait]
impl Lookup for Known {
    async fn incidents(&self, prefix: &str, limit: usize) -> Result<Vec<Choice>, InboxError> {
        let all = [("#142 Service <!channel> down", "142"), ("#7 Disk filling", "7")];
        let found = all.into_iter().filter(|(_, value)| value.starts_with(prefix)).take(limit);
        Ok(found.map(|(label, value)| Choice { label: label.to_owned(), value: value.to_owned() }).collect())
    }

    async fn incident_id(&self, number: i64) -> Result<Option<IncidentId>, InboxError> {
        Ok([142, 7, 3].contains(&number).then(incident))
    }

    fn runbooks(&self, prefix: &str, limit: usize) -> Vec<Choice> {
        let found = ["restart-service", "clear-cache"].into_iter().filter(|name| name.starts_with(prefix)).take(limit);
        found.map(|name| Choice { label: name.to_owned(), value: name.to_owned() }).collect()
    }
}

pub(crate) fn incident() -> IncidentId {
    IncidentId(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0142))
}

pub(crate) fn approval() -> ApprovalId {
    ApprovalId(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0a11))
}

/// A button as the handlers make it.
pub(crate) fn button(kind: ButtonKind, style: ButtonStyle, channel: &str) -> Button {
    let keys = ButtonKeys::new(vec![SecretSlice::from(vec![7; 32])]).unwrap();
    let object = if matches!(kind, ButtonKind::Approve | ButtonKind::Deny) { approval().0 } else { incident().0 };
    let label = format!("{kind:?}");
    Button { kind, label, style, token: keys.sign(kind, object, "test", channel), confirm: None }
}

/// A card with everything on it, in a state.
pub(crate) fn card(state: IncidentState) -> Card {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let plain = |kind| button(kind, ButtonStyle::Plain, "C1");
    let pending = state == IncidentState::Acknowledged;
    let mut buttons = match state {
        IncidentState::Open => {
            vec![button(ButtonKind::Acknowledge, ButtonStyle::Primary, "C1"), plain(ButtonKind::Resolve), plain(ButtonKind::Run)]
        }
        IncidentState::Acknowledged => vec![
            button(ButtonKind::Approve, ButtonStyle::Primary, "C1"),
            button(ButtonKind::Deny, ButtonStyle::Danger, "C1"),
            plain(ButtonKind::Unacknowledge),
            plain(ButtonKind::Resolve),
        ],
        IncidentState::Mitigated => vec![plain(ButtonKind::Resolve)],
        IncidentState::Resolved => vec![plain(ButtonKind::Reopen)],
        IncidentState::Closed => Vec::new(),
    };
    if pending {
        buttons[0].confirm = Some("Really run restart-service? It destroys something for good.".to_owned());
    }
    Card {
        incident: incident(),
        number: 142,
        version: 3,
        title: "ServiceDown api".to_owned(),
        state,
        severity: "P1".to_owned(),
        severity_rank: 0,
        summary: "The api does not answer since 10:02.\nUsers see errors.".to_owned(),
        fields: vec![("Service".to_owned(), "api".to_owned()), ("Environment".to_owned(), "prod".to_owned())],
        alerts: vec![
            CardAlert { active: true, text: "ServiceDown api-1".to_owned(), since: at("2026-11-22T10:02:00Z") },
            CardAlert { active: false, text: "ServiceDown api-2".to_owned(), since: at("2026-11-22T10:05:00Z") },
        ],
        alerts_more: 3,
        automation: vec!["restart-service waits for approval".to_owned()],
        approval: (state != IncidentState::Open).then(|| ApprovalCard {
            id: approval(),
            runbook: "restart-service".to_owned(),
            requester: "automation".to_owned(),
            steps: vec![
                "1. service.restart on api (compose) {\"signal\":\"TERM\"}".to_owned(),
                "then verify: http.check within 2m".to_owned(),
            ],
            risk: "disruptive".to_owned(),
            digest: "3f9a6c2d10be".to_owned(),
            status: if pending { "0/1 approved" } else { "approved by ann" }.to_owned(),
            roles: vec!["sre".to_owned()],
            expires_at: pending.then(|| at("2026-11-22T10:20:00Z")),
        }),
        buttons,
        links: vec![("Runbook".to_owned(), "https://wiki.example/restart".to_owned())],
        opened_at: at("2026-11-22T10:02:30Z"),
        updated_at: at("2026-11-22T10:06:00Z"),
    }
}

/// All states, for a snapshot of each.
pub(crate) const STATES: [IncidentState; 5] =
    [IncidentState::Open, IncidentState::Acknowledged, IncidentState::Mitigated, IncidentState::Resolved, IncidentState::Closed];

/// The same text everywhere on a card where others may write.
pub(crate) fn filled_with(text: &str) -> Card {
    let mut card = card(IncidentState::Acknowledged);
    let text = || text.to_owned();
    (card.title, card.severity, card.summary) = (text(), text(), text());
    card.fields = vec![(text(), text())];
    card.alerts.iter_mut().for_each(|alert| alert.text = text());
    card.automation = vec![text()];
    if let Some(asked) = &mut card.approval {
        (asked.runbook, asked.requester, asked.risk, asked.digest, asked.status) = (text(), text(), text(), text(), text());
        (asked.steps, asked.roles) = (vec![text(); 2], vec![text()]);
    }
    card.buttons.iter_mut().for_each(|button| (button.label, button.confirm) = (text(), Some(text())));
    card.links = vec![(text(), "https://wiki.example/restart".to_owned()), ("x".to_owned(), text())];
    card
}

/// More than a hundred label values that somebody with bad intent would send.
pub(crate) fn hostile() -> Vec<String> {
    let acts = [
        // mentions
        "<!channel>",
        "<!here>",
        "<!everyone>",
        "<!subteam^S012345>",
        "<@U0ANN0001>",
        "<@123456789012345678>",
        "<@!123>",
        "<@&42>",
        "<#C0OPS0001>",
        "<#123>",
        "@everyone",
        "@here",
        "@channel",
        "#ops",
        "&lt;!channel&gt;",
        "&amp;lt;!here&amp;gt;",
        "<!channel",
        "!channel>",
        "<<!channel>>",
        "<!channel|here>",
        "<\u{200b}!channel>",
        "<!ch\u{200b}annel>",
        "\\<@123>",
        "\\\\<@123>",
        "\\@everyone",
        "@\u{200b}everyone",
        // links
        "https://evil.example/x",
        "http://evil.example",
        "www.evil.example",
        "<https://evil.example|click>",
        "<https://evil.example>",
        "[click](https://evil.example)",
        "[click](<https://evil.example>)",
        "[a]\n(https://evil.example)",
        "HTTPS://EVIL.EXAMPLE",
        "mailto:a@b.example",
        "<mailto:a@b.example|mail>",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://evil.example/]()",
        "[x][y]",
        "![img](https://evil.example/i.png)",
        "\\[click](https://evil.example)",
        "tel:+4912345",
        "discord://x",
        "slack://open",
        // dates, emoji and other tokens
        "<!date^0^{date_long}^https://evil.example|x>",
        "<t:0:R>",
        "<:evil:123>",
        "<a:evil:123>",
        "</ban:123>",
        "<id:home>",
        ":boom:",
        ":a:b:",
        "::",
        ":+1:",
        // markup
        "*bold*",
        "_it_",
        "~gone~",
        "**bold**",
        "__under__",
        "~~gone~~",
        "||secret||",
        "`code`",
        "```block```",
        "````",
        "``",
        "```\n@everyone\n```",
        "> quote",
        ">>> quote",
        "# big",
        "## big",
        "-# small",
        "- item",
        "* item",
        "1. item",
        "***x***",
        "_*~`",
        "\\",
        "\\*",
        "\\\\",
        "\\n",
        "*",
        "_",
        "`",
        "~",
        "|",
        "||",
        "a*b*c",
        "snake_case_name",
        // structure, encodings, control
        "\"}],\"blocks\":[]",
        "{{ 7*7 }}",
        "${7*7}",
        "%0a<!here>",
        "\u{1b}[31mred",
        "a\0b",
        "a\nb",
        "a\r\nb\rc",
        "\u{202e}gpj.exe",
        "\u{2066}x\u{2069}",
        "\u{feff}x",
        "\u{ad}",
        "\u{e0041}\u{e007f}",
        "👩\u{200d}💻",
        "\u{10ffff}",
        "<script>alert(1)</script>",
        "&lt;b&gt;",
        "&amp;",
        "&",
        "<",
        ">",
        "<>",
        "--help",
        "; rm -rf /",
        "$(reboot)",
        "'; DROP TABLE x;--",
        // emptiness
        "",
        " ",
        "\u{200b}",
        "\n",
        "null",
    ];
    let mut all: Vec<String> = acts.map(str::to_owned).into();
    all.extend([
        "x".repeat(100_000),
        "<!channel>".repeat(2_000),
        "@everyone ".repeat(2_000),
        "`".repeat(5_000),
        "&".repeat(5_000),
        "\n".repeat(5_000),
        "日".repeat(9_000),
    ]);
    all
}

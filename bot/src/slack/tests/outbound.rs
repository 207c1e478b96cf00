//! Posts, edits, threads, answers; hostile text; and every way in which a call can fail.

use super::*;

#[tokio::test]
async fn a_card_is_posted_once_and_then_edited() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open)).await;
    assert_eq!(seen.buttons().iter().map(|button| button.label.as_str()).collect::<Vec<_>>(), ["Acknowledge", "Resolve", "Run"]);
    assert_eq!(seen.color().as_deref(), Some("#a30200"));
    assert_eq!(seen.notification(), "🔴 [P1] #142 ServiceDown api (open)");

    world.slack.update_card(&place(&seen), &card(IncidentState::Closed)).await.unwrap();
    let closed = world.fake.wait_until(&seen, |message| message.color().as_deref() == Some("#868e96"), SOON).await.unwrap();
    assert_eq!(closed.buttons(), [], "what is over has no buttons");
    assert_eq!(world.fake.channel("ops").messages().len(), 1);
    world.nothing_refused();
}

#[tokio::test]
async fn a_thread_holds_messages_and_output() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open)).await;
    let output = format!("<!channel> first\n{}\nlast `line`", "x".repeat(50_000));
    world.slack.post_thread(&place(&seen), &message("restart-service failed", Some(&output)), "d2").await.unwrap();
    let replies = world.fake.channel("ops").thread(&seen);
    let text = replies[0].visible_text();
    assert!(text.starts_with("restart-service failed\n<!channel> first\n"), "{text}");
    assert!(text.ends_with("last `line`") && text.contains("(cut: the console has all of it)"), "{text}");
    assert_eq!(replies[0].mentions(), []);
    world.slack.post_message(OPS, &message("", None), "d3").await.unwrap();
    world.nothing_refused();
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let world = world().await;
    let legitimate = "https://wiki.example/restart";
    let first = world.posted(&card(IncidentState::Open)).await;
    for text in hostile() {
        world.slack.update_card(&place(&first), &filled_with(&text)).await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        world.slack.post_thread(&place(&first), &message(&text, Some(&text)), "d").await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let seen = world.fake.current(&first).unwrap();
        let reply = world.fake.channel("ops").thread(&first).pop().unwrap();
        for seen in [&seen, &reply] {
            assert_eq!(seen.mentions(), [], "{text:?}");
            let others: Vec<_> = seen.links().into_iter().filter(|link| link.url != legitimate && !is_plain_link(&link.url, &text)).collect();
            assert_eq!(others, [], "{text:?}");
        }
        let literal = domain::text::clean_line(&text, 140);
        if literal == text && !text.trim().is_empty() {
            assert!(seen.visible_text().contains(&format!("#142 {text}")) || text.len() > 60, "{text:?} in {}", seen.visible_text());
            assert!(reply.visible_text().contains(&text), "{text:?} in {}", reply.visible_text());
        }
        assert_eq!(seen.buttons().len(), 4, "{text:?}");
    }
    world.nothing_refused();
}

/// The card's own list of links may name any http address; this one is `links[1]` of the hostile card.
fn is_plain_link(url: &str, text: &str) -> bool {
    reqwest::Url::parse(text.trim()).is_ok_and(|link| link.as_str() == url && matches!(link.scheme(), "http" | "https"))
}

#[tokio::test]
async fn a_card_that_is_too_big_loses_alerts_first() {
    let world = world().await;
    let mut big = filled_with(&"<&>".repeat(4_000));
    big.alerts = vec![big.alerts[0].clone(); 5_000];
    big.automation = vec![big.automation[0].clone(); 500];
    big.fields = vec![big.fields[0].clone(); 500];
    big.links = vec![("x".to_owned(), "https://wiki.example/".to_owned() + &"y".repeat(400)); 100];
    big.buttons = (0..40).flat_map(|_| big.buttons.clone()).collect();
    big.approval.as_mut().unwrap().steps = vec!["step".to_owned(); 50];
    let seen = world.posted(&big).await;
    let text = seen.visible_text();
    assert!(text.contains("more steps: read them in the console before you decide"), "{text}");
    assert!(text.contains("+4990 more") || text.contains("+5"), "{text}");
    assert_eq!(seen.buttons().len(), 25);
    world.nothing_refused();
}

#[tokio::test]
async fn failures_say_what_to_do_next() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open)).await;
    let (post, edit) = ("chat.postMessage", "chat.update");
    let open = card(IncidentState::Open);
    let posting = async |fault: Fault| {
        world.fake.fail(post, fault, 1);
        world.slack.post_card(OPS, &open, "d").await.unwrap_err()
    };
    let editing = async |fault: Fault| {
        world.fake.fail(edit, fault, 1);
        world.slack.update_card(&place(&seen), &open).await.unwrap_err()
    };
    let answer = |error: &str| Fault::Answer(200, json!({"ok": false, "error": error}));
    let wait = ChatError::Wait { platform: "slack", after: Duration::from_secs(7) };
    assert_eq!(posting(Fault::RateLimited(Duration::from_secs(7))).await, wait);
    assert!(matches!(posting(answer("ratelimited")).await, ChatError::Wait { .. }));
    assert!(matches!(posting(Fault::Status(503)).await, ChatError::Retry(_)));
    for fault in [Fault::Status(502), Fault::Status(504), Fault::Drop, Fault::Ambiguous, Fault::Answer(200, json!([])), answer("fatal_error")] {
        let (posted, edited) = (posting(fault.clone()).await, editing(fault).await);
        assert!(matches!(posted, ChatError::Ambiguous(_)), "a post may be there: {posted:?}");
        assert!(matches!(edited, ChatError::Retry(_)), "an edit may be made again: {edited:?}");
    }
    assert!(matches!(editing(answer("message_not_found")).await, ChatError::Gone(_)));
    for (word, advice) in
        [("invalid_auth", "slack.bot_token"), ("missing_scope", "manifest.yaml"), ("channel_not_found", "/invite"), ("is_archived", "another"), ("odd_error", "log")]
    {
        let ChatError::Refused(text) = posting(answer(word)).await else { panic!("{word}") };
        assert!(text.contains(word) && text.contains(advice), "{text}");
    }
    let missing = world.slack.post_card("C0NOWHERE", &open, "d").await.unwrap_err();
    assert!(matches!(missing, ChatError::Refused(_)), "{missing:?}");
    let gone = world.slack.update_card(&Place { message: "1.000001".to_owned(), ..place(&seen) }, &open).await.unwrap_err();
    assert!(matches!(gone, ChatError::Gone(_)), "{gone:?}");
}

#[tokio::test]
async fn nobody_home_is_no_loss() {
    let fake = FakeSlack::start(Config::default()).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = SlackConfig { api_url: format!("http://{free}/api"), ..settings(&fake) };
    let slack = Slack::new(config, Arc::new(Memory::default()), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    let error = slack.post_card(OPS, &card(IncidentState::Open), "d").await.unwrap_err();
    assert!(matches!(error, ChatError::Retry(_)), "nothing was sent: {error:?}");
}

#[tokio::test]
async fn a_post_whose_answer_was_lost_is_found_again() {
    let world = world().await;
    world.fake.fail("chat.postMessage", Fault::Ambiguous, 1);
    let open = card(IncidentState::Open);
    let error = world.slack.post_card(OPS, &open, "delivery-1").await.unwrap_err();
    assert!(matches!(error, ChatError::Ambiguous(_)), "{error:?}");
    world.slack.post_card(OPS, &open, "delivery-2").await.unwrap();
    let found = world.slack.find_post(OPS, "delivery-1").await.unwrap().expect("it was posted");
    let first = world.fake.channel("ops").messages().remove(0);
    assert_eq!(found, place(&first));
    assert_eq!(world.slack.find_post(OPS, "delivery-3").await.unwrap(), None);
    world.nothing_refused();
}

#[tokio::test]
async fn answers_are_private_and_go_to_slack_only() {
    let world = world().await;
    let seen = world.asked().await;
    world.fake.click(ANN, &seen, "Unacknowledge", &world.interactions).await.unwrap();
    let to = world.inbox.act().reply.unwrap();
    world.slack.reply(&to, &ActOutcome::done("unacknowledged", "You gave back #142 <!here> & more.")).await.unwrap();
    world.whispered(ANN, "You gave back #142 <!here> & more.").await;
    assert_eq!(world.fake.channel("ops").messages().len(), 1, "the card stays");

    let elsewhere = ReplyTo { platform: "slack".to_owned(), token: "http://169.254.169.254/latest/meta-data".to_owned() };
    let error = world.slack.reply(&elsewhere, &ActOutcome::done("x", "x")).await.unwrap_err();
    assert!(matches!(error, ChatError::Refused(_)), "{error:?}");
    world.fake.time().advance(Duration::from_secs(31 * 60));
    let late = world.slack.reply(&to, &ActOutcome::done("x", "x")).await.unwrap_err();
    assert!(matches!(late, ChatError::Gone(_)), "{late:?}");
}

#[tokio::test]
async fn the_probe_knows_its_workspace() {
    let world = world().await;
    assert_eq!(world.slack.probe().await.unwrap(), "Slack workspace watchkeeper-test as watchkeeper");
    let config = SlackConfig { team_id: "T0ELSE".to_owned(), ..settings(&world.fake) };
    let other = Slack::new(config, world.inbox.clone(), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    assert!(matches!(other.probe().await, Err(ChatError::Refused(text)) if text.contains("slack.team_id")));
    let config = SlackConfig { bot_token: SecretString::from("xoxb-wrong"), ..settings(&world.fake) };
    let other = Slack::new(config, world.inbox.clone(), Arc::new(Known), Arc::new(SystemClock)).unwrap();
    assert!(matches!(other.probe().await, Err(ChatError::Refused(text)) if text.contains("slack.bot_token")));
}

#[test]
fn settings_that_could_trust_anybody_are_refused() {
    let good = SlackConfig {
        rate: Budget::default(),
        api_url: API_URL.to_owned(),
        bot_token: SecretString::from("xoxb-1"),
        signing_secrets: vec![SecretString::from("s")],
        team_id: "T1".to_owned(),
    };
    let new = |config| Slack::new(config, Arc::new(Memory::default()), Arc::new(Known), Arc::new(SystemClock)).map(drop);
    assert_eq!(new(good.clone()), Ok(()));
    let none: Vec<SecretString> = Vec::new();
    for (bad, name) in [
        (SlackConfig { signing_secrets: none, ..good.clone() }, "signing_secret"),
        (SlackConfig { signing_secrets: vec![SecretString::from("")], ..good.clone() }, "signing_secret"),
        (SlackConfig { signing_secrets: vec![SecretString::from("s"); 3], ..good.clone() }, "signing_secret"),
        (SlackConfig { bot_token: SecretString::from(" "), ..good.clone() }, "bot_token"),
        (SlackConfig { team_id: String::new(), ..good.clone() }, "team_id"),
        (SlackConfig { api_url: "slack.com".to_owned(), ..good.clone() }, "api_url"),
        (SlackConfig { api_url: "ftp://slack.com/api".to_owned(), ..good.clone() }, "api_url"),
    ] {
        let error = new(bad).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

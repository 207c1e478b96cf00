//! Posts, edits, threads, answers; hostile text; and every way in which a call can fail.

use super::*;

#[tokio::test]
async fn a_card_is_posted_once_and_then_edited() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open), "d1").await;
    let buttons: Vec<_> = seen.buttons().into_iter().map(|button| (button.label, button.style, button.disabled)).collect();
    let expected = [("Acknowledge", 1), ("Resolve", 2), ("Run", 2)].map(|(label, style)| (label.to_owned(), style, false));
    assert_eq!(buttons, expected);
    assert_eq!(seen.color(), Some(0xa30200));

    let again = world.posted(&card(IncidentState::Open), "d1").await;
    assert_eq!((again.id.as_str(), world.fake.deduplicated()), (seen.id.as_str(), 1), "the same delivery twice is one message");

    world.discord.update_card(&place(&seen), &card(IncidentState::Closed)).await.unwrap();
    let closed = world.fake.current(&seen).unwrap();
    assert_eq!((closed.color(), closed.buttons().len()), (Some(0x868e96), 0), "what is over has no buttons");
    assert_eq!(world.fake.channel("ops").messages().len(), 1);
    world.nothing_refused();
}

#[tokio::test]
async fn a_thread_is_made_when_it_is_first_needed() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open), "d1").await;
    let output = format!("@everyone ```first\n{}\nlast `line`", "x".repeat(50_000));
    world.discord.post_thread(&place(&seen), &message("restart-service *failed*", Some(&output)), "d2").await.unwrap();
    world.discord.post_thread(&place(&seen), &message("", None), "d3").await.unwrap();
    let thread = world.fake.thread_of(&seen).unwrap();
    assert_eq!(thread.name(), "Timeline");
    let messages = thread.messages();
    assert_eq!(messages.len(), 2);
    let text = messages[0].visible_text();
    assert!(text.starts_with("restart-service *failed*\n```\n@everyone `"), "{text}");
    assert!(text.ends_with("last `line`\n```") && text.contains("(cut: the console has all of it)"), "{text}");
    assert_eq!(messages[0].mentions(), []);
    assert_eq!(world.fake.calls_of("POST /channels/:/messages/:/threads").len(), 1);
    let refused: Vec<_> = world.fake.refused().into_iter().map(|call| call.status).collect();
    assert_eq!(refused, [404], "asking whether the thread is there is the one refusal");
}

#[tokio::test]
async fn hostile_text_stays_text() {
    let world = world().await;
    let legitimate = "https://wiki.example/restart";
    let first = world.posted(&card(IncidentState::Open), "d1").await;
    for (index, text) in hostile().into_iter().enumerate() {
        world.discord.update_card(&place(&first), &filled_with(&text)).await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let delivery = format!("h{index}");
        let posted = world.discord.post_message(OPS, &message(&text, Some(&text)), &delivery).await;
        let posted = posted.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let seen = world.fake.current(&first).unwrap();
        let plain = world.fake.channel("ops").messages().into_iter().find(|message| message.id == posted.message).unwrap();
        for seen in [&seen, &plain] {
            assert_eq!(seen.mentions(), [], "{text:?}");
            let others: Vec<_> = seen.links().into_iter().filter(|link| link.url != legitimate && !is_plain_link(&link.url, &text)).collect();
            assert_eq!(others, [], "{text:?}");
            assert!(acting(&seen.content).is_none(), "{text:?} acts in {}", seen.content);
        }
        let literal = domain::text::clean_line(&text, 100);
        if literal == text && !text.trim().is_empty() {
            assert!(seen.visible_text().contains(&format!("] #142 {text}")), "{text:?} in {}", seen.visible_text());
            assert!(plain.visible_text().starts_with(&text), "{text:?} in {}", plain.visible_text());
        }
        assert_eq!(seen.buttons().len(), 4, "{text:?}");
    }
    world.nothing_refused();
}

/// What would be markup in a content that is ours but for escaped text: the fake leaves that to clients.
fn acting(content: &str) -> Option<char> {
    let ours = content.replace("**", "");
    let mut escaped = false;
    ours.chars().find(|c| {
        let acts = !escaped && "<>@[]*_~`|#:".contains(*c);
        escaped = !escaped && *c == '\\';
        acts
    })
}

/// The card's own list of links may name any http address; this one is `links[1]` of the hostile card.
fn is_plain_link(url: &str, text: &str) -> bool {
    reqwest::Url::parse(text.trim()).is_ok_and(|link| link.as_str() == url && matches!(link.scheme(), "http" | "https"))
}

#[tokio::test]
async fn a_card_that_is_too_big_loses_alerts_first() {
    let world = world().await;
    for text in ["<&>", "x", "日", "`", "``` "] {
        let mut big = filled_with(&text.repeat(4_000));
        big.alerts = vec![big.alerts[0].clone(); 5_000];
        big.automation = vec![big.automation[0].clone(); 500];
        big.fields = vec![big.fields[0].clone(); 500];
        big.links = vec![("x".to_owned(), "https://wiki.example/".to_owned() + &"y".repeat(400)); 100];
        big.approval.as_mut().unwrap().steps = vec![text.repeat(1_000); 50];
        big.buttons = (0..40).flat_map(|_| big.buttons.clone()).collect();
        let seen = world.posted(&big, text).await;
        assert!(seen.visible_text().contains("more steps: read them in the console before you decide"), "{}", seen.visible_text());
        assert!(seen.visible_text().contains("+50"), "{}", seen.visible_text());
        assert_eq!(seen.buttons().len(), 4, "a button that is there twice is shown once");
    }
    world.nothing_refused();
}

#[tokio::test]
async fn failures_say_what_to_do_next() {
    let world = world().await;
    let seen = world.posted(&card(IncidentState::Open), "d1").await;
    let open = card(IncidentState::Open);
    let posting = async |fault: Fault| {
        world.fake.fail("POST /channels/:/messages", fault, 1);
        world.discord.post_card(OPS, &open, "d").await.unwrap_err()
    };
    let editing = async |fault: Fault| {
        world.fake.fail("PATCH /channels/:/messages/:", fault, 1);
        world.discord.update_card(&place(&seen), &open).await.unwrap_err()
    };
    let answer = |status: u16, code: u64| Fault::Answer(status, json!({"code": code, "message": "said"}));
    let wait = |millis| ChatError::Wait { platform: "discord", after: Duration::from_millis(millis) };
    assert_eq!(posting(Fault::RateLimited(Duration::from_millis(1_500))).await, wait(1_500));
    assert_eq!(posting(Fault::Answer(429, json!({"message": "x", "retry_after": 0.25, "global": true}))).await, wait(250));
    assert!(matches!(posting(Fault::Status(429)).await, ChatError::Wait { .. }), "a proxy's 429 without a time");
    for status in [500, 502, 503] {
        assert!(matches!(posting(Fault::Status(status)).await, ChatError::Retry(_)), "the nonce makes a second post harmless");
    }
    for fault in [Fault::Drop, Fault::Ambiguous] {
        let (posted, edited) = (posting(fault.clone()).await, editing(fault).await);
        assert!(matches!(posted, ChatError::Ambiguous(_)), "{posted:?}");
        assert!(matches!(edited, ChatError::Retry(_)), "{edited:?}");
    }
    assert!(matches!(editing(answer(404, 10_008)).await, ChatError::Gone(_)));
    for (fault, advice) in [
        (answer(401, 0), "discord.bot_token"),
        (answer(403, 50_001), "view it"),
        (answer(403, 50_013), "README.md"),
        (answer(403, 40_333), "README.md"),
        (answer(404, 10_003), "channel's id"),
        (answer(404, 10_004), "discord.guild_id"),
        (Fault::Status(404), "api_url"),
        (answer(400, 50_035), "log"),
    ] {
        let ChatError::Refused(text) = posting(fault).await else { panic!("{advice}") };
        assert!(text.contains(advice), "{text}");
    }
    let missing = world.discord.update_card(&Place { message: "1100000000000009999".to_owned(), ..place(&seen) }, &open).await.unwrap_err();
    assert!(matches!(missing, ChatError::Gone(_)), "{missing:?}");
    let path = world.discord.post_card("../../users/@me", &open, "d").await.unwrap_err();
    assert!(matches!(path, ChatError::Refused(_)), "{path:?}");
}

#[tokio::test]
async fn answers_are_private_and_go_to_this_application_only() {
    let world = world().await;
    let seen = world.asked().await;
    world.fake.click(ANN, &seen, "Unacknowledge", &world.url).await.unwrap();
    let to = world.inbox.act().reply.unwrap();
    world.discord.reply(&to, &ActOutcome::done("unacknowledged", "You gave back #142 *api* @here.")).await.unwrap();
    let whisper = world.fake.wait_for_ephemeral(ANN, |message| message.visible_text().contains("gave back"), SOON).await.unwrap();
    assert_eq!((whisper.visible_text().as_str(), whisper.mentions().len()), ("You gave back #142 *api* @here.", 0));
    assert_eq!(world.fake.current(&seen).unwrap().visible_text(), seen.visible_text(), "the card stays");

    let application = &world.fake.config().application_id;
    for token in ["1100000000000000002/abc".to_owned(), format!("{application}/../../users/@me"), application.clone()] {
        let elsewhere = ReplyTo { platform: "discord".to_owned(), token };
        let error = world.discord.reply(&elsewhere, &ActOutcome::done("x", "x")).await.unwrap_err();
        assert!(matches!(error, ChatError::Refused(_)), "{error:?}");
    }
    world.nothing_refused();
    world.fake.time().advance(Duration::from_secs(16 * 60));
    let late = world.discord.reply(&to, &ActOutcome::done("x", "x")).await.unwrap_err();
    assert!(matches!(late, ChatError::Gone(_)), "{late:?}");
}

#[tokio::test]
async fn the_probe_knows_its_application() {
    let world = world().await;
    assert!(world.discord.probe().await.unwrap().contains("1100000000000000100"));
    let probe = async |config| Discord::new(config, world.inbox.clone(), Arc::new(Known), Arc::new(SystemClock)).unwrap().probe().await;
    let good = settings(&world.fake);
    let id = probe(DiscordConfig { application_id: "5".to_owned(), ..good.clone() }).await;
    assert!(matches!(id, Err(ChatError::Refused(text)) if text.contains("application_id")));
    let key = probe(DiscordConfig { public_key: "ab".repeat(32), ..good.clone() }).await;
    assert!(matches!(key, Err(ChatError::Refused(text)) if text.contains("public_key")));
    let guild = probe(DiscordConfig { guild_id: "6".to_owned(), ..good.clone() }).await;
    assert!(matches!(guild, Err(ChatError::Refused(_))));
    let token = probe(DiscordConfig { bot_token: SecretString::from("wrong"), ..good }).await;
    assert!(matches!(token, Err(ChatError::Refused(text)) if text.contains("bot_token")));
}

#[test]
fn settings_that_could_trust_anybody_are_refused() {
    let good = DiscordConfig {
        api_url: API_URL.to_owned(),
        application_id: "1".to_owned(),
        public_key: "ab".repeat(32),
        bot_token: SecretString::from("t"),
        guild_id: "2".to_owned(),
    };
    let new = |config| Discord::new(config, Arc::new(Memory::default()), Arc::new(Known), Arc::new(SystemClock)).map(drop);
    assert_eq!(new(good.clone()), Ok(()));
    for (bad, name) in [
        (DiscordConfig { public_key: String::new(), ..good.clone() }, "public_key"),
        (DiscordConfig { bot_token: SecretString::from(""), ..good.clone() }, "bot_token"),
        (DiscordConfig { guild_id: String::new(), ..good.clone() }, "guild_id"),
        (DiscordConfig { application_id: "x/y".to_owned(), ..good.clone() }, "application_id"),
        (DiscordConfig { api_url: "https://x?y".to_owned(), ..good.clone() }, "api_url"),
    ] {
        let error = new(bad).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

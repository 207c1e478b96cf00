//! NATS that asks who comes: every kind of proof, with TLS of our own authority, each carries an order to an agent and its report back; and a wrong one
//! says what to do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use harness::peers::Nats;
use harness::world::{Alert, SOON};
use harness::{Authority, Cmd, eventually, temp_dir};
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::agents::plan_over;
use crate::agents_roll::agent_where;

/// What docs/agents.md says that an agent needs, as nats-server reads it.
const NEEDED: &str = r#"permissions: {
  publish: [
    "watchkeeper.agent.edge.>",
    "$JS.API.STREAM.INFO.WATCHKEEPER_AGENTS",
    "$JS.API.CONSUMER.INFO.WATCHKEEPER_AGENTS.agent-edge",
    "$JS.API.CONSUMER.CREATE.WATCHKEEPER_AGENTS.agent-edge.>",
    "$JS.API.CONSUMER.MSG.NEXT.WATCHKEEPER_AGENTS.agent-edge",
    "$JS.ACK.WATCHKEEPER_AGENTS.agent-edge.>"
  ]
  subscribe: ["watchkeeper.agent.edge.>"]
}"#;

fn file(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = dir.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

/// An order goes out and its report comes back.
async fn works(server: &Value, agent: &Value) -> anyhow::Result<()> {
    let (plan, mut edge, ledger) = plan_over(server, agent, &["hello"], "60s").await?;
    edge.start()?;
    let world = plan.start().await?;
    world.send(&[Alert::service_down()]).await?;
    world.run_in("succeeded", SOON).await.with_context(|| edge.proc.as_ref().map(harness::Proc::log).unwrap_or_default())?;
    assert_eq!(ledger.lines(), ["hello"]);
    Ok(())
}

/// An agent that cannot get in says why, and the server's `doctor` does too.
async fn says(nats: &Value, word: &str) -> anyhow::Result<()> {
    let (plan, mut edge, _) = plan_over(nats, nats, &["hello"], "60s").await?;
    edge.start()?;
    let proc = edge.proc.as_ref().context("no agent")?;
    eventually(SOON, async || {
        ensure!(proc.log().contains(word), "no {word:?} in the agent's log:\n{}", proc.log());
        Ok(())
    })
    .await?;
    plan.write()?;
    let done = plan.command().args(["doctor", "-o", "json", "--config"]).arg(plan.config_dir()).run(SOON).await?;
    let told: Value = serde_json::from_str(&done.stdout)?;
    let findings = told["findings"].as_array().context("no findings")?;
    let nats =
        findings.iter().find(|finding| finding["area"] == "nats" || finding["found"].as_str().is_some_and(|text| text.contains(word)));
    ensure!(nats.is_some_and(|finding| finding["found"].as_str().is_some_and(|text| text.contains(word))), "{}", done.stdout);
    Ok(())
}

#[tokio::test]
async fn a_user_with_a_password_and_no_more_rights_than_it_needs() -> anyhow::Result<()> {
    let dir = temp_dir("secrets")?;
    let users = format!(
        "authorization {{ users: [ {{ user: server, password: s3rver-pass }}, {{ user: edge, password: \"edge-pass 1\", {NEEDED} }} ] }}"
    );
    let nats = Nats::with_config(&users).await?;
    let (right, wrong) = (file(dir.path(), "edge.pass", "edge-pass 1\n")?, file(dir.path(), "wrong.pass", "not-the-one\n")?);
    let server = json!({ "url": nats.url(), "user": "server", "password_file": file(dir.path(), "server.pass", "s3rver-pass")? });
    works(&server, &json!({ "url": nats.url(), "user": "edge", "password_file": right })).await?;
    let word = "NATS refuses us (authorization violation): look at `nats.user` and `nats.password_file`";
    says(&json!({ "url": nats.url(), "user": "edge", "password_file": wrong }), word).await?;
    says(&json!({ "url": nats.url() }), "refuses us (authorization violation): look at `nats.credentials_file`, `nats.nkey_file`").await
}

#[tokio::test]
async fn a_token() -> anyhow::Result<()> {
    let dir = temp_dir("secrets")?;
    let nats = Nats::with_config("authorization { token: t0ken-of-nats }").await?;
    let link = json!({ "url": nats.url(), "token_file": file(dir.path(), "token", "t0ken-of-nats\n")? });
    works(&link, &link).await?;
    let wrong = json!({ "url": nats.url(), "token_file": file(dir.path(), "wrong", "t0ken-of-others")? });
    says(&wrong, "look at `nats.token_file`").await
}

#[tokio::test]
async fn an_nkey() -> anyhow::Result<()> {
    let dir = temp_dir("secrets")?;
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let nats = Nats::with_config(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key())).await?;
    let link = json!({ "url": nats.url(), "nkey_file": file(dir.path(), "seed", &format!("{}\n", user.seed()?))? });
    works(&link, &link).await?;
    let wrong = json!({ "url": nats.url(), "nkey_file": file(dir.path(), "stranger", &stranger.seed()?)? });
    says(&wrong, "look at `nats.nkey_file`").await?;
    says(&json!({ "url": nats.url(), "nkey_file": file(dir.path(), "none", "hello")? }), "holds no seed of a user").await
}

/// What NATS takes changes, and so does the file: both sides find their way back, and an order and its report come through.
async fn is_changed(key: &str, more: Value, secrets: [&str; 2], takes: [String; 2]) -> anyhow::Result<()> {
    let dir = temp_dir("secrets")?;
    let mut nats = Nats::with_config(&takes[0]).await?;
    let mut link = json!({ "url": nats.url(), key: file(dir.path(), "secret", secrets[0])? });
    link.as_object_mut().context("a map")?.extend(more.as_object().cloned().unwrap_or_default());
    let (plan, mut edge, ledger) = plan_over(&link, &link, &["hello"], "50s").await?;
    edge.start()?;
    let world = plan.allow("authorization violation").start().await?;
    agent_where(&world, |agent| agent["here"] == true).await?;
    file(dir.path(), "secret", secrets[1])?;
    nats.reconfigure(&takes[1]).await?;
    world.send(&[Alert::service_down()]).await?;
    world.run_in("succeeded", SOON).await.with_context(|| edge.proc.as_ref().map(harness::Proc::log).unwrap_or_default())?;
    // They hear of each other again: not only what was asked for came through.
    let before = agent_where(&world, |agent| agent["here"] == true).await?;
    agent_where(&world, |agent| agent["announced"]["iat"].as_i64() > before["announced"]["iat"].as_i64()).await?;
    assert_eq!(ledger.lines(), ["hello"]);
    Ok(())
}

#[tokio::test]
async fn a_seed_that_is_changed_on_both_sides_is_taken_without_a_restart() -> anyhow::Result<()> {
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let of = |key: &KeyPair| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    is_changed("nkey_file", json!({}), [&old.seed()?, &new.seed()?], [of(&old), of(&new)]).await
}

#[tokio::test]
async fn a_password_that_is_changed_on_both_sides_is_taken_without_a_restart() -> anyhow::Result<()> {
    let of = |password: &str| format!("authorization {{ users: [ {{ user: wk, password: {password} }} ] }}");
    is_changed("password_file", json!({ "user": "wk" }), ["old-passw0rd", "new-passw0rd\n"], [of("old-passw0rd"), of("new-passw0rd")]).await
}

#[tokio::test]
async fn a_token_that_is_changed_on_both_sides_is_taken_without_a_restart() -> anyhow::Result<()> {
    let of = |token: &str| format!("authorization {{ token: {token} }}");
    is_changed("token_file", json!({}), ["t0ken-of-old", "t0ken-of-new\n"], [of("t0ken-of-old"), of("t0ken-of-new")]).await
}

#[tokio::test]
async fn credentials_of_an_operator() -> anyhow::Result<()> {
    let dir = temp_dir("secrets")?;
    let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = |key: &KeyPair, limits: &Value| jwt(&operator, key, json!({ "type": "account", "version": 2, "limits": limits }));
    let bare = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{}: {}\n{}: {}\n}}",
        jwt(&operator, &operator, json!({ "type": "operator", "version": 2, "system_account": system.public_key() }))?,
        system.public_key(),
        system.public_key(),
        of_account(&system, &bare)?,
        account.public_key(),
        of_account(&account, &limits)?,
    );
    let nats = Nats::with_config(&config).await?;
    let creds = |name: &str, signer: &KeyPair| {
        let user = KeyPair::new_user();
        let open = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(signer, &user, open)?,
            user.seed()?
        );
        file(dir.path(), name, &text)
    };
    let link = json!({ "url": nats.url(), "credentials_file": creds("ours.creds", &account)? });
    works(&link, &link).await?;
    let stranger = json!({ "url": nats.url(), "credentials_file": creds("stranger.creds", &KeyPair::new_account())? });
    says(&stranger, "look at `nats.credentials_file`").await?;
    let empty = json!({ "url": nats.url(), "credentials_file": file(dir.path(), "empty.creds", "hello")? });
    says(&empty, "it is what `nsc generate creds` writes").await?;
    says(&json!({ "url": nats.url(), "credentials_file": dir.path().join("gone.creds") }), "gone.creds").await
}

/// A token of NATS: signed by one nkey about another.
fn jwt(signer: &KeyPair, about: &KeyPair, nats: Value) -> anyhow::Result<String> {
    let claims = json!({
        "jti": about.public_key(), "iat": 1_700_000_000, "iss": signer.public_key(), "name": "test", "sub": about.public_key(), "nats": nats,
    });
    let head = URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string());
    let body = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signer.sign(body.as_bytes())?)))
}

#[tokio::test]
async fn tls_of_our_own_authority_with_certificates_on_both_sides() -> anyhow::Result<()> {
    let dir = temp_dir("certificates")?;
    let (ours, theirs) = (Authority::new(dir.path(), "ours").await?, Authority::new(dir.path(), "theirs").await?);
    let server = ours.issue("nats", "IP:127.0.0.1").await?;
    let (client, stranger) = (ours.issue("edge", "DNS:edge").await?, theirs.issue("stranger", "DNS:stranger").await?);
    let tls = |verify: bool| {
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: {verify} }}",
            server.file.display(),
            server.key.display(),
            ours.file().display()
        )
    };
    let nats = Nats::with_config(&tls(true)).await?;
    let link = |url: &str, ca: &Authority, own: Option<&harness::Certificate>| {
        let mut tls = json!({ "ca_file": ca.file() });
        if let Some(own) = own {
            tls["cert_file"] = json!(own.file);
            tls["key_file"] = json!(own.key);
        }
        json!({ "url": url, "tls": tls })
    };
    let secure = nats.url().replace("nats://", "tls://");
    works(&link(&nats.url(), &ours, Some(&client)), &link(&secure, &ours, Some(&client))).await?;
    says(&link(&secure, &theirs, Some(&client)), "the authority that signed its certificate is not known here: `nats.tls.ca_file`").await?;
    says(&json!({ "url": secure }), "is not known here: name its file as `nats.tls.ca_file`").await?;
    says(&link(&secure.replace("127.0.0.1", "localhost"), &ours, Some(&client)), "its certificate is for another name").await?;
    says(&link(&secure, &ours, None), "it asks for a certificate of ours: give `nats.tls.cert_file`").await?;
    says(&link(&secure, &ours, Some(&stranger)), "it does not take our certificate").await?;
    let plain = Nats::start().await?;
    says(&link(&plain.url(), &ours, None), "it speaks no TLS").await
}

#[tokio::test]
async fn a_secret_in_the_address_is_refused_and_not_shown() -> anyhow::Result<()> {
    let dir = temp_dir("agent")?;
    let text = "{ name: edge, nats: { url: 'nats://edge:hunter-22@x' }, data_dir: d, key_file: k, servers: [s], actions: [], targets: {} }";
    let config = file(dir.path(), "agent.yaml", text)?;
    let done = Cmd::new(env!("CARGO_BIN_EXE_watchkeeper")).args(["agent", "--config"]).arg(config).run(SOON).await?;
    ensure!(!done.status.success() && done.stderr.contains("write `user` and `password_file`"), "{}", done.stderr);
    ensure!(!done.stderr.contains("hunter-22"), "{}", done.stderr);
    Ok(())
}

//! NATS: is it there and new enough, are the streams, and what do their acknowledgements promise.

use async_nats::jetstream::{self, Context, stream};

use super::Findings;
use crate::bus::{check_subjects, check_version, connect};
use crate::config::Config;

const EARLY_ACK: &str = "JetStream acknowledges before the data is on disk and syncs every two minutes by default: a power loss can take back what it \
                         acknowledged. Set `sync_interval: always` in every server's jetstream block; it cannot be seen from here";

pub(super) async fn look(config: &Config) -> Findings {
    let mut findings = Findings::of("nats");
    let Some(nats) = &config.nats else { return findings };
    let client = match connect(&nats.link).await {
        Ok(client) => client,
        Err(error) => {
            findings.fail(
                format!("{}: {error:#}", nats.link.urls.join(", ")),
                "the server starts without it, and waits: look at the address, the credentials and the network",
            );
            return findings;
        }
    };
    let info = client.server_info();
    match check_version(&info.version) {
        Ok(()) => findings.ok(format!("NATS {} at {}", info.version, nats.link.urls.join(", "))),
        Err(error) => {
            findings.fail(error.to_string(), "go to a newer server: https://docs.nats.io/release-notes/whats_new");
            return findings;
        }
    }
    let context = jetstream::new(client);
    if let Err(error) = context.query_account().await {
        findings.fail(
            format!("JetStream cannot be used: {error}"),
            "turn it on in the server and for this account: `jetstream { store_dir: .. }`",
        );
        return findings;
    }
    for (source, subscription) in &nats.subscriptions {
        match info_of(&context, &subscription.stream).await {
            Some(info) => storage(&mut findings, &format!("source {source}"), &info),
            None => findings.fail(
                format!("source {source}: there is no stream {}", subscription.stream),
                format!("create it: nats stream add {} --subjects '{}'", subscription.stream, subscription.subjects.join(",")),
            ),
        }
    }
    if let Some(publish) = &nats.publish {
        match info_of(&context, &publish.stream).await {
            Some(info) => {
                storage(&mut findings, "lifecycle events", &info);
                if let Err(error) = check_subjects(&info.config, &publish.prefix) {
                    findings.fail(format!("lifecycle events: {error:#}"), "nothing is published until then: nats stream edit");
                }
            }
            None => findings.note(format!("lifecycle events: there is no stream {} yet", publish.stream), "the first event makes it"),
        }
    }
    if let Some(ingest) = &nats.ingest {
        let replicas = match info_of(&context, &ingest.stream).await {
            Some(info) => {
                storage(&mut findings, "ingest", &info);
                info.config.num_replicas
            }
            None => ingest.replicas,
        };
        findings.warn(format!("a source's 2xx rests on {} of {replicas} copies", ingest.stream), EARLY_ACK);
        if replicas < 3 {
            findings.warn(
                format!("{} has {replicas} copies", ingest.stream),
                "with fewer than three, the loss of one machine can lose what was answered with 2xx: take three, or `ingest: { via: store }`",
            );
        }
    } else if !nats.subscriptions.is_empty() {
        findings.note("what senders are told depends on their server", EARLY_ACK);
    }
    findings
}

async fn info_of(context: &Context, name: &str) -> Option<stream::Info> {
    Some(context.get_stream(name).await.ok()?.cached_info().clone())
}

fn storage(findings: &mut Findings, what: &str, info: &stream::Info) {
    let name = &info.config.name;
    if info.config.storage == stream::StorageType::Memory {
        findings.warn(format!("{what}: the stream {name} is in memory"), "a restart of NATS loses it: keep it in files");
    } else {
        findings
            .ok(format!("{what}: the stream {name} has {} messages in {} copies on disk", info.state.messages, info.config.num_replicas));
    }
}

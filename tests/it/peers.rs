//! Each real peer of the harness starts, answers one real request and survives what the harness offers to do to it.

use std::{fs, time::Duration};

use anyhow::ensure;
use harness::{
    Cmd, eventually,
    peers::{Alertmanager, Chromium, Nats, Nginx, Postgres, Prometheus, Redis, Stop},
    temp_dir,
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn postgres_keeps_a_committed_row_through_every_kind_of_stop() -> anyhow::Result<()> {
    let mut server = Postgres::start().await?;
    let url = server.create_database().await?;
    server.psql(&url, "create table seen (how text); insert into seen values ('first')").await?;
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        server.psql(&url, &format!("insert into seen values ('{how:?}')")).await?;
        server.stop(how).await?;
        assert!(server.psql(&url, "select 1").await.is_err(), "it answers after {how:?}");
        server.resume().await?;
    }
    assert_eq!(server.psql(&url, "select how from seen").await?, "first\nFast\nImmediate\nKill");
    assert_eq!(server.psql(&url, "show fsync").await?, "on");
    Ok(())
}

#[tokio::test]
async fn postgres_is_shared_with_a_database_for_each() -> anyhow::Result<()> {
    let server = Postgres::shared().await?;
    let (one, two) = (server.create_database().await?, server.create_database().await?);
    assert_ne!(one, two);
    server.psql(&one, "create table only_here (n int)").await?;
    assert!(server.psql(&two, "select * from only_here").await.is_err());
    Ok(())
}

#[tokio::test]
async fn nats_keeps_a_stream_through_kill_9_until_its_store_is_deleted() -> anyhow::Result<()> {
    let mut server = Nats::start().await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    let config = || async_nats::jetstream::stream::Config { name: "tasks".into(), subjects: vec!["task.>".into()], ..Default::default() };
    jetstream.create_stream(config()).await?;
    jetstream.publish("task.created", "hello".into()).await?.await?;

    server.restart().await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    assert_eq!(jetstream.get_stream("tasks").await?.cached_info().state.messages, 1);

    assert!(server.delete_store().is_err(), "a running server's store is not deleted");
    server.kill9()?;
    server.delete_store()?;
    server.restart().await?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    assert!(jetstream.get_stream("tasks").await.is_err());
    Ok(())
}

#[tokio::test]
async fn prometheus_scrapes_and_takes_new_rules_by_reload() -> anyhow::Result<()> {
    let target = Nginx::start("server { listen 127.0.0.1:{port}; location / { return 200 'up_by_hand 7\n'; } }").await?;
    let address = target.url().replace("http://", "");
    let config = format!(
        "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\nrule_files: [rules/*.yml]\n\
         scrape_configs: [{{job_name: demo, static_configs: [{{targets: ['{address}']}}]}}]\n"
    );
    let mut prometheus = Prometheus::start(&config).await?;
    let has = async |expression: &str| {
        let found = prometheus.query(expression).await?;
        ensure!(!found.is_empty(), "{expression} gives nothing");
        Ok(())
    };
    eventually(SOON, async || has("up_by_hand == 7").await).await?;

    let rule = "groups: [{name: g, rules: [{alert: Always, expr: 'up_by_hand > 1', labels: {severity: page}}]}]";
    prometheus.write_rules("always.yml", rule)?;
    prometheus.reload().await?;
    eventually(SOON, async || has("ALERTS{alertname='Always', alertstate='firing'}").await).await?;

    prometheus.write_rules("always.yml", "groups: nonsense")?;
    assert!(prometheus.reload().await.is_err());
    prometheus.write_rules("always.yml", rule)?;
    prometheus.restart().await?;
    Ok(())
}

#[tokio::test]
async fn alertmanager_takes_an_alert_and_keeps_its_port_through_kill_9() -> anyhow::Result<()> {
    let config = "route: {receiver: none}\nreceivers: [{name: none}]\n";
    let mut one = Alertmanager::with_flags(config, &["--log.level=debug"]).await?;
    one.post_alerts(&json!([{"labels": {"alertname": "Disk"}}])).await?;
    assert_eq!(one.alerts().await?[0]["labels"]["alertname"], "Disk");
    one.reload(&config.replace("none", "nobody")).await?;
    assert!(one.reload("route: nonsense").await.is_err());
    one.reload(config).await?;
    let before = one.url();
    one.kill9()?;
    assert!(one.alerts().await.is_err());
    one.restart().await?;
    assert_eq!(one.url(), before);
    one.alerts().await?;
    Ok(())
}

#[tokio::test]
async fn alertmanagers_form_a_cluster() -> anyhow::Result<()> {
    let config = "route: {receiver: none}\nreceivers: [{name: none}]\n";
    let one = Alertmanager::clustered(config, &[]).await?;
    let two = Alertmanager::clustered(config, &[&one]).await?;
    let client = harness::http()?;
    eventually(SOON, async || {
        let status = client.get(format!("{}/api/v2/status", two.url()));
        let status: serde_json::Value = status.send().await?.json().await?;
        let peers = status["cluster"]["peers"].as_array().map_or(0, Vec::len);
        ensure!(peers == 2, "{peers} peers");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn redis_answers() -> anyhow::Result<()> {
    let mut redis = Redis::start(&["--maxmemory", "5mb"]).await?;
    assert_eq!(redis.command(&["SET", "key", "two words"]).await?, "+OK\r\n");
    assert_eq!(redis.command(&["GET", "key"]).await?, "$9\r\ntwo words\r\n");
    redis.restart().await?;
    assert_eq!(redis.command(&["GET", "key"]).await?, "$-1\r\n");
    Ok(())
}

#[tokio::test]
async fn nginx_serves_and_reloads() -> anyhow::Result<()> {
    let conf = "server { listen 127.0.0.1:{port}; root {dir}/www; }";
    let nginx = Nginx::start(conf).await?;
    fs::write(nginx.dir().join("www/page.txt"), "hello")?;
    let url = format!("{}/page.txt", nginx.url());
    let client = harness::http()?;
    assert_eq!(client.get(&url).send().await?.text().await?, "hello");
    nginx.reload(&conf.replace("root", "return 503; root"))?;
    eventually(SOON, async || {
        let status = client.get(&url).send().await?.status();
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn chromium_shows_a_page_and_tells_of_csp_violations() -> anyhow::Result<()> {
    let nginx =
        Nginx::start("server { listen 127.0.0.1:{port}; root {dir}/www; add_header Content-Security-Policy \"default-src 'self'\"; }")
            .await?;
    fs::write(nginx.dir().join("www/good.html"), "<h1>Incident #142</h1><script src=good.js></script>")?;
    fs::write(nginx.dir().join("www/good.js"), "document.querySelector('h1').textContent += ' is open'; console.log('told');")?;
    fs::write(nginx.dir().join("www/bad.html"), "<h1>bad</h1><script>document.title = 'owned'</script>")?;
    let mut browser = Chromium::start().await?;
    let page = browser.page();
    page.goto(&format!("{}/good.html", nginx.url())).await?;
    let heading = page.find(harness::fantoccini::Locator::Css("h1")).await?;
    assert_eq!(heading.text().await?, "Incident #142 is open");
    assert_eq!(browser.csp_violations().await?, [""; 0]);
    let logs = browser.logs().await?;
    assert!(logs.iter().any(|log| log.source == "console-api" && log.message.contains("told")), "{logs:?}");

    page.goto(&format!("{}/bad.html", nginx.url())).await?;
    assert_ne!(page.title().await?, "owned");
    eventually(SOON, async || {
        ensure!(browser.csp_violations().await?.len() == 1, "{:?}", browser.logs().await?);
        Ok(())
    })
    .await?;

    let shot = temp_dir("shots")?.path().join("page.png");
    fs::create_dir_all(shot.parent().unwrap())?;
    browser.screenshot(&shot).await?;
    assert!(fs::read(&shot)?.starts_with(b"\x89PNG"));
    let pid = browser.proc().pid();
    drop(browser);
    assert!(!fs::exists(format!("/proc/{pid}"))?);
    Ok(())
}

#[tokio::test]
async fn a_program_runs_in_its_own_session_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let mut shell = Cmd::new("sh").args(["-c", "echo to stdout; echo to stderr >&2; sleep 1000 & echo child $!; wait"]).spawn()?;
    let child = eventually(SOON, async || {
        let log = shell.log();
        let child = log.lines().find_map(|line| line.strip_prefix("child ").map(str::to_owned));
        child.ok_or_else(|| anyhow::anyhow!("no child yet in {log:?}"))
    })
    .await?;
    assert_eq!(shell.log().lines().take(2).collect::<Vec<_>>(), ["to stdout", "to stderr"]);
    assert!(shell.is_running());
    assert!(shell.rss_bytes()? > 100_000);
    let alive = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    shell.kill9()?;
    assert!(!shell.is_running());
    assert!(alive(), "a crash takes the program alone");
    drop(shell);
    eventually(SOON, async || {
        ensure!(!alive(), "the child lives on");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_that_ends_while_starting_shows_its_log() -> anyhow::Result<()> {
    let mut shell = Cmd::new("sh").args(["-c", "echo because; exit 3"]).spawn()?;
    let never = async || anyhow::bail!("not ready");
    let error = shell.until_ready(SOON, never).await.unwrap_err();
    assert!(format!("{error:#}").contains("because"), "{error:#}");
    assert_eq!(shell.wait(SOON).await?.code(), Some(3));
    Ok(())
}

#[tokio::test]
async fn a_program_run_to_its_end_gives_its_output() -> anyhow::Result<()> {
    let cat = Cmd::new("sh").args(["-c", "cat; echo $NAME >&2; pwd; exit 4"]);
    let done = cat.stdin("in\n").env("NAME", "value").dir("/usr").run(SOON).await?;
    assert_eq!((done.status.code(), &*done.stdout, &*done.stderr), (Some(4), "in\n/usr\n", "value\n"));
    assert!(done.ok().unwrap_err().to_string().contains("value"));
    let slow = Cmd::new("sleep").arg("1000").run(Duration::from_millis(50)).await;
    assert!(slow.unwrap_err().to_string().contains("sleep"));
    Ok(())
}

/// The reaper's promise, shown on a whole test process: this binary runs another of these tests, is killed in it, and nothing stays.
#[tokio::test]
async fn a_killed_test_process_leaves_no_peer_behind() -> anyhow::Result<()> {
    let test = "peers::postgres_keeps_a_committed_row_through_every_kind_of_stop";
    let inner = Cmd::new(std::env::current_exe()?).args(["--exact", test]).spawn()?;
    let server =
        eventually(SOON, async || child_named("postgres", inner.pid())?.ok_or_else(|| anyhow::anyhow!("no server yet: {}", inner.log())))
            .await?;
    let data = fs::read_link(format!("/proc/{server}/cwd"))?;
    inner.signal(harness::Signal::KILL)?;
    eventually(SOON, async || {
        ensure!(!fs::exists(format!("/proc/{server}"))?, "the server lives on");
        ensure!(!data.exists(), "{} is still there", data.display());
        Ok(())
    })
    .await
}

fn child_named(name: &str, parent: u32) -> anyhow::Result<Option<u32>> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat.contains(&format!(" ({name}) ")) && stat.contains(&format!(") S {parent} ")) {
            return Ok(entry.file_name().into_string().ok().and_then(|pid| pid.parse().ok()));
        }
    }
    Ok(None)
}

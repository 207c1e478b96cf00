//! The console in a real browser: sign in, see the card appear by itself, approve, see it close. Nothing may break the page's policy.

use anyhow::{Context, ensure};
use harness::eventually;
use harness::fantoccini::Locator;
use harness::peers::Chromium;
use harness::world::{Alert, Plan, SOON};

#[tokio::test]
async fn a_person_sees_the_card_appear_approves_and_sees_it_close() -> anyhow::Result<()> {
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.start().await?;
    world.service_is(true).await?;
    let browser = Chromium::start().await?;
    let page = browser.page();
    page.goto(&world.login_link("ann").await?).await?;
    page.find(Locator::Css("button.primary")).await?.click().await?;
    page.wait().at_most(SOON).for_element(Locator::Css("#live[data-state=on]")).await?;
    ensure!(page.source().await?.contains("All is quiet"), "the list should be empty");

    // Nobody loads the page again: the row comes by itself.
    world.kill_service()?;
    let alert = Alert::service_down();
    world.send(std::slice::from_ref(&alert)).await?;
    page.wait().at_most(SOON).for_element(Locator::Css("#incident-1 td.title a")).await?.click().await?;
    let approve = page.wait().at_most(SOON).for_element(Locator::Css("button[data-act=approve]")).await?;
    browser.screenshot(world.dir().join("card.png")).await?;
    approve.click().await?;
    page.wait().at_most(SOON).for_element(Locator::Css("#flash")).await?;
    page.wait().at_most(SOON).for_element(Locator::Css(".badge.succeeded")).await?;
    world.service_is(true).await?;
    world.send(&[alert.resolved()]).await?;
    page.wait().at_most(SOON).for_element(Locator::Css(".badge.closed")).await?;
    browser.screenshot(world.dir().join("closed.png")).await?;
    ensure!(page.find_all(Locator::Css("button[data-act]")).await?.is_empty(), "a closed incident has no buttons");

    let violations = browser.csp_violations().await?;
    ensure!(violations.is_empty(), "the page broke its own policy: {violations:#?}");
    Ok(())
}

#[tokio::test]
async fn a_link_signs_in_once_and_a_form_from_elsewhere_does_nothing() -> anyhow::Result<()> {
    let world = Plan::new(env!("CARGO_BIN_EXE_watchkeeper"))?.start().await?;
    let link = world.login_link("ben").await?;
    let token = link.split_once("token=").context("a link has a token")?.1.to_owned();
    let spend = async || {
        let form = [("token", token.as_str())];
        let post = world.http().post(format!("{}/login/link", world.url())).form(&form);
        anyhow::Ok(post.header("origin", world.url()).send().await?.status().as_u16())
    };
    // Looking is free: previews and scanners do it.
    world.http().get(&link).send().await?.error_for_status()?;
    assert_eq!(spend().await?, 303);
    assert_eq!(spend().await?, 401);

    let console = world.console("ann").await?;
    world.send(&[Alert::service_down()]).await?;
    let page = console.wait_for("/incidents/1", "data-act=\"ack\"", SOON).await?;
    let mut form =
        harness::world::forms(&page).into_iter().find(|form| form.fields.contains(&("act".into(), "ack".into()))).context("ack")?;
    for field in &mut form.fields {
        if field.0 == "csrf" {
            field.1 = "0".repeat(64);
        }
    }
    let (status, _) = console.send(&form, &[]).await?;
    assert_eq!(status.as_u16(), 403);
    let anonymous = world.http().get(format!("{}/incidents", world.url())).send().await?;
    assert_eq!(anonymous.status().as_u16(), 303);
    eventually(SOON, async || {
        let state = world.incidents().await?[0]["state"].clone();
        ensure!(state == "open", "{state}");
        Ok(())
    })
    .await
}

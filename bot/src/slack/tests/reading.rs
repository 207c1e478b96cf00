//! What people read on a card, as a snapshot of each state.

use super::*;

#[tokio::test]
async fn cards_read_like_this() {
    let world = world().await;
    let mut all = String::new();
    for state in STATES {
        let seen = world.posted(&card(state)).await;
        all += &format!("--- {} {}\n{}\n", state.as_str(), seen.color().unwrap_or_default(), seen.visible_text());
    }
    insta::assert_snapshot!(all, @r#"
    --- open #a30200
    🔴 [P1] #142 ServiceDown api
    Service: api
    Environment: prod
    The api does not answer since 10:02.
    Users see errors.
    Alerts
    🔥 ServiceDown api-1 · since 2026-11-22 10:02 UTC
    ✅ ServiceDown api-2 · ended 2026-11-22 10:05 UTC
    +3 more
    Automation
    restart-service waits for approval
    Acknowledge
    Resolve
    Run
    Runbook
    open · opened Nov 22, 2026 10:02 · updated Nov 22, 2026 10:06
    --- acknowledged #daa038
    👀 [P1] #142 ServiceDown api
    Service: api
    Environment: prod
    The api does not answer since 10:02.
    Users see errors.
    Alerts
    🔥 ServiceDown api-1 · since 2026-11-22 10:02 UTC
    ✅ ServiceDown api-2 · ended 2026-11-22 10:05 UTC
    +3 more
    Automation
    restart-service waits for approval
    Approval needed: restart-service
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    0/1 approved · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be · until 2026-11-22 10:20 UTC
    Approve
    Are you sure?
    Really run restart-service? It destroys something for good.
    Deny
    Unacknowledge
    Resolve
    Runbook
    acknowledged · opened Nov 22, 2026 10:02 · updated Nov 22, 2026 10:06
    --- mitigated #1d7fc4
    🩹 [P1] #142 ServiceDown api
    Service: api
    Environment: prod
    The api does not answer since 10:02.
    Users see errors.
    Alerts
    🔥 ServiceDown api-1 · since 2026-11-22 10:02 UTC
    ✅ ServiceDown api-2 · ended 2026-11-22 10:05 UTC
    +3 more
    Automation
    restart-service waits for approval
    Approval: restart-service
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    Resolve
    Runbook
    mitigated · opened Nov 22, 2026 10:02 · updated Nov 22, 2026 10:06
    --- resolved #2eb886
    ✅ [P1] #142 ServiceDown api
    Service: api
    Environment: prod
    The api does not answer since 10:02.
    Users see errors.
    Alerts
    🔥 ServiceDown api-1 · since 2026-11-22 10:02 UTC
    ✅ ServiceDown api-2 · ended 2026-11-22 10:05 UTC
    +3 more
    Automation
    restart-service waits for approval
    Approval: restart-service
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    Reopen
    Runbook
    resolved · opened Nov 22, 2026 10:02 · updated Nov 22, 2026 10:06
    --- closed #868e96
    ☑️ [P1] #142 ServiceDown api
    Service: api
    Environment: prod
    The api does not answer since 10:02.
    Users see errors.
    Alerts
    🔥 ServiceDown api-1 · since 2026-11-22 10:02 UTC
    ✅ ServiceDown api-2 · ended 2026-11-22 10:05 UTC
    +3 more
    Automation
    restart-service waits for approval
    Approval: restart-service
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    Runbook
    closed · opened Nov 22, 2026 10:02 · updated Nov 22, 2026 10:06
    "#);
    world.nothing_refused();
}

//! What people read on a card, as a snapshot of each state.

use super::*;

#[tokio::test]
async fn cards_read_like_this() {
    let world = world().await;
    let mut all = String::new();
    for state in STATES {
        let seen = world.posted(&card(state), state.as_str()).await;
        all += &format!("--- {} #{:06x}\n{}\n", state.as_str(), seen.color().unwrap_or_default(), seen.visible_text());
    }
    insta::assert_snapshot!(all, @r#"
    --- open #a30200
    🔴 **[P1] #142 ServiceDown api**
    **open** · opened <t:1795341750:R>
    The api does not answer since 10:02.
    Users see errors.
    **Alerts**
    🔥 ServiceDown api-1 · since <t:1795341720:R>
    ✅ ServiceDown api-2 · ended <t:1795341900:R>
    +3 more
    **Automation**
    • restart-service waits for approval
    Runbook: https://wiki.example/restart
    Service
    api
    Environment
    prod
    Incident #142
    Acknowledge
    Resolve
    Run
    --- acknowledged #daa038
    👀 **[P1] #142 ServiceDown api** · approval needed
    **acknowledged** · opened <t:1795341750:R>
    The api does not answer since 10:02.
    Users see errors.
    **Alerts**
    🔥 ServiceDown api-1 · since <t:1795341720:R>
    ✅ ServiceDown api-2 · ended <t:1795341900:R>
    +3 more
    **Automation**
    • restart-service waits for approval
    Runbook: https://wiki.example/restart
    Service
    api
    Environment
    prod
    Incident #142
    **Approval needed:** restart-service
    ```
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    ```
    0/1 approved · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    expires <t:1795342800:R>
    Approve
    Deny
    Unacknowledge
    Resolve
    --- mitigated #1d7fc4
    🩹 **[P1] #142 ServiceDown api**
    **mitigated** · opened <t:1795341750:R>
    The api does not answer since 10:02.
    Users see errors.
    **Alerts**
    🔥 ServiceDown api-1 · since <t:1795341720:R>
    ✅ ServiceDown api-2 · ended <t:1795341900:R>
    +3 more
    **Automation**
    • restart-service waits for approval
    Runbook: https://wiki.example/restart
    Service
    api
    Environment
    prod
    Incident #142
    **Approval:** restart-service
    ```
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    ```
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    Resolve
    --- resolved #2eb886
    ✅ **[P1] #142 ServiceDown api**
    **resolved** · opened <t:1795341750:R>
    The api does not answer since 10:02.
    Users see errors.
    **Alerts**
    🔥 ServiceDown api-1 · since <t:1795341720:R>
    ✅ ServiceDown api-2 · ended <t:1795341900:R>
    +3 more
    **Automation**
    • restart-service waits for approval
    Runbook: https://wiki.example/restart
    Service
    api
    Environment
    prod
    Incident #142
    **Approval:** restart-service
    ```
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    ```
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    Reopen
    --- closed #868e96
    ☑️ **[P1] #142 ServiceDown api**
    **closed** · opened <t:1795341750:R>
    The api does not answer since 10:02.
    Users see errors.
    **Alerts**
    🔥 ServiceDown api-1 · since <t:1795341720:R>
    ✅ ServiceDown api-2 · ended <t:1795341900:R>
    +3 more
    **Automation**
    • restart-service waits for approval
    Runbook: https://wiki.example/restart
    Service
    api
    Environment
    prod
    Incident #142
    **Approval:** restart-service
    ```
    1. service.restart on api (compose) {"signal":"TERM"}
    then verify: http.check within 2m
    ```
    approved by ann · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be
    "#);
    world.nothing_refused();
}

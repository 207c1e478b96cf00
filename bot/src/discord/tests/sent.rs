//! What Discord is sent for a card, as a snapshot.

use super::*;

/// A card with everything on it.
#[test]
fn a_card_is_sent_like_this() {
    let content = serde_json::to_value(render::card(&card(IncidentState::Acknowledged))).unwrap();
    insta::assert_json_snapshot!(content, @r#"
    {
      "allowed_mentions": {
        "parse": [],
        "roles": [],
        "users": []
      },
      "attachments": [],
      "components": [
        {
          "components": [
            {
              "custom_id": "?approve.0198c0de000070008000000000000a11.45e682433be8e53d14473b189f6510ea",
              "disabled": false,
              "label": "Approve",
              "style": 1,
              "type": 2
            },
            {
              "custom_id": "deny.0198c0de000070008000000000000a11.87c573af45e6a4e50e2e67d713ee301d",
              "disabled": false,
              "label": "Deny",
              "style": 4,
              "type": 2
            },
            {
              "custom_id": "unack.0198c0de000070008000000000000142.eb3f427c6a4c7afb4e4db55582c708d0",
              "disabled": false,
              "label": "Unacknowledge",
              "style": 2,
              "type": 2
            },
            {
              "custom_id": "resolve.0198c0de000070008000000000000142.42919e4b8ad1624259072c4912954390",
              "disabled": false,
              "label": "Resolve",
              "style": 2,
              "type": 2
            }
          ],
          "type": 1
        }
      ],
      "content": "👀 **\\[P1\\] \\#142 ServiceDown api** · approval needed",
      "embeds": [
        {
          "color": 14327864,
          "description": "**acknowledged** · opened <t:1795341750:R>\nThe api does not answer since 10\\:02\\.\nUsers see errors\\.\n**Alerts**\n🔥 ServiceDown api\\-1 · since <t:1795341720:R>\n✅ ServiceDown api\\-2 · ended <t:1795341900:R>\n\\+3 more\n**Automation**\n• restart\\-service waits for approval\nRunbook: <https://wiki.example/restart>",
          "fields": [
            {
              "inline": true,
              "name": "Service",
              "value": "api"
            },
            {
              "inline": true,
              "name": "Environment",
              "value": "prod"
            }
          ],
          "footer": {
            "text": "Incident #142"
          },
          "timestamp": "2026-11-22T10:06:00Z",
          "type": "rich"
        },
        {
          "color": 14327864,
          "description": "**Approval needed\\:** restart\\-service\n```\n1. service.restart on api (compose) {\"signal\":\"TERM\"}\nthen verify: http.check within 2m\n```\n0/1 approved · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be\nexpires <t:1795342800:R>",
          "type": "rich"
        }
      ],
      "enforce_nonce": false,
      "sticker_ids": [],
      "tts": false
    }
    "#);
}

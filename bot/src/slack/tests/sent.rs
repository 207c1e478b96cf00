//! What Slack is sent for a card, as a snapshot.

use super::*;

/// A card with everything on it.
#[test]
fn a_card_is_sent_like_this() {
    let content = serde_json::to_value(render::card(&card(IncidentState::Acknowledged))).unwrap();
    insta::assert_json_snapshot!(content, @r##"
    {
      "attachments": [
        {
          "blocks": [
            {
              "elements": [
                {
                  "elements": [
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "Service: ",
                      "type": "text"
                    },
                    {
                      "text": "api\n",
                      "type": "text"
                    },
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "Environment: ",
                      "type": "text"
                    },
                    {
                      "text": "prod",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_section"
                }
              ],
              "type": "rich_text"
            },
            {
              "text": {
                "emoji": false,
                "text": "The api does not answer since 10:02.\nUsers see errors.",
                "type": "plain_text"
              },
              "type": "section"
            },
            {
              "elements": [
                {
                  "elements": [
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "Alerts",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_section"
                },
                {
                  "elements": [
                    {
                      "elements": [
                        {
                          "text": "🔥 ServiceDown api-1 · since ",
                          "type": "text"
                        },
                        {
                          "fallback": "2026-11-22 10:02 UTC",
                          "format": "{date_short_pretty} {time}",
                          "timestamp": 1795341720,
                          "type": "date"
                        }
                      ],
                      "type": "rich_text_section"
                    },
                    {
                      "elements": [
                        {
                          "text": "✅ ServiceDown api-2 · ended ",
                          "type": "text"
                        },
                        {
                          "fallback": "2026-11-22 10:05 UTC",
                          "format": "{date_short_pretty} {time}",
                          "timestamp": 1795341900,
                          "type": "date"
                        }
                      ],
                      "type": "rich_text_section"
                    }
                  ],
                  "style": "bullet",
                  "type": "rich_text_list"
                },
                {
                  "elements": [
                    {
                      "text": "+3 more",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_section"
                }
              ],
              "type": "rich_text"
            },
            {
              "elements": [
                {
                  "elements": [
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "Automation",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_section"
                },
                {
                  "elements": [
                    {
                      "elements": [
                        {
                          "text": "restart-service waits for approval",
                          "type": "text"
                        }
                      ],
                      "type": "rich_text_section"
                    }
                  ],
                  "style": "bullet",
                  "type": "rich_text_list"
                }
              ],
              "type": "rich_text"
            }
          ],
          "color": "#daa038",
          "fallback": "👀 [P1] #142 ServiceDown api (acknowledged; approval needed: restart-service)"
        },
        {
          "blocks": [
            {
              "elements": [
                {
                  "elements": [
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "Approval needed: ",
                      "type": "text"
                    },
                    {
                      "style": {
                        "bold": true
                      },
                      "text": "restart-service",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_section"
                },
                {
                  "elements": [
                    {
                      "text": "1. service.restart on api (compose) {\"signal\":\"TERM\"}\nthen verify: http.check within 2m",
                      "type": "text"
                    }
                  ],
                  "type": "rich_text_preformatted"
                },
                {
                  "elements": [
                    {
                      "text": "0/1 approved · risk: disruptive · asked by automation · may decide: sre · plan 3f9a6c2d10be",
                      "type": "text"
                    },
                    {
                      "text": " · until ",
                      "type": "text"
                    },
                    {
                      "fallback": "2026-11-22 10:20 UTC",
                      "format": "{date_short_pretty} {time}",
                      "timestamp": 1795342800,
                      "type": "date"
                    }
                  ],
                  "type": "rich_text_section"
                }
              ],
              "type": "rich_text"
            },
            {
              "elements": [
                {
                  "action_id": "approve.0",
                  "confirm": {
                    "confirm": {
                      "emoji": false,
                      "text": "Approve",
                      "type": "plain_text"
                    },
                    "deny": {
                      "text": "Cancel",
                      "type": "plain_text"
                    },
                    "text": {
                      "emoji": false,
                      "text": "Really run restart-service? It destroys something for good.",
                      "type": "plain_text"
                    },
                    "title": {
                      "text": "Are you sure?",
                      "type": "plain_text"
                    }
                  },
                  "style": "primary",
                  "text": {
                    "emoji": false,
                    "text": "Approve",
                    "type": "plain_text"
                  },
                  "type": "button",
                  "value": "approve.0198c0de000070008000000000000a11.45e682433be8e53d14473b189f6510ea"
                },
                {
                  "action_id": "deny.1",
                  "style": "danger",
                  "text": {
                    "emoji": false,
                    "text": "Deny",
                    "type": "plain_text"
                  },
                  "type": "button",
                  "value": "deny.0198c0de000070008000000000000a11.87c573af45e6a4e50e2e67d713ee301d"
                },
                {
                  "action_id": "unack.2",
                  "text": {
                    "emoji": false,
                    "text": "Unacknowledge",
                    "type": "plain_text"
                  },
                  "type": "button",
                  "value": "unack.0198c0de000070008000000000000142.eb3f427c6a4c7afb4e4db55582c708d0"
                },
                {
                  "action_id": "resolve.3",
                  "text": {
                    "emoji": false,
                    "text": "Resolve",
                    "type": "plain_text"
                  },
                  "type": "button",
                  "value": "resolve.0198c0de000070008000000000000142.42919e4b8ad1624259072c4912954390"
                }
              ],
              "type": "actions"
            },
            {
              "elements": [
                {
                  "elements": [
                    {
                      "text": "Runbook",
                      "type": "link",
                      "url": "https://wiki.example/restart"
                    }
                  ],
                  "type": "rich_text_section"
                }
              ],
              "type": "rich_text"
            },
            {
              "elements": [
                {
                  "text": "acknowledged · opened <!date^1795341750^{date_short_pretty} {time}|2026-11-22 10:02 UTC> · updated <!date^1795341960^{date_short_pretty} {time}|2026-11-22 10:06 UTC>",
                  "type": "mrkdwn",
                  "verbatim": true
                }
              ],
              "type": "context"
            }
          ],
          "color": "#daa038",
          "fallback": "👀 [P1] #142 ServiceDown api (acknowledged; approval needed: restart-service)"
        }
      ],
      "blocks": [
        {
          "text": {
            "emoji": false,
            "text": "👀 [P1] #142 ServiceDown api",
            "type": "plain_text"
          },
          "type": "header"
        }
      ],
      "text": "👀 [P1] #142 ServiceDown api (acknowledged; approval needed: restart-service)"
    }
    "##);
}

//! The JSON Schema of a whole configuration file, for editors: the rules' part and the server's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use actions::egress::Exception;
use domain::rules;
use schemars::{JsonSchema, Schema, schema_for};
use serde_json::{Map, Value, json};

use super::fill::SECRET_KEYS;

/// The server's sections. All are optional.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "it is read by its schema only: each section is decoded by itself")]
pub(super) struct Sections {
    /// Further files: paths with `*` and `?`, beginning at this file's folder.
    include: Option<Vec<String>>,
    server: Option<super::server::Written>,
    /// The folder for SQLite, generated keys and supervised children. Default /var/lib/watchkeeper.
    data_dir: Option<PathBuf>,
    store: Option<super::store::WrittenStore>,
    keys: Option<super::store::WrittenKeys>,
    sources: Option<BTreeMap<String, super::sources::Written>>,
    slack: Option<super::chat::WrittenSlack>,
    discord: Option<super::chat::WrittenDiscord>,
    nats: Option<super::bus::Written>,
    ingest: Option<super::bus::Ingest>,
    agents: Option<super::agents::Written>,
    /// Programs that `command` may run: absolute paths.
    programs: Option<Vec<PathBuf>>,
    /// Where requests may go besides public addresses on ports 80 and 443.
    egress: Option<Vec<Exception>>,
    tools: Option<super::actions::WrittenTools>,
    heartbeat: Option<super::operations::WrittenHeartbeat>,
    audit: Option<super::operations::WrittenAudit>,
    log: Option<super::operations::WrittenLog>,
    telemetry: Option<super::operations::TelemetryConfig>,
    retention: Option<super::retention::Written>,
}

/// The schema of the whole file.
pub(crate) fn json_schema() -> Schema {
    let mut whole = rules::json_schema().to_value();
    let mut server = schema_for!(Sections).to_value();
    secrets_by_file(&mut server);
    for key in ["properties", "$defs"] {
        let (Some(Value::Object(mut mine)), Some(all)) =
            (server.get_mut(key).map(Value::take), whole.get_mut(key).and_then(Value::as_object_mut))
        else {
            continue;
        };
        all.append(&mut mine);
    }
    whole["title"] = json!("Watchkeeper");
    whole["description"] = json!("Watchkeeper's configuration: the server's sections and the rules. All keys are optional.");
    Schema::try_from(whole).unwrap_or_default()
}

/// Every secret may be given as `NAME_file`, with the path of a file that holds it.
fn secrets_by_file(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            by_file(fields);
            fields.values_mut().for_each(secrets_by_file);
        }
        Value::Array(items) => items.iter_mut().for_each(secrets_by_file),
        _ => {}
    }
}

fn by_file(fields: &mut Map<String, Value>) {
    let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) else { return };
    let secrets: Vec<&str> = SECRET_KEYS.into_iter().filter(|key| properties.contains_key(*key)).collect();
    for key in &secrets {
        let mut twin = properties[*key].clone();
        twin["description"] = json!(format!("`{key}`, as the path of a file that holds it."));
        properties.insert(format!("{key}_file"), twin);
    }
    // One of the two is needed, which this schema leaves to `watchkeeper check`.
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !name.as_str().is_some_and(|name| secrets.contains(&name)));
    }
}

//! The names of the gateway's metrics, and what they mean. Labels are configured names and fixed words, never what a sender chose.

use metrics::{Unit, describe_counter, describe_histogram};

/// Gives every metric its help text. Harmless when it is called again.
pub(crate) fn describe() {
    describe_counter!("watchkeeper_events_received_total", "Events accepted from a source, repeats included.");
    describe_counter!("watchkeeper_events_deduplicated_total", "Events that had been heard before.");
    describe_counter!("watchkeeper_events_rejected_total", "Requests of a source that were refused, by reason.");
    describe_counter!("watchkeeper_events_truncated_total", "Alerts that a source says it left out of its requests.");
    describe_histogram!(
        "watchkeeper_ingest_duration_seconds",
        Unit::Seconds,
        "From the headers of an accepted request to its durable commit."
    );
    describe_counter!("watchkeeper_http_requests_total", "Requests by route pattern, method and status.");
    describe_histogram!(
        "watchkeeper_http_request_duration_seconds",
        Unit::Seconds,
        "From the headers of a request to the headers of its answer."
    );
    describe_counter!("watchkeeper_authz_denied_total", "API calls that were refused, by reason.");
    describe_counter!("watchkeeper_connections_refused_total", "Connections closed at once because too many were open.");
    describe_counter!("watchkeeper_tls_reloads_total", "Reloads of the certificate files, by outcome.");
}

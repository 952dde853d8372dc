//! `GET /metrics`: metrics for Prometheus (text format 0.0.4), for accounts with the role `admin`.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use pinfold_model::ClusterId;
use pinfold_service::{DamagedPin, Usage};

use crate::AppState;
use crate::middleware::auth::RequireAdminRole;
use crate::v3::openapi::Guarded;
use crate::v3::reject::Reject;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A gauge of a cluster: name, help text, and reader.
type Gauge = (&'static str, &'static str, fn(&Usage) -> u64);

const GAUGES: [Gauge; 7] = [
    ("pinfold_blocks", "Distinct blocks that are stored.", |usage| usage.blocks),
    ("pinfold_blocks_bytes", "Bytes of distinct blocks: each counts once.", |usage| usage.bytes),
    ("pinfold_holds", "DAGs that are held or on their way.", |usage| usage.holds),
    ("pinfold_held_blocks", "Blocks of all DAGs added up: each counts as often as it is held.", |usage| {
        usage.held_blocks
    }),
    ("pinfold_held_bytes", "Bytes of all DAGs added up.", |usage| usage.held_bytes),
    ("pinfold_disk_bytes", "What segments and index take on disk.", |usage| usage.disk_bytes),
    ("pinfold_damaged_blocks", "Blocks that are known to be damaged.", |usage| usage.damaged_blocks),
];

/// Get metrics
///
/// Metrics in the Prometheus text format 0.0.4. Any API key of an account with the role `admin` can read them.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "service", security(("key" = []), ("session" = [])),
    responses((status = 200, description = "The metrics.", content_type = "text/plain", body = String,
        example = "# TYPE pinfold_blocks gauge\npinfold_blocks{cluster=\"cl0-global\"} 12\n"), Guarded))]
pub(crate) async fn metrics(
    _admin: RequireAdminRole,
    State(app): State<AppState>,
) -> Result<impl IntoResponse, Reject> {
    let usage = app.service().clusters.usage().await;
    let damaged = app.service().damaged_pins.list().await?;
    Ok(([(CONTENT_TYPE, TEXT)], text(&usage, &damaged)))
}

fn text(clusters: &[(ClusterId, Usage)], damaged: &[DamagedPin]) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&ClusterId, &Usage) -> u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (cluster, usage) in clusters {
            let _ = writeln!(text, "{name}{{cluster=\"{cluster}\"}} {}", value(cluster, usage));
        }
    };
    for (name, help, read) in GAUGES {
        gauge(name, help, &|_, usage| read(usage));
    }
    let pins = |cluster: &ClusterId| damaged.iter().filter(|pin| pin.cluster == *cluster).count() as u64;
    gauge("pinfold_damaged_pins", "Pinned DAGs with damaged blocks.", &|cluster, _| pins(cluster));
    text
}

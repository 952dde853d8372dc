//! The options that pins and uploads have in common: names, cluster, timelock and retention.

use pinfold_model::{ClusterId, PinName, PinOptions, Retention, Timelock, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use super::reject::Reject;

/// The options as received. An empty value counts as absent.
#[derive(Debug, Default, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PinOptions)]
pub(crate) struct PinOptionsBody {
    /// Name of the content at its source; up to 255 bytes.
    pub(crate) original_name: Option<String>,
    /// Your name for the pin; up to 255 bytes.
    pub(crate) custom_name: Option<String>,
    /// Cluster to pin in. Default: `cl0-global`.
    #[schema(example = "cl0-global")]
    pub(crate) cl: Option<String>,
    /// When the pin ends, in RFC 3339 with an offset. Needs a plan with `timelockAllowed`.
    #[schema(example = "2036-12-31T23:59:59Z")]
    pub(crate) timelock: Option<String>,
    /// The pin cannot be removed before this time (RFC 3339 with an offset). It can be extended, but not shortened. Needs a plan
    /// with `retentionLockAllowed`.
    #[schema(example = "2030-12-31T23:59:59Z")]
    pub(crate) retain_until: Option<String>,
}

impl PinOptionsBody {
    /// Parses the options. Times must be later than `now`.
    pub(crate) fn parse(&self, now: Timestamp) -> Result<PinOptions, Reject> {
        Ok(PinOptions {
            original_name: parse_name("originalName", self.original_name.as_deref())?,
            custom_name: parse_name("customName", self.custom_name.as_deref())?,
            timelock: parse_timelock(self.timelock.as_deref(), now)?,
            retention: parse_retention(self.retain_until.as_deref(), now)?,
            origins: Vec::new(),
        })
    }

    /// Parses the cluster. `hint` is used if the body names none.
    pub(crate) fn cluster(&self, hint: Option<&str>) -> Result<Option<ClusterId>, Reject> {
        parse_cluster(filled(self.cl.as_deref()).or(hint))
    }

    /// The option that a form field sets, if it sets one. The last of several fields with the same name wins.
    pub(crate) fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        match name {
            "originalName" => Some(&mut self.original_name),
            "customName" => Some(&mut self.custom_name),
            "cl" => Some(&mut self.cl),
            "timelock" => Some(&mut self.timelock),
            "retainUntil" => Some(&mut self.retain_until),
            _ => None,
        }
    }
}

/// A name, for which `field` is the name in the API.
pub(crate) fn parse_name(field: &str, text: Option<&str>) -> Result<Option<PinName>, Reject> {
    let name = filled(text).map(PinName::parse).transpose();
    name.map_err(|error| Reject::invalid(format!("`{field}`: {error}")))
}

/// A cluster. A malformed id is an unknown cluster.
pub(crate) fn parse_cluster(text: Option<&str>) -> Result<Option<ClusterId>, Reject> {
    let cluster = filled(text).map(|text| ClusterId::parse(text.trim())).transpose();
    cluster.map_err(|error| Reject::invalid(format!("Unknown cluster: {error}")))
}

fn parse_timelock(text: Option<&str>, now: Timestamp) -> Result<Option<Timelock>, Reject> {
    let timelock = filled(text).map(|text| Timelock::parse(text, now)).transpose();
    timelock.map_err(|error| Reject::invalid(error.to_string()))
}

fn parse_retention(text: Option<&str>, now: Timestamp) -> Result<Option<Retention>, Reject> {
    let retention = filled(text).map(|text| Retention::parse(text, now)).transpose();
    retention.map_err(|error| Reject::invalid(error.to_string()))
}

/// The value of fields that mean the same. Clients send back what they received, so several may be present if they agree.
pub(crate) fn agreed<'a>(fields: &[(&str, Option<&'a str>)]) -> Result<Option<&'a str>, Reject> {
    let mut said = fields.iter().filter_map(|(name, text)| Some((*name, filled(*text)?.trim())));
    let Some((first, text)) = said.next() else { return Ok(None) };
    match said.find(|(_, other)| *other != text) {
        None => Ok(Some(text)),
        Some((other, _)) => Err(Reject::invalid(format!("`{first}` and `{other}` have different values"))),
    }
}

/// The text, unless it is blank.
pub(crate) fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_ms(1_767_225_600_000)
    }

    fn body(cl: &str, timelock: &str, custom_name: &str) -> PinOptionsBody {
        let some = |text: &str| Some(text.to_owned());
        PinOptionsBody {
            original_name: None,
            custom_name: some(custom_name),
            cl: some(cl),
            timelock: some(timelock),
            retain_until: None,
        }
    }

    #[test]
    fn empty_values_count_as_absent() {
        let body = body("", " ", "");
        assert_eq!(body.parse(now()).expect("valid options"), PinOptions::default());
        assert_eq!(body.cluster(None).expect("valid cluster"), None);
    }

    #[test]
    fn cluster_in_body_takes_precedence() {
        let cluster =
            |cl: &str, hint| body(cl, "", "").cluster(hint).expect("valid cluster").map(|id| id.to_string());
        assert_eq!(cluster("eu", Some("us")).as_deref(), Some("eu"));
        assert_eq!(cluster("", Some("us")).as_deref(), Some("us"));
        assert_eq!(cluster("", None), None);
    }

    #[test]
    fn error_names_the_field() {
        let fault = |body: PinOptionsBody| format!("{:?}", body.parse(now()).expect_err("invalid"));
        let unknown = body("no such!", "", "").cluster(None).expect_err("invalid");
        assert!(format!("{unknown:?}").contains("Unknown cluster"));
        assert!(fault(body("", "yesterday", "")).contains("timelock"));
        assert!(fault(body("", "", "a\0b")).contains("`customName`"));
    }
}

//! The words that pins and uploads have in common: two names, a cluster, a timelock and a lock against removal.

use pinfold_model::{ClusterId, PinName, Retention, Timelock, Timestamp};
use pinfold_service::UploadOptions;
use serde::Deserialize;
use utoipa::ToSchema;

use super::reject::Reject;

/// The words as they came. An empty one counts as left out.
#[derive(Debug, Default, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Terms)]
pub(super) struct TermsBody {
    /// What the content was called where it came from; up to 255 bytes.
    pub(super) original_name: Option<String>,
    /// What you call it; up to 255 bytes.
    pub(super) custom_name: Option<String>,
    /// The cluster.
    #[schema(example = "cl0-global")]
    pub(super) cl: Option<String>,
    /// When it ends by itself: RFC 3339 with an offset.
    #[schema(example = "2036-12-31T23:59:59Z")]
    pub(super) timelock: Option<String>,
    /// Until when it can't be removed: RFC 3339 with an offset. Can only be extended.
    #[schema(example = "2030-12-31T23:59:59Z")]
    pub(super) retain_until: Option<String>,
}

/// The words, parsed.
#[derive(Debug, Default, Clone)]
pub(super) struct Terms {
    pub(super) original_name: Option<PinName>,
    pub(super) custom_name: Option<PinName>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) timelock: Option<Timelock>,
    pub(super) retention: Option<Retention>,
}

impl Terms {
    /// The terms of an upload.
    pub(super) fn into_upload(self) -> UploadOptions {
        let Self { original_name, custom_name, cluster, timelock, retention } = self;
        UploadOptions { original_name, custom_name, cluster, timelock, retention }
    }
}

impl TermsBody {
    /// Parses all of them. `cluster_hint` counts where the body names no cluster.
    pub(super) fn parse(&self, cluster_hint: Option<&str>, now: Timestamp) -> Result<Terms, Reject> {
        Ok(Terms {
            original_name: parse_name("originalName", self.original_name.as_deref())?,
            custom_name: parse_name("customName", self.custom_name.as_deref())?,
            cluster: parse_cluster(filled(self.cl.as_deref()).or(cluster_hint))?,
            timelock: parse_timelock(self.timelock.as_deref(), now)?,
            retention: parse_retention(self.retain_until.as_deref(), now)?,
        })
    }

    /// Takes a field of a form, if it is one of these. The last of two equal ones counts.
    pub(super) fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
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

/// A name, for which `field` is the API's word.
pub(super) fn parse_name(field: &str, text: Option<&str>) -> Result<Option<PinName>, Reject> {
    let name = filled(text).map(PinName::parse).transpose();
    name.map_err(|error| Reject::invalid(format!("`{field}`: {error}")))
}

/// A cluster. What can't be a cluster's id is no known cluster either.
pub(super) fn parse_cluster(text: Option<&str>) -> Result<Option<ClusterId>, Reject> {
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

/// What fields say that mean the same. Clients send what they were shown, so all of them may be there if they agree.
pub(super) fn agreed<'a>(fields: &[(&str, Option<&'a str>)]) -> Result<Option<&'a str>, Reject> {
    let mut said = fields.iter().filter_map(|(name, text)| Some((*name, filled(*text)?.trim())));
    let Some((first, text)) = said.next() else { return Ok(None) };
    match said.find(|(_, other)| *other != text) {
        None => Ok(Some(text)),
        Some((other, _)) => Err(Reject::invalid(format!("`{first}` and `{other}` say different things"))),
    }
}

/// The text, unless there is nothing in it.
pub(super) fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_ms(1_767_225_600_000)
    }

    fn body(cl: &str, timelock: &str, custom_name: &str) -> TermsBody {
        let some = |text: &str| Some(text.to_owned());
        TermsBody {
            original_name: None,
            custom_name: some(custom_name),
            cl: some(cl),
            timelock: some(timelock),
            retain_until: None,
        }
    }

    #[test]
    fn empty_words_are_left_out_ones() {
        let terms = body("", " ", "").parse(None, now()).expect("nothing is wrong");
        assert!(terms.cluster.is_none() && terms.timelock.is_none() && terms.custom_name.is_none());
    }

    #[test]
    fn the_bodys_cluster_beats_the_hint() {
        let cluster = |cl: &str, hint| {
            body(cl, "", "").parse(hint, now()).expect("a cluster").cluster.map(|id| id.to_string())
        };
        assert_eq!(cluster("eu", Some("us")).as_deref(), Some("eu"));
        assert_eq!(cluster("", Some("us")).as_deref(), Some("us"));
        assert_eq!(cluster("", None), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fault = |body: TermsBody| format!("{:?}", body.parse(None, now()).expect_err("it is wrong"));
        assert!(fault(body("no such!", "", "")).contains("Unknown cluster"));
        assert!(fault(body("", "yesterday", "")).contains("timelock"));
        assert!(fault(body("", "", "a\0b")).contains("`customName`"));
    }
}

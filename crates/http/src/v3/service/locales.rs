//! `/locales`: languages (ISO 639-1) and countries (ISO 3166-1).

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::v3::openapi::Anyone;

/// One a line: the code, a blank, the name.
const LANGUAGES: &str = include_str!("locales/languages.txt");
const COUNTRIES: &str = include_str!("locales/countries.txt");

/// A language or a country.
#[derive(Serialize, ToSchema)]
struct Locale {
    code: &'static str,
    /// English name.
    name: &'static str,
}

/// Languages, by code.
#[derive(Serialize, ToSchema)]
pub(crate) struct LanguagesReply {
    languages: Vec<Locale>,
}

/// Countries, by code.
#[derive(Serialize, ToSchema)]
pub(crate) struct CountriesReply {
    countries: Vec<Locale>,
}

/// List languages
#[utoipa::path(get, path = "/locales/languages", operation_id = "listLanguages", tag = "service", security(()),
    responses((status = 200, description = "Languages of ISO 639-1.", body = LanguagesReply, example = json!({"languages": [{"code": "en", "name": "English"}]})), Anyone))]
pub(crate) async fn languages() -> Json<LanguagesReply> {
    Json(LanguagesReply { languages: read(LANGUAGES).collect() })
}

/// List countries
#[utoipa::path(get, path = "/locales/countries", operation_id = "listCountries", tag = "service", security(()),
    responses((status = 200, description = "Countries of ISO 3166-1.", body = CountriesReply, example = json!({"countries": [{"code": "IS", "name": "Iceland"}]})), Anyone))]
pub(crate) async fn countries() -> Json<CountriesReply> {
    Json(CountriesReply { countries: read(COUNTRIES).collect() })
}

fn read(list: &'static str) -> impl Iterator<Item = Locale> {
    list.lines().filter_map(|line| line.split_once(' ')).map(|(code, name)| Locale { code, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_complete_and_sorted() {
        for (list, count, is_code) in [
            (LANGUAGES, 183, u8::is_ascii_lowercase as fn(&u8) -> bool),
            (COUNTRIES, 249, u8::is_ascii_uppercase as fn(&u8) -> bool),
        ] {
            let codes: Vec<_> = read(list).map(|locale| locale.code).collect();
            assert_eq!((codes.len(), list.lines().count()), (count, count));
            assert!(codes.is_sorted_by(|one, other| one < other), "each once");
            assert!(codes.iter().all(|code| code.len() == 2 && code.as_bytes().iter().all(is_code)));
            assert!(read(list).all(|locale| !locale.name.trim().is_empty()));
        }
    }
}

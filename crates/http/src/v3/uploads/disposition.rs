//! What a part of a form is called, as clients really write it.
//!
//! RFC 7578 and the WHATWG's form encoding disagree on quotes, and clients on both. Read here are: raw UTF-8 (what is
//! none is taken as Latin-1); quotes and backslashes behind a backslash (curl before 7.81, Go, PHP); `%22`, `%0D` and
//! `%0A` for what can't stand in a header (browsers, undici, curl since, Python); and `filename*` (RFC 8187; older
//! Pythons). Other percent signs and backslashes stand for themselves: names have them.

/// The names in a `Content-Disposition`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Disposition {
    /// The field's.
    pub(crate) name: Option<String>,
    /// The file's; `None` also for an empty one.
    pub(crate) file_name: Option<String>,
}

impl Disposition {
    /// Reads a header's value. What makes no sense in it is passed over.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let text = text_of(value);
        let (_, mut rest) = text.split_once(';').unwrap_or_default();
        let (mut name, mut plain, mut extended) = (None, None, None);
        while !rest.trim().is_empty() {
            let (key, value, left) = parameter(rest);
            rest = left;
            match key.to_ascii_lowercase().as_str() {
                "name" if name.is_none() => name = Some(unescaped(&value)),
                "filename" if plain.is_none() => plain = Some(unescaped(&value)),
                "filename*" if extended.is_none() => extended = extended_value(&value),
                _ => {}
            }
        }
        Self { name, file_name: extended.or(plain).filter(|name| !name.is_empty()) }
    }
}

/// UTF-8, or else Latin-1, in which each byte is a character.
fn text_of(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

/// The next parameter: its key, its value, and what follows.
fn parameter(text: &str) -> (&str, String, &str) {
    let end = text.find(['=', ';']).unwrap_or(text.len());
    let (key, rest) = (text[..end].trim(), &text[end..]);
    let Some(value) = rest.strip_prefix('=') else {
        return (key, String::new(), rest.strip_prefix(';').unwrap_or_default());
    };
    let (value, rest) = match value.trim_start().strip_prefix('"') {
        Some(quoted) => quoted_value(quoted),
        None => {
            let end = value.find(';').unwrap_or(value.len());
            (value[..end].trim().to_owned(), &value[end..])
        }
    };
    (key, value, rest.split_once(';').unwrap_or_default().1)
}

/// A value behind its opening quote, and what follows its closing one.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut signs = text.char_indices().peekable();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return (value, &text[at + 1..]),
            '\\' => match signs.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    // What was taken for an escaped quote was the closing one behind a path that ends in a backslash.
    if let Some(path) = value.strip_suffix('"') {
        value = format!("{path}\\");
    }
    (value, "")
}

/// Decodes the three characters that browsers encode because a header can't contain them.
fn unescaped(value: &str) -> String {
    let mut value = value.to_owned();
    for (escaped, sign) in [("%22", "\""), ("%0D", "\r"), ("%0d", "\r"), ("%0A", "\n"), ("%0a", "\n")] {
        value = value.replace(escaped, sign);
    }
    value
}

/// The text of `charset'language'value` (RFC 8187).
fn extended_value(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decoded(encoded)?;
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

/// The bytes of a text whose percent-encoding is undone; `None` if it is broken.
pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_name(parameters: &str) -> Option<String> {
        Disposition::parse(format!("form-data; name=\"f\"; {parameters}").as_bytes()).file_name
    }

    #[test]
    fn quotes_are_parsed_as_each_client_writes_them() {
        for (client, parameters, name) in [
            ("plain", r#"filename="a b.txt""#, "a b.txt"),
            ("no quotes", "filename=a.txt", "a.txt"),
            ("old curl, Go", r#"filename="say \"hi\" \\o/.txt""#, r#"say "hi" \o/.txt"#),
            ("browsers, undici, curl", "filename=\"say %22hi%22.txt\"", "say \"hi\".txt"),
            ("undici on Windows", r#"filename="dir\a.txt""#, r"dir\a.txt"),
            ("a path that ends so", r#"filename="C:\dir\""#, r"C:\dir\"),
            ("raw UTF-8", "filename=\"naïve 🐟.txt\"", "naïve 🐟.txt"),
            ("old Python", "filename*=utf-8''na%C3%AFve%20.txt", "naïve .txt"),
            ("with a language", "filename=\"x\"; filename*=UTF-8'en'b", "b"),
            ("the other way round", "filename*=UTF-8''b; filename=\"x\"", "b"),
            ("Latin-1", "filename*=iso-8859-1''na%EFve", "naïve"),
            ("a name with a percent", "filename=\"100%25 of %41.txt\"", "100%25 of %41.txt"),
            ("a semicolon in quotes", "filename=\"a;filename=b.txt\"; x=y", "a;filename=b.txt"),
            ("capitals and blanks", " FileName = \"a\" ", "a"),
        ] {
            assert_eq!(file_name(parameters).as_deref(), Some(name), "{client}");
        }
    }

    #[test]
    fn malformed_parameters_are_ignored() {
        for bad in [
            "",
            ";;",
            "filename",
            "filename=",
            "filename=\"\"",
            "filename*=latin9''a",
            "filename*=utf-8''%",
            "filename*=utf-8''%zz",
            "filename*=utf-8''%+1",
            "filename*=utf-8''%ff",
            "filename*=é",
            "filename*=utf-8'a",
        ] {
            assert_eq!(file_name(bad), None, "{bad}");
        }
        assert_eq!(Disposition::parse(b"form-data"), Disposition::default());
        assert_eq!(Disposition::parse(b"\xff\xfe"), Disposition::default());
    }

    #[test]
    fn bytes_that_are_no_utf8_are_latin1() {
        let parsed = Disposition::parse(b"form-data; name=\"file\"; filename=\"na\xefve\"");
        assert_eq!(parsed.file_name.as_deref(), Some("naïve"));
        assert_eq!(parsed.name.as_deref(), Some("file"));
    }

    #[test]
    fn filename_is_not_read_as_field_name() {
        let parsed = Disposition::parse(br#"form-data; filename="name=evil"; name="good""#);
        assert_eq!((parsed.name.as_deref(), parsed.file_name.as_deref()), (Some("good"), Some("name=evil")));
    }
}

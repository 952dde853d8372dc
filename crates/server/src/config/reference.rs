//! `docs/configuration.md`, made from the defaults and the comments above them.

use super::DEFAULTS;

/// The reference as Markdown.
pub(crate) fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n<!-- Made by `pinfold config --markdown` from crates/server/config.default.toml. -->\n\n",
    );
    let (mut comment, mut open) = (Vec::new(), String::new());
    for line in DEFAULTS.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if line.is_empty() {
            // Comments that a blank line ends belong to the whole file.
            if !comment.is_empty() {
                text.push_str(&format!("{}\n", comment.join("\n").trim()));
                comment.clear();
            }
        } else if let (true, Some(name)) = (open.is_empty(), line.strip_prefix('[')) {
            let section = name.trim_matches(['[', ']']);
            text.push_str(&format!("\n## {section}\n\n{}\n\n", comment.join(" ")));
            text.push_str("| key | default | meaning |\n| --- | --- | --- |\n");
            comment.clear();
        } else {
            // A list may go over several lines; its `]` ends it.
            open.push_str(line.trim());
            if open.ends_with(['[', ',']) {
                continue;
            }
            if let Some((key, default)) = open.split_once(" = ") {
                let default = default.replace(",]", "]").replace("\",\"", "\", \"");
                text.push_str(&format!("| `{key}` | `{default}` | {} |\n", comment.join(" ")));
            }
            comment.clear();
            open.clear();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            written,
            reference(),
            "write it again: cargo run -p pinfold-server -- config --markdown > docs/configuration.md"
        );
    }

    #[test]
    fn every_setting_is_in_it_with_a_meaning() {
        let reference = reference();
        let settings = DEFAULTS.lines().filter_map(|line| line.split_once(" = "));
        for (key, _) in settings.filter(|(key, _)| !key.starts_with('#')) {
            let row = reference.lines().find(|line| line.starts_with(&format!("| `{key}` ")));
            let meaning = row.and_then(|row| row.trim_end_matches(" |").rsplit(" | ").next()).unwrap_or("");
            assert!(meaning.len() > 10 && !meaning.starts_with('`'), "{key} has no comment");
        }
    }
}

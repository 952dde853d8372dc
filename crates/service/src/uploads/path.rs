//! Paths inside an uploaded directory.

use crate::Error;

/// Maximum length of a path in bytes.
const PATH_LEN_MAX: usize = 4_096;

/// Checks a path that is separated by `/`.
///
/// # Errors
/// [`Error::InvalidRequest`] if it is too long, or a segment is empty, `.`, `..` or has control characters.
pub(super) fn check_path(path: &str) -> Result<(), Error> {
    let is_plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    if path.len() <= PATH_LEN_MAX && path.split('/').all(is_plain) {
        return Ok(());
    }
    let shown: String = path.chars().take(200).collect();
    Err(Error::InvalidRequest(format!("{shown:?} is not a valid path in a directory")))
}

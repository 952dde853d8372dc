//! Uploads of files and directories, the list of uploads, and what is inside a directory.

pub(crate) mod directory;
pub(crate) mod disposition;
pub(crate) mod entries;
pub(crate) mod file;
pub(crate) mod form;
pub(crate) mod list;

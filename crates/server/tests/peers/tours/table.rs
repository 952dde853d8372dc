//! The table of `docs/reference/compatibility.md`, which must match the results of the tours.

use std::collections::BTreeMap;

use crate::cache;

const DOCUMENT: &str = "docs/reference/compatibility.md";

/// Content of a cell if a client has no method for the operation.
const NONE: &str = "–";

/// The tables of the document.
pub(crate) struct Table {
    /// Lines of the first table: a client and its version.
    clients: Vec<Vec<String>>,
    /// Lines of the second table: an operation, its request, and a cell for each client. The first line has the names
    /// of the clients.
    rows: Vec<Vec<String>>,
    /// The reasons for omissions, in the order of their numbers.
    reasons: Vec<String>,
}

impl Table {
    /// Reads the document.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(cache::repository().join(DOCUMENT)).expect("the document exists");
        let mut tables =
            text.split("\n\n").filter(|block| block.trim_start().starts_with('|')).map(|block| {
                let lines = block.trim().lines().filter(|line| !line.starts_with("| --"));
                lines.map(|line| {
                    line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
                })
            });
        let mut table = || tables.next().expect("the document has two tables").collect();
        let (clients, rows) = (table(), table());
        let items = text.lines().filter_map(|line| line.split_once(". "));
        let reasons = items.filter(|(number, _)| number.parse::<u32>().is_ok());
        let reasons = reasons.map(|(_, reason)| reason.to_owned()).collect();
        Self { clients, rows, reasons }
    }

    /// The program of a column, and its version.
    pub(crate) fn version(&self, client: &str) -> &str {
        let line = self.clients.iter().find(|line| line[0] == client);
        &line.unwrap_or_else(|| panic!("{DOCUMENT} has no version of {client}"))[1]
    }

    /// The result of a client: a status, or the reason for the omission.
    pub(crate) fn column(&self, client: &str) -> BTreeMap<String, String> {
        let at = self.rows[0].iter().position(|name| name == client);
        let at = at.unwrap_or_else(|| panic!("{DOCUMENT} has no column {client}"));
        let cells = self.rows[1..].iter().map(|row| (row[0].clone(), row[at].as_str()));
        cells
            .filter(|(_, cell)| *cell != NONE)
            .map(|(operation, cell)| (operation, self.meaning(cell)))
            .collect()
    }

    /// The request of each operation.
    pub(crate) fn requests(&self) -> BTreeMap<&str, &str> {
        self.rows[1..].iter().map(|row| (row[0].as_str(), row[1].as_str())).collect()
    }

    fn meaning(&self, cell: &str) -> String {
        let number = cell.strip_prefix('[').and_then(|cell| cell.strip_suffix(']'));
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            return cell.to_owned();
        };
        let reason = number.checked_sub(1).and_then(|at| self.reasons.get(at));
        reason.unwrap_or_else(|| panic!("{DOCUMENT} has no reason {number}")).clone()
    }
}

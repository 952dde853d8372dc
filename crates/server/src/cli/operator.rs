//! What can be typed to care for the store itself. All of it works on the data folder of this machine, whether
//! a server runs on it or not.

use std::path::PathBuf;

use clap::Args;

use super::Place;

/// Write a DAG that is here into a CAR file, on stdout or into --output.
///
/// The CAR has the CID as its root and each block once, depth first; every block is verified as it is read.
/// A block that is missing or damaged ends it with status 1, and what was written is no whole CAR then: every
/// reader finds it cut off. A file of --output appears only when it is whole.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold export bafybei… > photos.car
  pinfold export bafybei… --output photos.car
  pinfold export bafybei… | ssh other pinfold import -")]
pub(crate) struct ExportArgs {
    /// The root of what to write.
    pub(crate) cid: String,
    /// The file to write; stdout if left out.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Take the blocks of a CAR file in and pin its roots for an account.
///
/// Versions 1 and 2 are read. Every block is verified; a CAR that is cut off or has a bad block is refused and
/// leaves nothing. What a root's DAG needs beyond the CAR is fetched from the network, as for any pin. The
/// account's plan and storage bound what can be taken in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pinfold import photos.car
  pinfold import photos.car --email ada@example.org --name photos
  pinfold import rootless.car --root bafybei…
  curl -s https://example.org/a.car | pinfold import - --no-wait")]
pub(crate) struct ImportArgs {
    /// The CAR file; - reads stdin.
    pub(crate) file: PathBuf,
    /// The account that gets the pins; the one that the first start made if left out.
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// A name for the pins.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The cluster that shall hold them; the default one if left out.
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cl: Option<String>,
    /// Pin this instead of the roots that the CAR names. Repeatable.
    #[arg(long, value_name = "CID")]
    pub(crate) root: Vec<String>,
    /// Do not wait until the pins are held: the blocks are here, `pinfold status` shows the rest.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

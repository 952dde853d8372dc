//! The kinds of writes that are combined with others of their kind: each has a lane in the write queue.

use crate::db::write_queue::Lane;
use crate::pins::create::CreatePinWrite;
use crate::placements::complete::CompleteWrite;

#[derive(Default, Clone)]
pub(crate) struct Lanes {
    pub(crate) create_pin: Lane<CreatePinWrite>,
    pub(crate) complete_placement: Lane<CompleteWrite>,
}

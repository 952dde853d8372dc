//! The lanes of the write queue: one for each type of write that is combined with others of the same type.

use crate::db::write_queue::Lane;
use crate::pins::create::CreatePinWrite;
use crate::placements::complete::CompleteWrite;

#[derive(Default, Clone)]
pub(crate) struct Lanes {
    pub(crate) create_pin: Lane<CreatePinWrite>,
    pub(crate) complete_placement: Lane<CompleteWrite>,
}

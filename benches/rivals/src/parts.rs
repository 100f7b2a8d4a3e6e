//! The parts of the comparison, in the order in which they run. Those that change the main data come
//! last.

mod beside;
mod durable;
mod growth;
mod index;
mod load;
mod mixed;
mod open;
mod reads;
mod space;
mod values;
mod writes;

pub use open::load_and_wait;

use crate::contest::Contest;
use crate::report::Report;

type Part = fn(&Contest, &mut Report);

pub const PARTS: [(&str, Part); 11] = [
    ("load", load::run),
    ("reads", reads::run),
    ("open", open::run),
    ("mixed", mixed::run),
    ("beside", beside::run),
    ("writes", writes::run),
    ("durable", durable::run),
    ("space", space::run),
    ("values", values::run),
    ("index", index::run),
    ("growth", growth::run),
];

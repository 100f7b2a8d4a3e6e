//! What is compared: how victims are chosen, and what is kept apart when they are rewritten.
//!
//! The engine's own choice is called as it is. The others break off where it does, so that only the
//! order of the victims differs.

use kvast::testing::compaction::{Sealed, plan, window};

use crate::model::Slot;

/// As in the engine: how much one compaction takes, and how far it goes.
const INPUT_BYTES_MAX: u64 = 512 << 20;
const INPUTS_MAX: usize = 16;
const HYSTERESIS: f64 = 0.7;

/// What a policy may know of a sealed segment.
pub(crate) struct View {
    pub(crate) id: u32,
    pub(crate) records: u64,
    pub(crate) live: u64,
    pub(crate) kept_tombstones: u64,
    /// Since its youngest record was written.
    pub(crate) age_ms: u64,
    /// Live bytes that expire within a day.
    pub(crate) soon: u64,
}

impl View {
    fn kept(&self) -> u64 {
        self.live + self.kept_tombstones
    }

    fn dead(&self) -> u64 {
        self.records.saturating_sub(self.kept())
    }
}

/// The order of the victims.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    Engine,
    /// Most dead first.
    Greedy,
    /// Free space times age over cost, (1 - u) * age / (1 + u): Rosenblum and Ousterhout (1992).
    CostBenefit,
    /// The engine's, with what expires within a day counted as dead.
    Soon,
}

/// What is written to runs of its own.
#[derive(Clone)]
pub(crate) enum Apart {
    /// The engine's expiry windows.
    Engine,
    /// Windows with these upper ends, and what never expires.
    Windows(Vec<u64>),
    /// The engine's, and what never expires by its age, with these upper ends.
    Ages(Vec<u64>),
}

#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) order: Order,
    pub(crate) apart: Apart,
    /// Whether records are kept apart when users write them and not only when they are copied.
    pub(crate) groups_at_write: bool,
}

impl Policy {
    pub(crate) fn engine() -> Policy {
        let (order, apart) = (Order::Engine, Apart::Engine);
        Policy { name: "ours".into(), order, apart, groups_at_write: false }
    }

    pub(crate) fn named(mut self, name: impl Into<String>) -> Policy {
        self.name = name.into();
        self
    }

    /// Which of the segments that are being written takes a record.
    pub(crate) fn lane(&self, slot: &Slot, now_ms: u64) -> u32 {
        let beyond = |ends: &[u64], ms: u64| ends.iter().filter(|end| ms > **end).count() as u32;
        match &self.apart {
            Apart::Windows(ends) if ends.is_empty() || slot.expires_ms == 0 => 0,
            Apart::Windows(ends) => 1 + beyond(ends, slot.expires_ms.saturating_sub(now_ms)),
            Apart::Ages(ends) if slot.expires_ms == 0 => {
                100 + beyond(ends, now_ms - slot.written_ms)
            }
            Apart::Engine | Apart::Ages(_) => u32::from(window(slot.expires_ms, now_ms)),
        }
    }

    /// The segments to compact next.
    pub(crate) fn choose(&self, views: &[View], bound: f64) -> Vec<u32> {
        if let Order::Engine = self.order {
            let sealed = |view: &View| Sealed {
                id: view.id,
                records: view.records,
                live: view.live,
                kept_tombstones: view.kept_tombstones,
            };
            return plan(&views.iter().map(sealed).collect::<Vec<_>>(), bound, u64::MAX);
        }
        let (gone, mut rest): (Vec<&View>, Vec<&View>) =
            views.iter().filter(|view| view.dead() > 0).partition(|view| view.kept() == 0);
        let mut chosen: Vec<u32> = gone.iter().map(|view| view.id).take(INPUTS_MAX).collect();
        let total: u64 = views.iter().map(|view| view.records).sum();
        let floor = views.iter().map(View::kept).sum::<u64>() as f64;
        if total as f64 <= floor * bound {
            return chosen;
        }
        let newest = views.iter().map(|view| view.id).max().unwrap_or(0);
        rest.sort_by(|a, b| self.score(b, newest).total_cmp(&self.score(a, newest)));
        let mut left = total - gone.iter().map(|view| view.dead()).sum::<u64>();
        let mut input = 0;
        for view in rest {
            let is_enough = left as f64 <= floor * (1.0 + (bound - 1.0) * HYSTERESIS);
            if is_enough || chosen.len() >= INPUTS_MAX || input >= INPUT_BYTES_MAX {
                break;
            }
            left -= view.dead();
            input += view.live;
            chosen.push(view.id);
        }
        chosen
    }

    fn score(&self, view: &View, newest: u32) -> f64 {
        let (dead, kept) = (view.dead() as f64, view.kept() as f64);
        let age = f64::from(newest - view.id + 1).sqrt();
        match self.order {
            Order::Greedy => dead / view.records as f64,
            Order::CostBenefit => dead / (view.records as f64 + kept) * view.age_ms as f64,
            Order::Engine | Order::Soon => (dead + view.soon as f64) / kept * age,
        }
    }
}

//! What users write: a stream of puts and deletes with the time of each, the same for every policy.

use crate::model::{Model, RECORD, SEGMENT};

const DAY_MS: u64 = 86_400_000;
const START_MS: u64 = 1_800_000_000_000;
const IN_A_SEGMENT: u64 = SEGMENT / RECORD;

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Which key is written next.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// Each time one that was never there.
    New,
    Uniform,
    Zipf,
    /// Nine in ten writes go to one key in ten.
    HotCold,
}

/// How long keys live.
#[derive(Clone, Copy)]
pub(crate) enum Ttl {
    None,
    /// Half of the keys from a minute to 30 days, every order of magnitude alike; the others for ever.
    Half,
    /// The same, and the half that expires is written once each, as sessions are.
    HalfOnce,
    All(u64),
}

#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) keys: Keys,
    pub(crate) ttl: Ttl,
    /// One write in so many deletes; 0 for none.
    pub(crate) delete_in: u64,
    /// Segments' worth of keys, and of writes after they were put once.
    pub(crate) loaded: u64,
    pub(crate) written: u64,
    /// How long the writes take.
    pub(crate) days: u64,
}

impl Workload {
    /// How many keys there are in the end.
    pub(crate) fn key_count(&self) -> usize {
        let writes = match (self.keys, self.ttl) {
            (Keys::New, _) | (_, Ttl::HalfOnce) => self.loaded + self.written,
            _ => self.loaded,
        };
        (writes * IN_A_SEGMENT) as usize
    }

    pub(crate) fn run(&self, model: &mut Model<'_>, seed: u64) {
        let mut random = Random(seed);
        let (loaded, writes) = (self.loaded * IN_A_SEGMENT, self.written * IN_A_SEGMENT);
        let zipf = Zipf::new(loaded);
        let mut unused = loaded..;
        for nth in 0..loaded + writes {
            if nth == loaded {
                model.begin();
            }
            let now_ms = START_MS + nth * self.days * DAY_MS / writes;
            let key = if nth < loaded {
                nth
            } else {
                let chosen = self.choose(&zipf, &mut random);
                chosen.or_else(|| unused.next()).expect("there is always another number")
            };
            let may_delete = nth >= loaded && self.delete_in > 0;
            let is_delete = may_delete && random.below(self.delete_in) == 0;
            if is_delete && model.has(key as u32) {
                model.delete(key as u32, now_ms);
            } else {
                model.put(key as u32, self.expiry(key, now_ms, &mut random), now_ms);
            }
        }
    }

    /// The key that is written next, of those that were loaded; `None` for a new one.
    fn choose(&self, zipf: &Zipf, random: &mut Random) -> Option<u64> {
        let loaded = self.loaded * IN_A_SEGMENT;
        if matches!(self.ttl, Ttl::HalfOnce) && random.below(2) == 0 {
            return None;
        }
        match self.keys {
            Keys::New => None,
            Keys::Uniform => Some(random.below(loaded)),
            Keys::Zipf => Some(zipf.next(random)),
            Keys::HotCold if random.below(10) > 0 => Some(random.below(loaded / 10)),
            Keys::HotCold => Some(loaded / 10 + random.below(loaded - loaded / 10)),
        }
    }

    /// When the record expires, 0 for never.
    fn expiry(&self, key: u64, now_ms: u64, random: &mut Random) -> u64 {
        let any = |random: &mut Random| {
            let (least, most) = (60e3f64, 30.0 * DAY_MS as f64);
            now_ms + (least * (most / least).powf(random.share())) as u64
        };
        match self.ttl {
            Ttl::Half if key % 2 == 1 => any(random),
            Ttl::HalfOnce if key >= self.loaded * IN_A_SEGMENT => any(random),
            Ttl::All(ms) => now_ms + ms,
            Ttl::None | Ttl::Half | Ttl::HalfOnce => 0,
        }
    }
}

/// Zipf's distribution with exponent 0.99, by the method of Gray and others (1994).
struct Zipf {
    keys: u64,
    alpha: f64,
    eta: f64,
    zeta: f64,
}

impl Zipf {
    fn new(keys: u64) -> Zipf {
        const THETA: f64 = 0.99;
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let (alpha, all) = (1.0 / (1.0 - THETA), zeta(keys));
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / all);
        Zipf { keys, alpha, eta, zeta: all }
    }

    fn next(&self, random: &mut Random) -> u64 {
        let u = random.share();
        let place = u * self.zeta;
        if place < 1.0 {
            return 0;
        }
        if place < 1.0 + 0.5f64.powf(0.99) {
            return 1;
        }
        let at = (self.keys as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha)) as u64;
        at.min(self.keys - 1)
    }
}

//! Keys and values, and which of them are asked for.

use std::io::Write;

pub const KEY_LEN: usize = 22;
pub const VALUE_LEN: usize = 100;
/// From one place that lists start at to the next.
pub const PLACE_STEP: usize = 101;
/// Keys in a page.
pub const PAGE: usize = 1000;

pub type Key = [u8; KEY_LEN];

pub fn key(id: u64) -> Key {
    let mut key = [0; KEY_LEN];
    write!(&mut key[..], "user:{id:09}:profile").expect("ids of nine digits");
    key
}

/// A value that differs from key to key.
pub fn value(key: &Key) -> [u8; VALUE_LEN] {
    let mut value = [b'v'; VALUE_LEN];
    value[..KEY_LEN].copy_from_slice(key);
    value
}

/// xorshift64*: fast, seeded, good enough for choosing keys.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

pub struct Data {
    /// In the order in which they are put.
    pub keys: Vec<Key>,
    zipf: Zipf,
}

impl Data {
    pub fn new(count: usize) -> Data {
        let mut ids: Vec<u64> = (0..count as u64).map(|nth| 2 * nth).collect();
        let mut random = Random(42);
        for at in (1..ids.len()).rev() {
            ids.swap(at, random.below(at + 1));
        }
        Data { keys: ids.into_iter().map(key).collect(), zipf: Zipf::new(count, 0.99) }
    }

    pub fn uniform(&self, random: &mut Random) -> Key {
        self.keys[random.below(self.keys.len())]
    }

    /// The most wanted keys lie anywhere, since `keys` is in random order.
    pub fn zipf(&self, random: &mut Random) -> Key {
        self.keys[self.zipf.draw(random)]
    }

    /// A key between two that are there.
    pub fn absent(&self, random: &mut Random) -> Key {
        key(2 * random.below(self.keys.len()) as u64 + 1)
    }

    /// How many places lists can start at with a whole page to follow. Place `n` is just after the
    /// key that has `(n + 1) * PLACE_STEP - 1` keys before it.
    pub fn places(&self) -> usize {
        (self.keys.len() - PAGE) / PLACE_STEP
    }
}

/// Gray and others, "Quickly generating billion-record synthetic databases", 1994.
struct Zipf {
    count: f64,
    theta: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: usize, theta: f64) -> Zipf {
        let zeta_of =
            |count: usize| (1..=count).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let zeta = zeta_of(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Zipf { count: count as f64, theta, alpha: 1.0 / (1.0 - theta), zeta, eta }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.count * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as usize).min(self.count as usize - 1)
    }
}

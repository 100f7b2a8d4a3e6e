//! Keys and values, and which of them are asked for. All of it is seeded: two runs ask the same.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub const KEY_LEN: usize = 22;
/// Of a short value.
pub const VALUE_LEN: usize = 100;
/// Keys in a page.
pub const PAGE: usize = 1000;

pub type Key = [u8; KEY_LEN];

pub fn key(id: u32) -> Key {
    let mut key = [0; KEY_LEN];
    write!(&mut key[..], "user:{id:09}:profile").expect("ids of nine digits");
    key
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

/// Every second id, in the random order in which they are put.
pub struct Data {
    ids: Vec<u32>,
    zipf: OnceLock<Zipf>,
}

impl Data {
    pub fn new(count: usize) -> Data {
        let last = u32::try_from(2 * count).expect("fewer keys than 2^31");
        let mut ids: Vec<u32> = (0..last).step_by(2).collect();
        let mut random = Random(42);
        for at in (1..ids.len()).rev() {
            ids.swap(at, random.below(at + 1));
        }
        Data { ids, zipf: OnceLock::new() }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn user_bytes(&self) -> usize {
        self.len() * (KEY_LEN + VALUE_LEN)
    }

    /// All keys in the order in which they are put.
    pub fn keys(&self) -> Vec<Key> {
        self.ids.iter().map(|id| key(*id)).collect()
    }

    pub fn first(&self) -> Key {
        key(self.ids[0])
    }

    pub fn uniform(&self, random: &mut Random) -> Key {
        key(self.ids[random.below(self.len())])
    }

    /// The most wanted keys lie anywhere, since the ids are in random order.
    pub fn zipf(&self, random: &mut Random) -> Key {
        let zipf = self.zipf.get_or_init(|| Zipf::new(self.len(), 0.99));
        key(self.ids[zipf.draw(random)])
    }

    /// A key between two that are there.
    pub fn absent(&self, random: &mut Random) -> Key {
        key(2 * random.below(self.len()) as u32 + 1)
    }

    /// A key with at least a page from it on.
    pub fn page_start(&self, random: &mut Random) -> Key {
        key(2 * random.below(self.len() - PAGE) as u32)
    }

    /// Keys that are absent, each of them once, in random order; others in each round.
    pub fn fresh(&self, round: usize, count: usize) -> Vec<Key> {
        let from = round * count;
        (from..from + count).map(|at| key(self.ids[at % self.len()] + 1)).collect()
    }
}

/// Where the numbers of the next buffer of values begin.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Values of one length. No two are the same, since some stores see that an overwrite changes nothing
/// and write nothing, and no part of them can be compressed.
pub struct Values {
    bytes: Vec<u8>,
}

impl Values {
    pub fn of_len(len: usize) -> Values {
        let mut random = Random(5);
        Values { bytes: (0..len).map(|_| random.next() as u8).collect() }
    }

    pub fn short() -> Values {
        Values::of_len(VALUE_LEN)
    }

    /// A buffer for the values of many keys, one after the other.
    pub fn buffer(&self) -> ValueBuffer {
        let next = NEXT.fetch_add(1 << 32, Ordering::Relaxed);
        ValueBuffer { bytes: self.bytes.clone(), next }
    }
}

pub struct ValueBuffer {
    bytes: Vec<u8>,
    next: u64,
}

impl ValueBuffer {
    pub fn of(&mut self, key: &Key) -> &[u8] {
        self.bytes[..KEY_LEN].copy_from_slice(key);
        self.bytes[KEY_LEN..][..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        &self.bytes
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

/// Bytes of one of the two shapes of keys that the index is measured with.
#[derive(Clone, Copy)]
pub enum Shape {
    /// `user:{id}:profile`, 20.8 B on average at 10^7 keys.
    User,
    /// Paths like those of web pages, 56 B on average.
    Path,
}

impl Shape {
    /// The `nth` of `count` keys. They come in no order, and no two are the same.
    pub fn key(self, count: usize, nth: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "animals",
            "bread",
            "catalogue",
            "diaries",
            "evening",
            "furniture",
            "gardens",
            "harbours",
            "islands",
            "journeys",
            "kitchens",
            "letters",
            "mountains",
            "novels",
            "orchards",
            "pictures",
        ];
        let id = scattered(nth as u64, (4 * count as u64 - 1).ilog2() + 1);
        let word = |at: u32| WORDS[(id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> at) as usize % 16];
        let (year, month) = (2000 + id % 25, 1 + id / 25 % 12);
        match self {
            Shape::User => format!("user:{id}:profile"),
            Shape::Path => format!(
                "/{}/{}/{year}/{month:02}/{}-{}-{id:08}.html",
                word(60),
                word(56),
                word(52),
                word(48),
            ),
        }
        .into_bytes()
    }
}

/// A permutation of the numbers of `bits` bits.
fn scattered(number: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    let mut mixed = number & mask;
    for factor in [0x9E37_79B9_7F4A_7C15u64, 0xD6E8_FEB8_6659_FD93] {
        mixed = mixed.wrapping_mul(factor) & mask;
        mixed ^= mixed >> (bits / 2);
    }
    mixed
}

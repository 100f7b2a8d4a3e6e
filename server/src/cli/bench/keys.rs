//! Which keys there are, and in what order they are asked for.
//!
//! The same keys in the same order on every machine, so that runs can be compared. Every second
//! number is a key, so that an absent one lies between two that are there.

use std::time::Duration;

/// The most keys that are drawn for a row; it goes through them again and again.
const DRAWN_MAX: u64 = 1_000_000;
/// How uneven the wanted keys are: the skew of YCSB.
const SKEW: f64 = 0.99;

/// What is measured.
pub(super) struct Shape {
    pub(super) keys: u64,
    pub(super) value_bytes: usize,
    /// Clients in the row of several.
    pub(super) threads: usize,
    pub(super) cores: usize,
    /// For each row that is measured for a time.
    pub(super) time: Duration,
}

pub(super) const KEY_BYTES: usize = 22;

/// `user:{id:09}:profile`
pub(super) type Key = [u8; KEY_BYTES];

/// The key of a number, by hand: a formatter takes longer than a get.
pub(super) fn key(mut id: u64) -> Key {
    let mut key = *b"user:000000000:profile";
    for digit in key[5..14].iter_mut().rev() {
        *digit = b'0' + (id % 10) as u8;
        id /= 10;
    }
    key
}

/// xorshift64*: fast, seeded, good enough for choosing keys.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1, without 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// All keys that are there, in random order.
pub(super) fn shuffled(count: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    let mut random = Random(42);
    for last in (1..numbers.len()).rev() {
        numbers.swap(last, random.below(last as u64 + 1) as usize);
    }
    numbers
}

/// Keys that are there, each as likely as another.
pub(super) fn uniform(count: u64) -> Vec<Key> {
    let mut random = Random(7);
    (0..count.min(DRAWN_MAX)).map(|_| key(2 * random.below(count))).collect()
}

/// Keys that are not there.
pub(super) fn absent(count: u64) -> Vec<Key> {
    let mut random = Random(8);
    (0..count.min(DRAWN_MAX)).map(|_| key(2 * random.below(count) + 1)).collect()
}

/// Keys that are there, a few of them wanted much more often than others and lying anywhere.
pub(super) fn zipf(count: u64, shuffled: &[u32]) -> Vec<Key> {
    let (zipf, mut random) = (Zipf::new(count), Random(9));
    let draw = |_| key(2 * u64::from(shuffled[zipf.draw(&mut random)]));
    (0..count.min(DRAWN_MAX)).map(draw).collect()
}

/// Gray and others, "Quickly generating billion-record synthetic databases", 1994.
struct Zipf {
    count: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Zipf {
        let zeta = zeta(count);
        let count = count as f64;
        let eta = (1.0 - (2.0 / count).powf(1.0 - SKEW)) / (1.0 - zeta_of_two() / zeta);
        Zipf { count, zeta, eta }
    }

    fn draw(&self, random: &mut Random) -> usize {
        let unit = random.unit();
        let scaled = unit * self.zeta;
        let last = self.count - 1.0;
        let rank = match scaled {
            _ if scaled < 1.0 => 0.0,
            _ if scaled < zeta_of_two() => 1.0,
            _ => self.count * (self.eta * unit - self.eta + 1.0).powf(1.0 / (1.0 - SKEW)),
        };
        rank.min(last) as usize
    }
}

/// The sum of `rank ^ -SKEW`; beyond the first million as an integral, which is exact enough.
fn zeta(count: u64) -> f64 {
    let exact = count.min(DRAWN_MAX);
    let sum: f64 = (1..=exact).map(|rank| (rank as f64).powf(-SKEW)).sum();
    let antiderivative = |rank: u64| (rank as f64 + 0.5).powf(1.0 - SKEW) / (1.0 - SKEW);
    sum + antiderivative(count) - antiderivative(exact)
}

fn zeta_of_two() -> f64 {
    1.0 + 0.5f64.powf(SKEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_numbers() {
        assert_eq!(&key(42), b"user:000000042:profile");
        assert!(key(999) < key(1000) && key(1000) < key(123_456_789));
    }

    #[test]
    fn absent_keys_are_not_among_those_that_are_there() {
        let there: std::collections::BTreeSet<Key> = (0..100).map(|id| key(2 * id)).collect();
        assert!(uniform(100).iter().all(|key| there.contains(key)));
        assert!(zipf(100, &shuffled(100)).iter().all(|key| there.contains(key)));
        assert!(absent(100).iter().all(|key| !there.contains(key)));
    }

    #[test]
    fn a_few_keys_are_wanted_much_more_often_than_others() {
        for count in [1, 2, 3, 10_000] {
            let (zipf, mut random, mut first) = (Zipf::new(count), Random(1), 0);
            for _ in 0..10_000 {
                let rank = zipf.draw(&mut random);
                assert!(rank < count as usize);
                first += usize::from(rank == 0);
            }
            // 1 / zeta(10,000) is about a tenth.
            assert!(first > 800, "{count}: {first}");
        }
    }
}

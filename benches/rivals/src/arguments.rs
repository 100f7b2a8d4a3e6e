//! What was asked for.

use std::path::PathBuf;
use std::time::Duration;

use crate::parts::PARTS;

pub struct Arguments {
    pub keys: usize,
    pub rounds: usize,
    /// How long a store is measured in each round of a row that has no natural end.
    pub slice: Duration,
    pub dir: PathBuf,
    pub growth_to: usize,
    pub index_keys: usize,
    /// Bytes of values of one length.
    pub value_bytes: usize,
    parts: Option<Vec<String>>,
    rivals: Option<Vec<String>>,
    /// Only keep a core awake.
    pub spin: bool,
    /// Only load this store in `dir`, say so and wait to be killed.
    pub load: Option<String>,
}

impl Arguments {
    /// Reads the command line; a sentence if it says nothing that can be done.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut read = Arguments {
            keys: 1_000_000,
            rounds: 9,
            slice: Duration::from_millis(250),
            dir: std::env::temp_dir().join(format!("kvast-rivals-{}", std::process::id())),
            growth_to: 0,
            index_keys: 0,
            value_bytes: 256 << 20,
            parts: None,
            rivals: None,
            spin: false,
            load: None,
        };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            if word == "--quick" {
                (read.keys, read.rounds, read.value_bytes) = (100_000, 3, 32 << 20);
                read.slice = Duration::from_millis(100);
                continue;
            }
            if word == "--spin" {
                read.spin = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            read.take(&word, value)?;
        }
        if read.keys < 10_000 || read.rounds == 0 {
            return Err("at least 10,000 keys and one round are needed".to_owned());
        }
        if read.growth_to == 0 {
            read.growth_to = 10 * read.keys;
        }
        if read.index_keys == 0 {
            read.index_keys = 10 * read.keys;
        }
        Ok(read)
    }

    fn take(&mut self, word: &str, value: String) -> Result<(), String> {
        let list = |value: &str| value.split(',').map(|name| name.trim().to_lowercase()).collect();
        let number = |value: &str| {
            let digits = value.replace('_', "");
            digits.parse::<usize>().map_err(|_| format!("{word} needs a number, not {value}"))
        };
        match word {
            "--keys" => self.keys = number(&value)?,
            "--rounds" => self.rounds = number(&value)?,
            "--growth-to" => self.growth_to = number(&value)?,
            "--index-keys" => self.index_keys = number(&value)?,
            "--dir" => self.dir = PathBuf::from(value).join("kvast-rivals"),
            "--only" => {
                let parts: Vec<String> = list(&value);
                let known = |part: &&String| PARTS.iter().any(|(name, _)| name == part);
                if let Some(unknown) = parts.iter().find(|part| !known(part)) {
                    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
                    return Err(format!("no part {unknown}; there are {}", names.join(", ")));
                }
                self.parts = Some(parts);
            }
            "--rivals" => {
                let rivals: Vec<String> = list(&value);
                let kinds = crate::store::kinds();
                let known = |rival: &&String| {
                    *rival == "none" || kinds.iter().any(|kind| kind.name.to_lowercase() == **rival)
                };
                if let Some(unknown) = rivals.iter().find(|rival| !known(rival)) {
                    let names: Vec<&str> = kinds[1..].iter().map(|kind| kind.name).collect();
                    return Err(format!("no rival {unknown}; there are {}", names.join(", ")));
                }
                self.rivals = Some(rivals);
            }
            "--load" => self.load = Some(value),
            "--load-dir" => self.dir = PathBuf::from(value),
            _ => return Err(format!("unknown argument {word}; see the top of src/main.rs")),
        }
        Ok(())
    }

    pub fn has_part(&self, name: &str) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.iter().any(|part| part == name))
    }

    pub fn has_rival(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.rivals.as_ref().is_none_or(|rivals| rivals.contains(&name))
    }

    /// Rounds of what takes long.
    pub fn few_rounds(&self) -> usize {
        self.rounds.div_ceil(3)
    }
}

//! Every setting of `kvast serve`, once: its name, what it takes, what it means, where it goes.
//!
//! All that an operator sees of settings comes from [`GROUPS`]: the flags and their help, the
//! variables `KVAST_…`, the keys of `kvast.toml`, what `kvast config` prints, and the tables of the
//! README. A limit is called as its field is, with hyphens; a test finds one that is forgotten.
//! Absent on purpose: settings of the library's `Options` that no operator has asked for.

mod file;
mod kind;
mod layers;

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use crate::config::{Config, TlsFiles};

pub(crate) use file::example;
use kind::{
    DURABILITY, Field, Kind, LISTEN, LOG_FORMAT, LOG_LEVEL, OPTIONAL_PATH, PATH, Place, SECRET,
    SWITCH, TIME,
};
pub(crate) use layers::{Layers, Read};

/// What the program is started with: the server's configuration, and what is the program's own.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) log: LogFormat,
    pub(crate) log_level: LevelFilter,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            config: Config::default(),
            log: LogFormat::Text,
            log_level: LevelFilter::INFO,
            tls_cert: None,
            tls_key: None,
        }
    }
}

impl Settings {
    /// Puts together what several settings say, and names each thing that makes no sense.
    fn finish(&mut self) -> Vec<String> {
        let mut wrong = self.config.limits.check();
        self.config.tls = match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) => {
                wrong.push("tls-cert needs tls-key: the certificate's key, as PEM".to_owned());
                None
            }
            (None, Some(_)) => {
                wrong.push("tls-key needs tls-cert: the key's certificate, as PEM".to_owned());
                None
            }
        };
        wrong
    }
}

/// One setting.
pub(crate) struct Setting {
    /// The key in `kvast.toml`, and the flag without its hyphens.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    field: &'static (dyn Field + Sync),
}

/// Settings that are explained together.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) settings: &'static [Setting],
}

/// The places of a field in [`Settings`], to read and to write.
macro_rules! at {
    ($kind:expr, $($field:ident).+) => {
        &Place { kind: &$kind, get: |it| &it.$($field).+, get_mut: |it| &mut it.$($field).+ }
    };
}

const fn setting(
    name: &'static str,
    field: &'static (dyn Field + Sync),
    help: &'static str,
) -> Setting {
    Setting { name, help, field }
}

/// All settings, in the order in which they are explained.
pub(crate) static GROUPS: &[Group] = &[
    Group {
        title: "Store",
        settings: &[
            setting("data", at!(PATH, config.data), "The store's directory, made if there is none"),
            setting(
                "durability",
                at!(DURABILITY, config.durability),
                "When a write is acknowledged: after a sync (survives power loss), or before, with a \
                 sync every so often or whenever the system gets round to it",
            ),
        ],
    },
    Group {
        title: "Listening",
        settings: &[
            setting(
                "listen",
                at!(LISTEN, config.listen),
                "Where to listen: addresses with a port (0 lets the system choose one), or Unix sockets",
            ),
            setting(
                "insecure",
                at!(SWITCH, config.insecure),
                "Serve other machines although there is no token: whoever reaches the port can read and \
                 write everything",
            ),
            setting("tls-cert", at!(OPTIONAL_PATH, tls_cert), "Certificates for HTTPS, as PEM"),
            setting(
                "tls-key",
                at!(OPTIONAL_PATH, tls_key),
                "The key of the first certificate, as PEM",
            ),
        ],
    },
    Group {
        title: "Tokens",
        settings: &[
            setting(
                "token",
                at!(SECRET, config.token),
                "A token that may do everything, beside those of `kvast token create`",
            ),
            setting(
                "token-file",
                at!(OPTIONAL_PATH, config.token_file),
                "A file of tokens that may do everything, one per line",
            ),
        ],
    },
    Group {
        title: "Logs",
        settings: &[
            setting("log", at!(LOG_FORMAT, log), "How logs are written"),
            setting("log-level", at!(LOG_LEVEL, log_level), "The least level that is logged"),
            setting("access-log", at!(SWITCH, config.access_log), "Log each request, as info"),
        ],
    },
    Group {
        title: "Limits",
        settings: &[
            setting(
                "max-value-bytes",
                at!(Kind::SIZE, config.limits.max_value_bytes),
                "The longest value, up to 64MiB; Workers KV has 25MiB",
            ),
            setting(
                "keys-per-page",
                at!(Kind::COUNT, config.limits.keys_per_page),
                "The most keys on a list page, up to 10,000; Workers KV has 1,000",
            ),
            setting(
                "connections",
                at!(Kind::COUNT, config.limits.connections),
                "Connections served at once; more wait, and idle ones go first",
            ),
            setting(
                "head-bytes",
                at!(Kind::SIZE, config.limits.head_bytes),
                "The longest request head: the request line and all headers",
            ),
            setting(
                "line-bytes",
                at!(Kind::SIZE, config.limits.line_bytes),
                "The longest target of a request: its path and query",
            ),
            setting(
                "head-time",
                at!(TIME, config.limits.head_time),
                "How long a request head may take, from its first byte",
            ),
            setting(
                "idle-time",
                at!(TIME, config.limits.idle_time),
                "How long a connection may be kept open between requests; a second while clients wait",
            ),
            setting(
                "handshake-time",
                at!(TIME, config.limits.handshake_time),
                "How long a TLS handshake may take",
            ),
            setting(
                "streams",
                at!(Kind::COUNT, config.limits.streams),
                "Requests at once on one HTTP/2 connection",
            ),
            setting(
                "stream-window-bytes",
                at!(Kind::SIZE, config.limits.stream_window_bytes),
                "What one HTTP/2 request may send before it is read",
            ),
            setting(
                "connection-window-bytes",
                at!(Kind::SIZE, config.limits.connection_window_bytes),
                "What all requests of an HTTP/2 connection may send before it is read",
            ),
            setting(
                "connection-buffer-bytes",
                at!(Kind::SIZE, config.limits.connection_buffer_bytes),
                "The most that a connection buffers of what it reads or has yet to write",
            ),
            setting(
                "body-idle",
                at!(TIME, config.limits.body_idle),
                "How long a request body may pause",
            ),
            setting(
                "body-time",
                at!(TIME, config.limits.body_time),
                "How long a request body may take in all",
            ),
            setting(
                "body-rate",
                at!(Kind::SIZE, config.limits.body_rate),
                "The least that a request body must bring in a second, while it is waited for",
            ),
            setting(
                "write-stall",
                at!(TIME, config.limits.write_stall),
                "How long a client may take none of its answer",
            ),
            setting(
                "answer-time",
                at!(TIME, config.limits.answer_time),
                "How long a client may take in all for an answer of more than 64 KiB",
            ),
            setting(
                "linger",
                at!(TIME, config.limits.linger),
                "How long a client has, after the last byte, to read it and hang up",
            ),
            setting(
                "upload-bytes",
                at!(Kind::SIZE, config.limits.upload_bytes),
                "Memory for the request bodies of all connections together",
            ),
            setting(
                "upload-wait",
                at!(TIME, config.limits.upload_wait),
                "How long a request may wait for memory for its body or answer; then the answer is 503",
            ),
            setting(
                "small-upload-bytes",
                at!(Kind::SIZE, config.limits.small_upload_bytes),
                "Bodies up to this length never wait for upload memory",
            ),
            setting(
                "json-bytes",
                at!(Kind::SIZE, config.limits.json_bytes),
                "The longest JSON request body, bulk writes aside",
            ),
            setting(
                "drain-bytes",
                at!(Kind::SIZE, config.limits.drain_bytes),
                "What is read and thrown away of a refused body, so that its sender sees why",
            ),
            setting(
                "bulk-bytes",
                at!(Kind::SIZE, config.limits.bulk_bytes),
                "Memory for the answers of bulk gets in flight, in bytes of values",
            ),
            setting(
                "bulk-bodies",
                at!(Kind::COUNT, config.limits.bulk_bodies),
                "Bodies of bulk writes and deletes kept at once, on disk where they are long",
            ),
            setting(
                "bulk-writes",
                at!(Kind::COUNT, config.limits.bulk_writes),
                "Bulk writes at work at once; each takes the memory of its longest entry",
            ),
            setting(
                "blocking-calls",
                at!(Kind::COUNT, config.limits.blocking_calls),
                "Calls into the engine at once that may wait for the disk",
            ),
            setting(
                "queued-writes",
                at!(Kind::COUNT, config.limits.queued_writes),
                "Writes that wait for the next sync; more wait for a place",
            ),
            setting(
                "drain-time",
                at!(TIME, config.limits.drain_time),
                "How long requests in flight may take to end after the signal to stop",
            ),
        ],
    },
];

/// All settings of all groups.
pub(crate) fn all() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

/// The setting of a name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == name)
}

impl Setting {
    /// The variable that sets it.
    pub(crate) fn variable(&self) -> String {
        format!("KVAST_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// What stands for a value in help, for example `SIZE`.
    pub(crate) fn placeholder(&self) -> &'static str {
        self.field.form().placeholder
    }

    /// Whether it is on or off, so that its name alone says on.
    pub(crate) fn is_switch(&self) -> bool {
        self.field.form().toml == kind::Toml::Switch
    }

    /// Whether several values can be given.
    pub(crate) fn is_list(&self) -> bool {
        self.field.form().toml == kind::Toml::List
    }

    /// Whether it has no flag, which other users of the machine could see, and is never shown.
    pub(crate) fn is_secret(&self) -> bool {
        self.field.form().is_secret
    }

    /// Its value as one would write it; `None` if it is not set.
    pub(crate) fn show(&self, settings: &Settings) -> Option<String> {
        let shown = self.field.show(settings)?;
        Some(if self.is_secret() { "***".to_owned() } else { shown })
    }

    fn take(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        self.field.take(settings, text)
    }
}

/// Of these names the one that is most likely meant.
pub(crate) fn nearest<'n>(name: &str, among: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
    among.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::limits::Limits;

    /// A value that is no default.
    fn other_text(setting: &Setting) -> &'static str {
        match setting.placeholder() {
            "SIZE" => "7777777",
            "TIME" => "77s",
            "N" => "77",
            "BOOL" => "true",
            "DIR" | "FILE" => "/elsewhere",
            "TOKEN" => "secret",
            "ADDR:PORT|unix:PATH" => "127.0.0.1:1,unix:/run/s",
            "sync|os|interval:TIME" => "interval:50ms",
            "text|json" => "json",
            _ => "debug",
        }
    }

    fn lines(settings: &Settings) -> Vec<String> {
        format!("{settings:#?}").lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_setting_changes_its_own_field_and_is_shown_as_it_was_given() {
        for setting in all() {
            let mut settings = Settings::default();
            let text = other_text(setting);
            setting.take(&mut settings, text).expect(setting.name);
            if !setting.is_secret() {
                assert_eq!(setting.show(&settings).as_deref(), Some(text), "{}", setting.name);
            }
            let before = lines(&Settings::default());
            let field = format!(" {}: ", setting.name.replace('-', "_"));
            let changed: Vec<String> =
                lines(&settings).into_iter().filter(|line| !before.contains(line)).collect();
            let (first, rest) = changed.split_first().expect("something changed");
            let is_own = first.contains(&field) || setting.name == "listen";
            assert!(is_own, "{} changed {changed:?}", setting.name);
            let is_other = |line: &String| line.starts_with("        ") && line.contains(": ");
            assert!(setting.name == "listen" || !rest.iter().any(is_other), "{changed:?}");
        }
    }

    #[test]
    fn no_limit_is_forgotten() {
        let shown = format!("{:#?}", Limits::default());
        let fields: BTreeSet<String> = shown
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
            .map(|(field, _)| field.replace('_', "-"))
            .collect();
        let limits = GROUPS.last().expect("there are groups").settings;
        let named: BTreeSet<String> =
            limits.iter().map(|setting| setting.name.to_owned()).collect();
        assert_eq!(fields, named);
    }

    #[test]
    fn names_are_unique_and_helped() {
        let names: BTreeSet<&str> = all().map(|setting| setting.name).collect();
        assert_eq!(names.len(), all().count());
        for setting in all() {
            assert!(!setting.help.ends_with('.'), "{}", setting.name);
            assert!(setting.name.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_is_meant() {
        let names = || all().map(|setting| setting.name);
        for (wrong, meant) in
            [("head-tim", "head-time"), ("head_time", "head-time"), ("lisen", "listen")]
        {
            assert_eq!(nearest(wrong, names()), Some(meant));
        }
    }

    #[test]
    fn the_readme_has_each_setting_as_it_is_here() {
        let readme = include_str!("../../README.md");
        for group in GROUPS {
            let title = format!("| {} |", group.title);
            let from = readme.find(&title).unwrap_or_else(|| panic!("no table {}", group.title));
            let table = readme[from..].split("\n\n").next().expect("it ends");
            let wanted = markdown(group);
            assert!(table == wanted, "README.md should have this table:\n\n{wanted}\n");
        }
    }

    fn markdown(group: &Group) -> String {
        let defaults = Settings::default();
        let row = |setting: &Setting| {
            let default = setting.show(&defaults);
            let default = default.map_or("".to_owned(), |default| format!("`{default}`"));
            format!("| `{}` | {default} | {} |", setting.name, setting.help)
        };
        let head = [format!("| {} | default | |", group.title), "|---|---|---|".to_owned()];
        head.into_iter().chain(group.settings.iter().map(row)).collect::<Vec<_>>().join("\n")
    }
}

//! From flags, variables and a file to one value of each setting, and where it came from.
//!
//! A flag comes before a variable, a variable before the file, the file before the default. Every
//! layer is checked whether it is overruled or not, and all that is wrong is reported at once.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Setting, Settings, all, file, nearest};

/// The variable that names the file.
const CONFIG_VARIABLE: &str = "KVAST_CONFIG";

/// Where a file is looked for when nobody names one; the first that is there counts.
const FILES: [&str; 2] = ["kvast.toml", "/etc/kvast/kvast.toml"];

/// What each layer says, unread.
pub(crate) struct Layers {
    /// Names of settings and what the command line gives for them.
    pub(crate) flags: Vec<(&'static str, String)>,
    /// All variables of the environment that begin with `KVAST_`.
    pub(crate) variables: Vec<(String, String)>,
    /// The file that somebody named.
    pub(crate) file: Option<PathBuf>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// What came of all layers.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) settings: Settings,
    /// The file that was read, if there was one.
    pub(crate) file: Option<PathBuf>,
    /// What is wrong, a sentence each. If there is any, the settings are not to be used.
    pub(crate) errors: Vec<String>,
    /// What may be wrong.
    pub(crate) warnings: Vec<String>,
    origins: Vec<(&'static str, Origin)>,
}

impl Read {
    /// Where a setting's value comes from.
    pub(crate) fn origin(&self, setting: &Setting) -> &Origin {
        let found = self.origins.iter().rev().find(|(name, _)| *name == setting.name);
        found.map_or(&Origin::Default, |(_, origin)| origin)
    }

    fn take(&mut self, setting: &'static Setting, text: &str, origin: Origin) {
        match setting.take(&mut self.settings, text) {
            Ok(()) => self.origins.push((setting.name, origin)),
            Err(what) => {
                let shown = if setting.is_secret() { "***" } else { text };
                self.errors.push(format!("{origin}: {} is {shown:?}: {what}", setting.name));
            }
        }
    }

    fn take_file(&mut self, path: &Path, text: &str) {
        let (entries, wrong) = file::read(text);
        let at = |line| Origin::File { path: path.to_owned(), line };
        self.errors.extend(wrong.into_iter().map(|(line, what)| format!("{}: {what}", at(line))));
        for entry in entries {
            self.take(entry.setting, &entry.text, at(entry.line));
        }
    }

    fn take_variables(&mut self, variables: &[(String, String)]) {
        // An empty variable is how some tools write an absent one.
        for (name, text) in variables.iter().filter(|(_, text)| !text.is_empty()) {
            if name == CONFIG_VARIABLE {
                continue;
            }
            match all().find(|setting| setting.variable() == *name) {
                Some(setting) => self.take(setting, text, Origin::Variable(name.clone())),
                None => self.warnings.push(unknown_variable(name)),
            }
        }
    }
}

fn unknown_variable(name: &str) -> String {
    let names: Vec<String> = all().map(Setting::variable).collect();
    let near = nearest(name, names.iter().map(String::as_str)).unwrap_or_default();
    format!("the variable {name} sets nothing; the nearest name is {near}")
}

impl Layers {
    /// The flags and the file of a command line, and the environment of this process.
    pub(crate) fn new(flags: Vec<(&'static str, String)>, file: Option<PathBuf>) -> Layers {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.into_string().ok()?;
            name.starts_with("KVAST_").then(|| (name, value.to_string_lossy().into_owned()))
        };
        let mut variables: Vec<(String, String)> = env::vars_os().filter_map(text).collect();
        variables.sort();
        Layers { flags, variables, file }
    }

    /// Reads the file, then all layers.
    pub(crate) fn read(&self) -> Read {
        let mut read = Read {
            settings: Settings::default(),
            file: None,
            errors: Vec::new(),
            warnings: Vec::new(),
            origins: Vec::new(),
        };
        match self.open_file() {
            Ok(Some((path, text))) => {
                read.take_file(&path, &text);
                read.file = Some(path);
            }
            Ok(None) => {}
            Err(what) => read.errors.push(what),
        }
        read.take_variables(&self.variables);
        for (name, text) in &self.flags {
            if let Some(setting) = super::find(name) {
                read.take(setting, text, Origin::Flag(name));
            }
        }
        if read.errors.is_empty() {
            read.errors = read.settings.finish();
        }
        read
    }

    fn open_file(&self) -> Result<Option<(PathBuf, String)>, String> {
        let variable = self.variables.iter().find(|(name, _)| name == CONFIG_VARIABLE);
        let variable = variable.filter(|(_, path)| !path.is_empty());
        let named = self.file.clone().or_else(|| variable.map(|(_, path)| PathBuf::from(path)));
        if let Some(path) = named {
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            return Ok(Some((path, text)));
        }
        for path in FILES.map(PathBuf::from) {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Some((path, text))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&path, &error)),
            }
        }
        Ok(None)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("the configuration file {} cannot be read: {error}", path.display())
}

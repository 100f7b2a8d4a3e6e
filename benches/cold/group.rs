//! A control group that limits memory, the page cache included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

const LACKING: &str = "\
This bench needs a control group that it may make and that limits memory. None could be made:
{why}
Run it as root; or, where systemd has the groups, give it one of its own:
    systemd-run --user --scope -p Delegate=yes cargo bench --bench cold
In a container, give it the group file system for writing (`--privileged`, or
`-v /sys/fs/cgroup:/sys/fs/cgroup:rw --cgroupns=private`).";

/// A group of its own under the one that this process is in. Removed when it is dropped.
pub(crate) struct Group {
    path: PathBuf,
    kind: &'static str,
}

impl Group {
    pub(crate) fn new(limit: u64) -> Result<Group, String> {
        let second = Group::second(limit);
        let first = second.or_else(|second| {
            Group::first(limit)
                .map_err(|first| format!("  version 2: {second}\n  version 1: {first}"))
        });
        first.map_err(|why| LACKING.replace("{why}", &why))
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn second(limit: u64) -> io::Result<Group> {
        let parent = parent("cgroup2", "", "0::")?;
        let controllers = fs::read_to_string(parent.join("cgroup.controllers"))?;
        if !controllers.split_whitespace().any(|name| name == "memory") {
            return Err(io::Error::other(format!("{parent:?} has no memory controller")));
        }
        fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
        let path = make(&parent)?;
        fs::write(path.join("memory.max"), limit.to_string())?;
        Ok(Group { path, kind: "cgroup v2" })
    }

    fn first(limit: u64) -> io::Result<Group> {
        let parent = parent("cgroup", "memory", ":memory:")?;
        let path = make(&parent)?;
        fs::write(path.join("memory.limit_in_bytes"), limit.to_string())?;
        Ok(Group { path, kind: "cgroup v1" })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Puts this process into a group.
pub(crate) fn join(path: &Path) {
    fs::write(path.join("cgroup.procs"), "0").unwrap();
}

fn make(parent: &Path) -> io::Result<PathBuf> {
    let path = parent.join(format!("kvast-cold-{}", process::id()));
    fs::create_dir(&path)?;
    Ok(path)
}

/// The directory of the group that this process is in, in the hierarchy of this file system and
/// controller.
fn parent(file_system: &str, controller: &str, of: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::other(format!("no {file_system} {controller} is mounted"));
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| {
        fields[2] == file_system
            && (controller.is_empty() || fields[3].split(',').any(|option| option == controller))
    });
    let mount = PathBuf::from(mount.ok_or_else(missing)?[1]);
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let own = groups.lines().find_map(|line| line.split_once(of).map(|(_, path)| path));
    let own = mount.join(own.unwrap_or("/").trim_start_matches('/'));
    // A container can have its own part of the hierarchy mounted as if that were the whole.
    Ok(if own.is_dir() { own } else { mount })
}

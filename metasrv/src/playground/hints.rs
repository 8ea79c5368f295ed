//! What to type next, so that it can be copied: with the path by which this program was started, and with the flags
//! that are needed to find this playground.

use std::path::{Path, PathBuf};

use super::DIR_VARIABLE;

/// How the programs are called.
pub struct Hints {
    metasrv: String,
    metactl: String,
    flags: String,
}

impl Hints {
    /// For a playground in this directory; none: where everybody looks.
    pub fn new(dir: Option<&Path>) -> Hints {
        let program = std::env::args_os().next().map_or_else(|| PathBuf::from("metasrv"), PathBuf::from);
        // The environment is the second terminal's own; only a flag has to be repeated there.
        let flags = match dir {
            Some(dir) if std::env::var_os(DIR_VARIABLE).is_none() => {
                format!(" --dir {}", std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).display())
            }
            _ => String::new(),
        };
        Hints {
            metactl: program.with_file_name("metactl").display().to_string(),
            metasrv: program.display().to_string(),
            flags,
        }
    }

    /// Starts a playground.
    pub fn playground(&self) -> String {
        format!("{} playground{}", self.metasrv, self.flags)
    }

    /// A command for a playground that runs.
    pub fn command(&self, command: &str) -> String {
        format!("{} playground {command}{}", self.metasrv, self.flags)
    }

    /// Looks at the cluster with the operator's tool.
    pub fn metactl(&self, addrs: &[String]) -> String {
        format!("{} --metasrv {} status", self.metactl, addrs.join(","))
    }

    /// What the screen shows below everything else: lines that can be copied, short enough for eighty columns. The
    /// line for metactl is longer; `ls` prints it.
    pub fn on_screen(&self) -> Vec<String> {
        aligned(&[
            (self.command("ls"), "addresses, logs, metactl"),
            (self.command("kill leader"), "and m1, d1, e1; start m1"),
            (self.command("pause d1"), "resume d1; logs d1 --follow"),
        ])
    }

    /// What to do after the end of a playground with so many replicas.
    pub fn at_the_end(&self, replicas: usize) -> Vec<String> {
        let death = match replicas {
            1 => "regions turn read-only when their lease ends, until: start m1",
            _ => "another replica takes over, and regions stay where they are",
        };
        let hints = [
            (self.playground(), "again, and from a second terminal:"),
            (self.command("kill leader"), death),
            (self.command("pause d1"), "its regions turn read-only when their lease ends, until: resume d1"),
            (format!("{} --datanodes 9 --regions 900", self.playground()), "a larger one"),
            (format!("{} --keep", self.playground()), "logs and data stay"),
        ];
        aligned(&hints).into_iter().map(|hint| format!("  {hint}")).collect()
    }
}

/// Commands, and beside them what they are good for.
fn aligned(hints: &[(String, &str)]) -> Vec<String> {
    let width = hints.iter().map(|(command, _)| command.len()).max().unwrap_or_default();
    hints.iter().map(|(command, why)| format!("{command:<width$}  # {why}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_can_be_copied() {
        let hints = Hints {
            metasrv: "target/debug/metasrv".to_owned(),
            metactl: "target/debug/metactl".to_owned(),
            flags: " --dir /tmp/p".to_owned(),
        };
        assert_eq!(hints.command("ls"), "target/debug/metasrv playground ls --dir /tmp/p");
        assert_eq!(
            hints.metactl(&["a:1".to_owned(), "b:2".to_owned()]),
            "target/debug/metactl --metasrv a:1,b:2 status"
        );
        let here = Hints { flags: String::new(), ..hints };
        assert!(here.on_screen().iter().all(|line| line.len() < 80), "{:#?}", here.on_screen());
        let hints = Hints { flags: " --dir /tmp/p".to_owned(), ..here };
        assert!(hints.at_the_end(3).iter().any(|hint| hint.contains("playground --dir /tmp/p --keep")));
    }
}

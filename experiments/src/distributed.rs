//! Several processes for one run: the variables by which launchers place them, and a launcher of our own.
//!
//! `torchrun`, Slurm and Kubernetes start as many processes as they are told and say to each by `RANK`, `WORLD_SIZE`,
//! `MASTER_ADDR` and `MASTER_PORT` which one it is and where they meet. This file alone reads those variables.

use crate::run::COMMIT;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selfsup_core::group::{self, Group, Meeting};
use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The variables of one process, as they stand in the environment.
struct Variables<F: Fn(&str) -> Option<String>>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// Empty is as good as not set.
    fn text(&self, name: &str) -> Option<String> {
        self.0(name).map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok();
        number.map(Some).with_context(|| format!("the variable {name} is `{text}`; expected a whole number"))
    }

    /// What a launcher says of this process; none: it is alone.
    fn meeting(&self, timeout: Duration) -> Result<Option<Meeting>> {
        let (rank, size) = (self.number("RANK")?, self.number("WORLD_SIZE")?);
        let Some(size) = size else {
            ensure!(rank.is_none(), "the variable RANK is set, but WORLD_SIZE is not: {BOTH}");
            for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
                let size = self.text(name).unwrap_or_default();
                ensure!(
                    ["", "1"].contains(&size.as_str()),
                    "the variable {name} is {size}, so a launcher has started several processes, but RANK and WORLD_SIZE \
                     are not set: {BOTH}"
                );
            }
            return Ok(None);
        };
        ensure!(size > 0, "the variable WORLD_SIZE is 0; expected the number of processes");
        if size == 1 && rank.unwrap_or(0) == 0 {
            return Ok(None);
        }
        let rank = rank.with_context(|| format!("the variable WORLD_SIZE is {size}, but RANK is not set: {BOTH}"))?;
        ensure!(
            rank < size,
            "the variable RANK is {rank}, but WORLD_SIZE is {size}: ranks are 0 to {}, each for one process",
            size - 1
        );
        let missing = |name| format!("the variable WORLD_SIZE is {size}, but {name} is not set: {BOTH}");
        let address = self.text("MASTER_ADDR").with_context(|| missing("MASTER_ADDR"))?;
        let port = self.number("MASTER_PORT")?.with_context(|| missing("MASTER_PORT"))?;
        let port = u16::try_from(port).ok().filter(|&port| port > 0);
        let port = port.context("the variable MASTER_PORT must be a port, 1 to 65535")?;
        if let Some(local) = self.number("LOCAL_RANK")? {
            ensure!(
                local <= rank,
                "the variable LOCAL_RANK is {local}, but RANK is {rank}: a process is no further among those of its \
                 machine than among all"
            );
        }
        Ok(Some(Meeting {
            rank,
            size,
            address,
            port,
            served: self.text("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            // One store may see several attempts.
            name: format!("selfsup/{}", self.text("TORCHELASTIC_RESTART_COUNT").unwrap_or_default()),
            meet: timeout,
            timeout,
        }))
    }
}

/// What to do about half-set variables.
const BOTH: &str = "start with torchrun or `selfsup launch`, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for every \
                    process";

/// What the environment says of this process; none: it is alone. `timeout` is how long others may be silent.
///
/// # Errors
/// If variables are missing or contradict each other.
pub fn meeting(timeout: Duration) -> Result<Option<Meeting>> {
    Variables(|name| env::var(name).ok()).meeting(timeout)
}

/// The number of this process among those of its machine, and of these; 0 of 1 where nothing says so.
pub fn local() -> (usize, usize) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.trim().parse().ok());
    (number("LOCAL_RANK").unwrap_or(0), number("LOCAL_WORLD_SIZE").unwrap_or(1).max(1))
}

/// Refuses to be one of several processes where each would work for itself.
///
/// # Errors
/// If a launcher has started several.
pub fn alone(what: &str) -> Result<()> {
    let others = meeting(Duration::from_secs(1))?;
    ensure!(
        others.is_none(),
        "the variable WORLD_SIZE is {}, so a launcher has started several processes, but {what} is work for one: start it \
         without the launcher",
        others.map_or(1, |meeting| meeting.size)
    );
    Ok(())
}

/// Runs `f` as one of several processes where the environment says so, once all are there and are the same program.
///
/// # Errors
/// If they do not come, or are another version; and what `f` gives.
pub fn together<T>(timeout: Duration, f: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(meeting) = meeting(timeout)? else { return f() };
    let Meeting { rank, size, address, port, .. } = &meeting;
    let join = Group::join(&meeting).map_err(|why| {
        let why = why.to_string();
        let why = why.lines().next().unwrap_or_default().split(". ").next().unwrap_or_default().to_string();
        anyhow::anyhow!(
            "rank {rank} of {size} did not meet the others at {address}:{port} within {} s ({why}): start all {size} \
             processes, with one address of rank 0 that all of them reach; --timeout sets how long to wait",
            timeout.as_secs()
        )
    })?;
    group::with(Rc::new(join), || {
        let own = format!("{} {COMMIT}", env!("CARGO_PKG_VERSION"));
        let all = group::exchange(&own)?;
        let other = all.iter().position(|other| *other != all[0]).unwrap_or(0);
        ensure!(
            other == 0,
            "rank {other} of {size} is version {}, but rank 0 is {}: start the same program everywhere",
            all[other],
            all[0]
        );
        f()
    })
}

/// How long the others have to say their last sentence once one of them has ended.
const GRACE: Duration = Duration::from_secs(20);

/// Starts this program `count` times on this machine with `arguments`, as the ranks of one run, hands on a request to
/// stop, and waits. Gives the exit code: that of the first process that failed, or of all.
///
/// # Errors
/// If a process cannot be started.
pub fn launch(count: usize, arguments: &[String], stop: &AtomicBool) -> Result<u8> {
    ensure!(count > 0, "0 processes would do nothing: `selfsup launch -n 2 -- pretrain ..`");
    alone("a launcher")?;
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let port = port.context("no free port was found")?.port();
    let program = env::current_exe().context("this program does not know where it lies")?;
    let mut children: Vec<Option<Child>> = Vec::new();
    for rank in 0..count {
        let mut command = Command::new(&program);
        command.args(arguments).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
        command.env("WORLD_SIZE", count.to_string()).env("LOCAL_WORLD_SIZE", count.to_string());
        match command.spawn() {
            Ok(child) => children.push(Some(child)),
            Err(why) => {
                children.iter_mut().flatten().for_each(|child| drop(child.kill()));
                return Err(why).with_context(|| format!("rank {rank} could not be started"));
            }
        }
    }
    let (mut first, mut failed, mut told) = (0, None, false);
    while children.iter().any(Option::is_some) {
        if stop.load(Ordering::Relaxed) && !told {
            told = true;
            children.iter().flatten().for_each(ask_to_stop);
        }
        for (rank, place) in children.iter_mut().enumerate() {
            let Some(child) = place else { continue };
            let Some(status) = child.try_wait().with_context(|| format!("rank {rank} cannot be waited for"))? else {
                continue;
            };
            *place = None;
            let code = code(status);
            if code != 0 && failed.is_none() {
                failed = Some(Instant::now());
                first = code;
                if count > 1 && !told {
                    eprintln!("rank {rank} of {count} ended with {}; the others are ended too", told_of(status));
                }
            }
        }
        if failed.is_some_and(|since: Instant| since.elapsed() > GRACE) && !told {
            children.iter_mut().flatten().for_each(|child| drop(child.kill()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(first)
}

fn ask_to_stop(child: &Child) {
    // One that has just ended cannot be asked, and need not.
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = process.map(|process| kill_process(process, Signal::TERM));
}

fn code(status: ExitStatus) -> u8 {
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

fn told_of(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<Option<Meeting>> {
        let find = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string());
        Variables(find).meeting(Duration::from_secs(5))
    }

    const WHOLE: [(&str, &str); 4] =
        [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "host"), ("MASTER_PORT", "29500")];

    #[test]
    fn whole_variables_name_a_meeting_and_one_process_needs_none() {
        let meeting = of(&WHOLE).expect("whole").expect("two processes");
        assert_eq!((meeting.rank, meeting.size, meeting.port, meeting.served), (1, 2, 29500, false));
        assert_eq!(meeting.address, "host");
        let elastic = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "3")];
        let meeting = of(&[&WHOLE[..], &elastic].concat()).expect("whole").expect("two processes");
        assert!(meeting.served && meeting.name.ends_with("/3"));
        for alone in [&[][..], &[("WORLD_SIZE", "1")], &[("WORLD_SIZE", ""), ("RANK", " ")], &[("PMI_SIZE", "1")]] {
            assert_eq!(of(alone).expect("one process"), None);
        }
        assert_eq!(of(&[("RANK", "0"), ("WORLD_SIZE", "1")]).expect("one process"), None);
    }

    #[test]
    fn half_set_and_contradictory_variables_are_refused_in_words() {
        let without = |name: &str| WHOLE.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
        let with = |name, text| [&without(name)[..], &[(name, text)]].concat();
        for (set, word) in [
            (without("RANK"), "RANK is not set"),
            (without("WORLD_SIZE"), "WORLD_SIZE is not"),
            (without("MASTER_ADDR"), "MASTER_ADDR is not set"),
            (without("MASTER_PORT"), "MASTER_PORT is not set"),
            (with("RANK", "2"), "ranks are 0 to 1"),
            (with("RANK", "one"), "RANK is `one`"),
            (with("WORLD_SIZE", "0"), "WORLD_SIZE is 0"),
            (with("WORLD_SIZE", "-2"), "WORLD_SIZE is `-2`"),
            (with("MASTER_PORT", "70000"), "1 to 65535"),
            (with("LOCAL_RANK", "5"), "LOCAL_RANK is 5"),
            (vec![("OMPI_COMM_WORLD_SIZE", "4")], "OMPI_COMM_WORLD_SIZE is 4"),
            (vec![("PMI_SIZE", "4")], "torchrun"),
        ] {
            let error = of(&set).expect_err(word).to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

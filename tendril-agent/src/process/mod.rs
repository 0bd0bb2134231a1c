//! Runs one program, reads its output, and ends it with everything that it started.
//!
//! `terraform`, `cost`, `template::git` and hooks run their programs with it.
//!
//! ```text
//! runner         runs a program in a process group of its own: output, end, termination in stages
//! sink           where output goes
//! stream         the streams that a program writes
//! output_pipe    the pipe that output goes through
//! pump           bytes from that pipe to where they are wanted
//! journal        output on disk, until what was made of it is
//! file_sink      output into a file
//! cancellation   the signal to stop one job
//! time_limit     a limit of time that was reached
//! drain          the end of the agent, for work that no lease covers
//! keeper         a small parent process that stores an exit code
//! orphans        processes of an attempt that outlived their parent
//! cgroup         a control group for one attempt, where there can be one
//! run_user       the user of one run, where the agent is root
//! oom            whom the kernel kills where memory is used up
//! process_table  the processes of this machine, and signals that reach the one that was found
//! process_owner  whose a process is
//! run_as         becomes that user
//! survivors      output of programs that outlived their agent
//! zombies        waits for orphaned processes that have ended
//! ```

mod cancellation;
pub(crate) mod cgroup;
mod drain;
mod file_sink;
mod journal;
pub(crate) mod keeper;
mod oom;
pub(crate) mod orphans;
mod output_pipe;
mod process_owner;
mod process_table;
mod pump;
pub(crate) mod run_as;
pub(crate) mod run_user;
mod runner;
mod sink;
mod stream;
mod survivors;
mod time_limit;
pub(crate) mod zombies;

pub(crate) use self::{
    cancellation::{StopReason, StopSignal},
    drain::Drain,
    file_sink::FileSink,
    journal::{Journal, StreamJournal},
    output_pipe::discard_output_of,
    process_table::Process,
    pump::deliver_rest,
    run_user::{RunUser, SlotUsers},
    runner::{Command, Exit, GracePeriod, LocalRunner, Runner, TerminationStage},
    sink::Sink,
    stream::Stream,
    survivors::Survivors,
    time_limit::Expired,
};

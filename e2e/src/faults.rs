//! Real faults for a real cluster: three etcd members, two processes of controllers and three agents, each process
//! behind proxies of its own, and a record of every write, which is held against named promises after each run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`rig`] | the whole cluster, and what a scenario does with it |
//! | [`etcd`] | the members, which are killed and started again |
//! | [`proxy`] | what lies between one process and one member |
//! | [`tap`] | which transactions passed through a proxy |
//! | `recorder`, [`history`] | every change in order, and who made it |
//! | [`probe`] | caches as controllers have them, looked at from within |
//! | [`user`] | what is wanted, and load |
//! | [`goal`] | whether actual matches desired, down to the processes |
//! | [`check`] | the promises |

pub mod check;
pub mod etcd;
pub mod goal;
pub mod history;
pub mod probe;
mod process;
pub mod proxy;
mod recorder;
mod report;
pub mod rig;
pub mod tap;
pub mod user;

pub use proxy::Mode;
pub use rig::Rig;

use tap::Sender;

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// A process of controllers.
    Controllers,
    /// The agent of the node that it is called after.
    Agent,
    /// The test itself, and commands that it runs.
    User,
    /// A cache that is only looked at.
    Probe,
}

fn role(sender: &Sender) -> Role {
    match &*sender.name {
        "user" => Role::User,
        name if name.starts_with("controllers") => Role::Controllers,
        name if name.starts_with("probe") => Role::Probe,
        _ => Role::Agent,
    }
}

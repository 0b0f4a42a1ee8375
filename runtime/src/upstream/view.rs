//! Which replicas there are and which of them can be called: what the keepers of
//! connections write, and calls read.

use tonic::transport::Channel;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::address::{Address, Addresses, Place};

/// How it stands with one replica.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// It is being connected to, and has not failed since it was last up.
    Trying,
    Up(Channel),
    /// Why it cannot be called.
    Down(String),
}

#[derive(Debug)]
struct Member {
    address: Address,
    state: State,
}

/// All replicas of a service.
#[derive(Debug, Default)]
pub(super) struct View {
    /// In the order of their addresses.
    members: Vec<Member>,
    /// Why nobody knows where they are, while that is so.
    unresolved: Option<String>,
}

/// What a call is to do.
#[derive(Debug)]
pub(super) enum Choice {
    Call(Address, Channel),
    /// It may soon be known.
    Wait,
    /// Nobody can be called.
    Fail,
}

/// Among those that are up.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// One after another; not this one, if there is another.
    Turn(usize, Option<&'a Address>),
    /// The one that a key belongs to.
    Key(&'a [u8]),
    /// This one and no other.
    Address(&'a Address),
}

impl View {
    /// What is known before anybody has looked.
    pub(super) fn of(addresses: &Addresses) -> Self {
        let mut view = Self::default();
        if let Place::List(list) = &addresses.place {
            view.resolved(list);
        }
        view
    }

    pub(super) fn choose(&self, by: By<'_>) -> Choice {
        let up: Vec<_> = self.up().collect();
        let chosen = match by {
            By::Turn(turn, not) => {
                let others: Vec<_> = up.iter().filter(|(it, _)| Some(*it) != not).collect();
                let others = if others.is_empty() {
                    up.iter().collect()
                } else {
                    others
                };
                others.get(turn % others.len().max(1)).copied().copied()
            }
            By::Address(address) => return self.choose_at(address),
            By::Key(key) => up
                .into_iter()
                .max_by_key(|(address, _)| weight(address, key)),
        };
        match chosen {
            Some((address, channel)) => Choice::Call(address.clone(), channel.clone()),
            None if self.may_come() => Choice::Wait,
            None => Choice::Fail,
        }
    }

    fn choose_at(&self, address: &Address) -> Choice {
        let member = self.members.iter().find(|it| it.address == *address);
        match member.map(|member| &member.state) {
            Some(State::Up(channel)) => Choice::Call(address.clone(), channel.clone()),
            Some(State::Trying) => Choice::Wait,
            Some(State::Down(_)) | None => Choice::Fail,
        }
    }

    /// Every replica that is known, up or not.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.members.iter().map(|member| &member.address)
    }

    pub(super) fn up(&self) -> impl Iterator<Item = (&Address, &Channel)> {
        self.members
            .iter()
            .filter_map(|member| match &member.state {
                State::Up(channel) => Some((&member.address, channel)),
                State::Trying | State::Down(_) => None,
            })
    }

    /// How many are up, and how many there are.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.up().count(), self.members.len())
    }

    /// What an operator must know: nothing while a replica is up.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.up().next().is_some() {
            return None;
        }
        if let Some(problem) = &self.unresolved {
            return Some(problem.clone());
        }
        let problems = self.members.iter().map(|member| match &member.state {
            State::Down(why) => format!("{}: {why}", member.address),
            State::Trying | State::Up(_) => format!("{}: connecting", member.address),
        });
        let problems: Vec<_> = problems.collect();
        if problems.is_empty() {
            return Some("its addresses are not known yet".to_owned());
        }
        Some(problems.join("; "))
    }

    fn may_come(&self) -> bool {
        if self.members.is_empty() {
            return self.unresolved.is_none();
        }
        let trying = |member: &Member| matches!(member.state, State::Trying);
        self.members.iter().any(trying)
    }

    /// Says how it stands with a replica, if it still is one. Whether anything
    /// changed.
    pub(super) fn set(&mut self, address: &Address, state: State) -> bool {
        let member = self.members.iter_mut().find(|it| it.address == *address);
        member.is_some_and(|member| {
            member.state = state;
            true
        })
    }

    /// Takes note of which replicas there are; `addresses` are sorted. Those that
    /// are not among them are forgotten.
    pub(super) fn resolved(&mut self, addresses: &[Address]) {
        self.unresolved = None;
        let mut before = std::mem::take(&mut self.members);
        self.members = addresses
            .iter()
            .map(|address| {
                let known = before.iter().position(|it| it.address == *address);
                known.map_or_else(
                    || Member {
                        address: address.clone(),
                        state: State::Trying,
                    },
                    |index| before.swap_remove(index),
                )
            })
            .collect();
    }

    /// Takes note that the name means nothing now. Replicas that are known stay.
    pub(super) fn unresolved(&mut self, why: String) {
        self.unresolved = Some(why);
    }
}

/// The highest wins: of a replica that comes or goes, only what was or becomes its
/// own moves. Every node must reckon it alike.
fn weight(address: &Address, key: &[u8]) -> (u64, Address) {
    let seed = xxh3_64_with_seed(address.as_str().as_bytes(), 0);
    (xxh3_64_with_seed(key, seed), address.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tonic::transport::Endpoint;

    use super::*;

    fn address(port: u16) -> Address {
        Address::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)))
    }

    fn view(ports: &[u16]) -> View {
        let mut view = View::default();
        view.resolved(&ports.iter().copied().map(address).collect::<Vec<_>>());
        for port in ports {
            let channel = Endpoint::from_static("http://10.0.0.1").connect_lazy();
            assert!(view.set(&address(*port), State::Up(channel)));
        }
        view
    }

    fn chosen(view: &View, by: By<'_>) -> Address {
        match view.choose(by) {
            Choice::Call(address, _) => address,
            other @ (Choice::Wait | Choice::Fail) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn calls_go_round_those_that_are_up_and_a_retry_elsewhere() {
        let mut view = view(&[1, 2, 3]);
        view.set(&address(2), State::Down("gone".into()));
        let turns = (0..4).map(|turn| chosen(&view, By::Turn(turn, None)));
        let turns: Vec<_> = turns.collect();
        assert_eq!(turns, [1, 3, 1, 3].map(address));
        for turn in 0..4 {
            let one = address(1);
            assert_eq!(chosen(&view, By::Turn(turn, Some(&one))), address(3));
        }
        view.set(&address(3), State::Trying);
        let one = address(1);
        assert_eq!(
            chosen(&view, By::Turn(1, Some(&one))),
            one,
            "better than none"
        );
    }

    #[tokio::test]
    async fn a_replica_that_goes_moves_only_its_own_keys() {
        let mut view = view(&[1, 2, 3]);
        let owners = |view: &View| {
            let keys = (0..300_u32).map(|key| (key, chosen(view, By::Key(&key.to_le_bytes()))));
            keys.collect::<BTreeMap<_, _>>()
        };
        let before = owners(&view);
        view.set(&address(2), State::Trying);
        let after = owners(&view);
        let mut moved = 0;
        for (key, owner) in &before {
            if *owner == address(2) {
                moved += 1;
                assert_ne!(after[key], address(2));
            } else {
                assert_eq!(after[key], *owner);
            }
        }
        assert!((60..140).contains(&moved), "{moved} of 300");
    }

    #[tokio::test]
    async fn a_call_waits_only_for_what_has_not_failed() {
        let mut view = View::default();
        let fails = |view: &View| matches!(view.choose(By::Turn(0, None)), Choice::Fail);
        assert!(!fails(&view), "not resolved yet");
        view.unresolved("no such name".into());
        assert!(fails(&view));
        assert_eq!(view.trouble().as_deref(), Some("no such name"));
        view.resolved(&[address(1), address(2)]);
        assert!(!fails(&view), "not connected yet");
        view.set(&address(1), State::Down("refused".into()));
        assert!(!fails(&view));
        view.set(&address(2), State::Down("silent".into()));
        assert!(fails(&view));
        let trouble = view.trouble().unwrap();
        assert_eq!(trouble, "10.0.0.1:1: refused; 10.0.0.1:2: silent");
        assert!(!view.set(&address(9), State::Trying), "not a replica");
    }

    #[tokio::test]
    async fn a_name_that_means_nothing_for_a_while_takes_nobody_away() {
        let mut view = view(&[1, 2]);
        view.unresolved("no such name".into());
        assert_eq!(view.count(), (2, 2));
        assert_eq!(view.trouble(), None);
        view.resolved(&[address(2), address(3)]);
        assert_eq!(view.count(), (1, 2));
        assert_eq!(chosen(&view, By::Turn(7, None)), address(2));
    }
}

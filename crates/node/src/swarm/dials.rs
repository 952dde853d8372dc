//! Requested dials: which callers wait for which peer, how many dials run, and their outcomes.
//!
//! Only bookkeeping: the event loop dials and reports the outcomes.

use std::collections::{HashMap, VecDeque};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

/// Concurrent dials, each of which may try several addresses.
const RUNNING_MAX: usize = 96;

/// Queued dials.
const QUEUE_MAX: usize = 1024;

/// Concurrent dials of one peer: more than one only if callers know different addresses.
const RUNNING_PER_PEER_MAX: usize = 4;

/// Callers that may wait for one peer.
const WAITING_PER_PEER_MAX: usize = 1024;

/// Why a peer could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No address is known that this node may dial.
    #[error("no dialable address is known")]
    NoAddress,
    /// The peer could not be reached at any address.
    #[error("{0}")]
    Failed(String),
    /// Too many dials are queued.
    #[error("too many dials are queued")]
    Busy,
    /// The node is shutting down.
    #[error("the node is stopping")]
    Stopping,
}

/// The channel for the outcome of a dial; `None` if no caller waits.
pub(super) type Reply = Option<oneshot::Sender<Result<(), DialError>>>;

/// A requested dial.
pub(super) struct DialRequest {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) reply: Reply,
}

impl DialRequest {
    /// Whether the caller no longer waits.
    fn is_cancelled(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(super) fn answer(self, outcome: Result<(), DialError>) {
        if let Some(reply) = self.reply {
            // An error says that the caller no longer waits.
            let _ = reply.send(outcome);
        }
    }
}

/// What to do with a request.
pub(super) enum Admission {
    /// Dial now, then call [`Dials::started`].
    Start(DialRequest),
    /// Nothing: it is queued, joined a running dial, or was refused.
    Queued,
}

/// All requested dials.
#[derive(Default)]
pub(super) struct Dials {
    /// Running dials. A peer is in `waiting` until its outcome is known.
    running: HashMap<ConnectionId, PeerId>,
    waiting: HashMap<PeerId, Waiting>,
    queue: VecDeque<DialRequest>,
}

#[derive(Default)]
struct Waiting {
    running: usize,
    requests: Vec<DialRequest>,
}

impl Waiting {
    /// Adds a request to those that wait for the outcome.
    fn join(&mut self, request: DialRequest) {
        if request.reply.is_none() {
            return;
        }
        if self.requests.len() < WAITING_PER_PEER_MAX {
            self.requests.push(request);
        } else {
            request.answer(Err(DialError::Busy));
        }
    }
}

impl Dials {
    /// Decides about a request for a peer that is not connected.
    pub(super) fn submit(&mut self, request: DialRequest) -> Admission {
        if let Some(waiting) = self.waiting.get_mut(&request.peer)
            && (request.addresses.is_empty() || waiting.running >= RUNNING_PER_PEER_MAX)
        {
            waiting.join(request);
            return Admission::Queued;
        }
        if self.running.len() < RUNNING_MAX {
            return Admission::Start(request);
        }
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(request);
        } else {
            request.answer(Err(DialError::Busy));
        }
        Admission::Queued
    }

    /// The dial of a request was started.
    pub(super) fn started(&mut self, connection: ConnectionId, request: DialRequest) {
        self.running.insert(connection, request.peer);
        let waiting = self.waiting.entry(request.peer).or_default();
        waiting.running += 1;
        waiting.join(request);
    }

    /// The peer is connected, by any dial.
    pub(super) fn connected(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.running.remove(&connection);
        if let Some(waiting) = self.waiting.remove(peer) {
            waiting.requests.into_iter().for_each(|request| request.answer(Ok(())));
        }
    }

    /// A dial failed. The callers are notified once no other dial of the peer runs.
    pub(super) fn failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(peer) = self.running.remove(&connection) else { return };
        let Some(waiting) = self.waiting.get_mut(&peer) else { return };
        waiting.running = waiting.running.saturating_sub(1);
        if waiting.running == 0
            && let Some(waiting) = self.waiting.remove(&peer)
        {
            waiting.requests.into_iter().for_each(|request| request.answer(Err(error.clone())));
        }
    }

    /// The next queued request, if another dial may run.
    pub(super) fn next(&mut self) -> Option<DialRequest> {
        while self.running.len() < RUNNING_MAX {
            let request = self.queue.pop_front()?;
            if !request.is_cancelled() {
                return Some(request);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        peer: PeerId,
        address: Option<&str>,
    ) -> (DialRequest, oneshot::Receiver<Result<(), DialError>>) {
        let (reply, outcome) = oneshot::channel();
        let addresses = address.map(|address| address.parse().unwrap()).into_iter().collect();
        (DialRequest { peer, addresses, reply: Some(reply) }, outcome)
    }

    fn start(dials: &mut Dials, request: DialRequest) -> ConnectionId {
        let Admission::Start(request) = dials.submit(request) else { panic!("it was not started") };
        // Ids are unique in a process and have no public constructor but through a dial's options.
        let id = libp2p::swarm::dial_opts::DialOpts::from(request.peer).connection_id();
        dials.started(id, request);
        id
    }

    #[tokio::test]
    async fn callers_for_the_same_peer_share_a_dial() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, first_outcome) = request(peer, None);
        let (second, second_outcome) = request(peer, None);
        let connection = start(&mut dials, first);
        assert!(matches!(dials.submit(second), Admission::Queued));
        dials.connected(&peer, connection);
        assert_eq!(first_outcome.await.unwrap(), Ok(()));
        assert_eq!(second_outcome.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn dial_fails_only_when_every_address_failed() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, mut first_outcome) = request(peer, Some("/ip4/10.0.0.1/tcp/1"));
        let (second, second_outcome) = request(peer, Some("/ip4/10.0.0.2/tcp/1"));
        let (one, two) = (start(&mut dials, first), start(&mut dials, second));
        dials.failed(one, &DialError::Failed("refused".into()));
        assert!(first_outcome.try_recv().is_err(), "the second address may still do");
        dials.connected(&peer, two);
        assert_eq!(first_outcome.await.unwrap(), Ok(()));
        assert_eq!(second_outcome.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn callers_for_one_peer_are_bounded() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        start(&mut dials, request(peer, None).0);
        for _ in 0..10 * WAITING_PER_PEER_MAX {
            dials.submit(DialRequest { peer, addresses: Vec::new(), reply: None });
        }
        let mut outcomes = Vec::new();
        for _ in 1..WAITING_PER_PEER_MAX {
            let (request, outcome) = request(peer, None);
            dials.submit(request);
            outcomes.push(outcome);
        }
        assert!(outcomes.iter_mut().all(|outcome| outcome.try_recv().is_err()), "all of them wait");
        let (over, outcome) = request(peer, None);
        dials.submit(over);
        assert_eq!(outcome.await.unwrap(), Err(DialError::Busy));
    }

    #[tokio::test]
    async fn dials_beyond_the_limit_are_queued_and_then_refused() {
        let mut dials = Dials::default();
        let mut ids = Vec::new();
        for _ in 0..RUNNING_MAX {
            ids.push(start(&mut dials, request(PeerId::random(), None).0));
        }
        let mut queued = Vec::new();
        for _ in 0..QUEUE_MAX {
            let (request, outcome) = request(PeerId::random(), None);
            assert!(matches!(dials.submit(request), Admission::Queued));
            queued.push(outcome);
        }
        let (over, outcome) = request(PeerId::random(), None);
        dials.submit(over);
        assert_eq!(outcome.await.unwrap(), Err(DialError::Busy));
        assert!(dials.next().is_none());
        drop(queued.remove(0));
        dials.failed(ids[0], &DialError::NoAddress);
        assert!(dials.next().is_some_and(|request| !request.is_cancelled()), "a cancelled one is skipped");
    }
}

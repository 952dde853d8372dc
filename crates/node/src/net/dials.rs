//! The dials that are asked for: who waits for which peer, how many run at once, and what became of them.
//!
//! Only bookkeeping: the actor does the dialling and reports what the swarm says.

use std::collections::{HashMap, VecDeque};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

/// The most dials at once, each of which may try several addresses.
const RUNNING_MAX: usize = 96;

/// The most dials that wait for their turn.
const QUEUE_MAX: usize = 1024;

/// The most dials of one peer at once: more than one only where callers know different addresses.
const RUNNING_PER_PEER_MAX: usize = 4;

/// The most callers that wait for one peer.
const WAITING_PER_PEER_MAX: usize = 1024;

/// Why a peer could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No address is known that this node may dial.
    #[error("no address is known that may be dialled")]
    NoAddress,
    /// No address led to the peer.
    #[error("{0}")]
    Failed(String),
    /// Too many dials wait already.
    #[error("too many dials are waiting")]
    Busy,
    /// The node is shutting down.
    #[error("the node is stopping")]
    Stopping,
}

/// Where the outcome of a dial goes; nobody may be waiting for it.
pub(super) type Reply = Option<oneshot::Sender<Result<(), DialError>>>;

/// A dial that was asked for.
pub(super) struct Order {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) reply: Reply,
}

impl Order {
    /// Whether the caller has gone away meanwhile.
    fn is_abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(super) fn answer(self, outcome: Result<(), DialError>) {
        if let Some(reply) = self.reply {
            // A caller that is gone needs no answer.
            let _ = reply.send(outcome);
        }
    }
}

/// What to do with an order.
pub(super) enum Verdict {
    /// Dial now, then call [`Dials::started`].
    Start(Order),
    /// Nothing: it waits in the queue or for a running dial, or was answered.
    Settled,
}

/// All dials that are asked for.
#[derive(Default)]
pub(super) struct Dials {
    /// Dials in flight; a peer is in `waiting` as long as its outcome is open.
    running: HashMap<ConnectionId, PeerId>,
    waiting: HashMap<PeerId, Waiting>,
    queue: VecDeque<Order>,
}

#[derive(Default)]
struct Waiting {
    running: usize,
    orders: Vec<Order>,
}

impl Waiting {
    /// Lets the order wait for the outcome, if anybody does.
    fn join(&mut self, order: Order) {
        if order.reply.is_none() {
            return;
        }
        if self.orders.len() < WAITING_PER_PEER_MAX {
            self.orders.push(order);
        } else {
            order.answer(Err(DialError::Busy));
        }
    }
}

impl Dials {
    /// Takes in an order for a peer that is not connected.
    pub(super) fn submit(&mut self, order: Order) -> Verdict {
        if let Some(waiting) = self.waiting.get_mut(&order.peer)
            && (order.addresses.is_empty() || waiting.running >= RUNNING_PER_PEER_MAX)
        {
            waiting.join(order);
            return Verdict::Settled;
        }
        if self.running.len() < RUNNING_MAX {
            return Verdict::Start(order);
        }
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(order);
        } else {
            order.answer(Err(DialError::Busy));
        }
        Verdict::Settled
    }

    /// Notes that an order's dial is under way.
    pub(super) fn started(&mut self, connection: ConnectionId, order: Order) {
        self.running.insert(connection, order.peer);
        let waiting = self.waiting.entry(order.peer).or_default();
        waiting.running += 1;
        waiting.join(order);
    }

    /// A connection with the peer is up, by whatever dial.
    pub(super) fn connected(&mut self, peer: &PeerId, connection: ConnectionId) {
        self.running.remove(&connection);
        if let Some(waiting) = self.waiting.remove(peer) {
            waiting.orders.into_iter().for_each(|order| order.answer(Ok(())));
        }
    }

    /// A dial failed; those who wait for the peer are told once no dial of it is left.
    pub(super) fn failed(&mut self, connection: ConnectionId, error: &DialError) {
        let Some(peer) = self.running.remove(&connection) else { return };
        let Some(waiting) = self.waiting.get_mut(&peer) else { return };
        waiting.running = waiting.running.saturating_sub(1);
        if waiting.running == 0
            && let Some(waiting) = self.waiting.remove(&peer)
        {
            waiting.orders.into_iter().for_each(|order| order.answer(Err(error.clone())));
        }
    }

    /// The next order of the queue, if there is room for it.
    pub(super) fn next(&mut self) -> Option<Order> {
        while self.running.len() < RUNNING_MAX {
            let order = self.queue.pop_front()?;
            if !order.is_abandoned() {
                return Some(order);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(peer: PeerId, address: Option<&str>) -> (Order, oneshot::Receiver<Result<(), DialError>>) {
        let (reply, outcome) = oneshot::channel();
        let addresses = address.map(|address| address.parse().unwrap()).into_iter().collect();
        (Order { peer, addresses, reply: Some(reply) }, outcome)
    }

    fn start(dials: &mut Dials, order: Order) -> ConnectionId {
        let Verdict::Start(order) = dials.submit(order) else { panic!("was not to be dialled") };
        // Ids are unique in a process and have no public constructor but through a dial's options.
        let id = libp2p::swarm::dial_opts::DialOpts::from(order.peer).connection_id();
        dials.started(id, order);
        id
    }

    #[tokio::test]
    async fn those_who_want_the_same_peer_share_a_dial() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, first_outcome) = order(peer, None);
        let (second, second_outcome) = order(peer, None);
        let connection = start(&mut dials, first);
        assert!(matches!(dials.submit(second), Verdict::Settled));
        dials.connected(&peer, connection);
        assert_eq!(first_outcome.await.unwrap(), Ok(()));
        assert_eq!(second_outcome.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_peer_is_given_up_only_when_every_address_failed() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        let (first, mut first_outcome) = order(peer, Some("/ip4/10.0.0.1/tcp/1"));
        let (second, second_outcome) = order(peer, Some("/ip4/10.0.0.2/tcp/1"));
        let (one, two) = (start(&mut dials, first), start(&mut dials, second));
        dials.failed(one, &DialError::Failed("refused".into()));
        assert!(first_outcome.try_recv().is_err(), "the second address may still do");
        dials.connected(&peer, two);
        assert_eq!(first_outcome.await.unwrap(), Ok(()));
        assert_eq!(second_outcome.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn those_who_wait_for_one_peer_are_bounded_too() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        start(&mut dials, order(peer, None).0);
        for _ in 0..10 * WAITING_PER_PEER_MAX {
            dials.submit(Order { peer, addresses: Vec::new(), reply: None });
        }
        let mut outcomes = Vec::new();
        for _ in 1..WAITING_PER_PEER_MAX {
            let (order, outcome) = order(peer, None);
            dials.submit(order);
            outcomes.push(outcome);
        }
        assert!(outcomes.iter_mut().all(|outcome| outcome.try_recv().is_err()), "all of them wait");
        let (over, outcome) = order(peer, None);
        dials.submit(over);
        assert_eq!(outcome.await.unwrap(), Err(DialError::Busy));
    }

    #[tokio::test]
    async fn dials_beyond_the_bound_wait_and_then_are_refused() {
        let mut dials = Dials::default();
        let mut ids = Vec::new();
        for _ in 0..RUNNING_MAX {
            ids.push(start(&mut dials, order(PeerId::random(), None).0));
        }
        let mut queued = Vec::new();
        for _ in 0..QUEUE_MAX {
            let (order, outcome) = order(PeerId::random(), None);
            assert!(matches!(dials.submit(order), Verdict::Settled));
            queued.push(outcome);
        }
        let (over, outcome) = order(PeerId::random(), None);
        dials.submit(over);
        assert_eq!(outcome.await.unwrap(), Err(DialError::Busy));
        assert!(dials.next().is_none());
        drop(queued.remove(0));
        dials.failed(ids[0], &DialError::NoAddress);
        assert!(dials.next().is_some_and(|order| !order.is_abandoned()), "an abandoned one is skipped");
    }
}

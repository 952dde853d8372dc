//! Swarms that connect over loopback: every transport, every handshake, peering, the LAN DHT, and what must not be
//! dialled.

use std::time::Duration;

use cid::Cid;
use futures::StreamExt;
use libp2p::kad::store::MemoryStore;
use libp2p::kad::{self, Mode, RecordKey};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{StreamProtocol, SwarmBuilder, identify, noise, ping, tcp, tls, yamux};

use super::*;
use crate::config::{Lan, NodeConfig};
use crate::identity::Identity;

/// The deadline of every wait.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

struct TestNode {
    handle: SwarmHandle,
    task: JoinHandle<()>,
}

impl TestNode {
    async fn start(config: NodeConfig) -> Self {
        let (handle, task) = start(&config, dummy::Behaviour).await.unwrap();
        Self { handle, task }
    }

    async fn on(address: &str) -> Self {
        Self::start(NodeConfig { listen: vec![address.parse().unwrap()], ..NodeConfig::loopback() }).await
    }

    fn id(&self) -> PeerId {
        self.handle.local_peer_id()
    }

    async fn address(&self) -> Multiaddr {
        self.handle.listen_addresses().await.remove(0)
    }

    async fn stop(self) {
        self.handle.stop().await;
        self.task.await.unwrap();
    }
}

async fn wait_for(events: &mut broadcast::Receiver<PeerEvent>, wanted: PeerEvent) {
    soon(&format!("{wanted:?}"), async { while events.recv().await.unwrap() != wanted {} }).await;
}

/// Two nodes connect and identify each other.
async fn meet(listen: &str) -> Multiaddr {
    let (alice, bob) = (TestNode::on(listen).await, TestNode::start(NodeConfig::loopback()).await);
    let mut seen_by_alice = alice.handle.events();
    let mut seen_by_bob = bob.handle.events();
    let address = alice.address().await;
    soon("the dial", bob.handle.dial(alice.id(), vec![address.clone()])).await.unwrap();
    wait_for(&mut seen_by_bob, PeerEvent::Identified(alice.id())).await;
    wait_for(&mut seen_by_alice, PeerEvent::Identified(bob.id())).await;
    let peers = bob.handle.peers().await;
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].addresses, vec![address.clone()]);
    assert_eq!(peers[0].agent.as_deref(), Some(behaviour::AGENT));
    assert_eq!(alice.handle.peers().await[0].peer, bob.id());
    let bob_id = bob.id();
    bob.stop().await;
    wait_for(&mut seen_by_alice, PeerEvent::Disconnected(bob_id)).await;
    alice.stop().await;
    address
}

#[tokio::test]
async fn nodes_meet_over_tcp() {
    let address = meet("/ip4/127.0.0.1/tcp/0").await;
    assert!(!address.to_string().contains("/tcp/0"), "the actual port is listed: {address}");
}

#[tokio::test]
async fn nodes_meet_over_quic() {
    let address = meet("/ip4/127.0.0.1/udp/0/quic-v1").await;
    assert!(address.to_string().contains("/quic-v1/p2p/"), "{address}");
}

#[tokio::test]
async fn nodes_meet_over_websocket() {
    let address = meet("/ip4/127.0.0.1/tcp/0/ws").await;
    assert!(address.to_string().contains("/ws/p2p/"), "{address}");
}

#[test]
fn tls_is_offered_before_noise() {
    use libp2p::core::UpgradeInfo;
    let security = security::Security::new(Identity::generate().keypair()).unwrap();
    assert_eq!(security.protocol_info().collect::<Vec<_>>(), ["/tls/1.0.0", "/noise"]);
}

/// A peer built from libp2p alone, in the LAN DHT.
#[derive(NetworkBehaviour)]
struct Stranger {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    kad: kad::Behaviour<MemoryStore>,
}

impl Stranger {
    fn new(key: &libp2p::identity::Keypair) -> Self {
        let id = key.public().to_peer_id();
        let config = kad::Config::new(StreamProtocol::new("/ipfs/lan/kad/1.0.0"));
        let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), config);
        kad.set_mode(Some(Mode::Server));
        let identify = identify::Config::new("ipfs/0.1.0".into(), key.public());
        Self { identify: identify::Behaviour::new(identify), ping: ping::Behaviour::default(), kad }
    }
}

/// Starts listening, and yields the address.
async fn listening(stranger: &mut Swarm<Stranger>) -> Multiaddr {
    stranger.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } =
            soon("listening", stranger.select_next_some()).await
        {
            return address;
        }
    }
}

/// Runs a stranger until the test ends; yields the peers that it connects with.
fn run(mut stranger: Swarm<Stranger>) -> mpsc::Receiver<PeerId> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = stranger.select_next_some().await
                && sender.send(peer_id).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn noise_only() -> Swarm<Stranger> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default);
    builder.unwrap().with_behaviour(Stranger::new).unwrap().build()
}

fn tls_only() -> Swarm<Stranger> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default);
    builder.unwrap().with_behaviour(Stranger::new).unwrap().build()
}

/// The node dials the stranger, and another stranger of the same kind dials the node.
async fn meet_strangers(stranger: fn() -> Swarm<Stranger>) {
    let node = TestNode::start(NodeConfig::loopback()).await;
    let mut events = node.handle.events();
    let mut callee = stranger();
    let (callee_id, address) = (*callee.local_peer_id(), listening(&mut callee).await);
    let _callee = run(callee);
    soon("the dial", node.handle.dial(callee_id, vec![address])).await.unwrap();

    let mut caller = stranger();
    let caller_id = *caller.local_peer_id();
    caller.dial(node.address().await).unwrap();
    let _caller = run(caller);
    wait_for(&mut events, PeerEvent::Connected(caller_id)).await;
    node.stop().await;
}

#[tokio::test]
async fn peer_with_only_noise_is_connected() {
    meet_strangers(noise_only).await;
}

#[tokio::test]
async fn peer_with_only_tls_is_connected() {
    meet_strangers(tls_only).await;
}

#[tokio::test]
async fn peer_with_another_id_is_refused() {
    let (alice, bob) =
        (TestNode::on("/ip4/127.0.0.1/tcp/0").await, TestNode::start(NodeConfig::loopback()).await);
    let mut address = alice.address().await;
    address.pop();
    let outcome = soon("the dial", bob.handle.dial(PeerId::random(), vec![address])).await;
    assert!(matches!(outcome, Err(DialError::Failed(_))), "{outcome:?}");
    assert_eq!(bob.handle.peers().await, []);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn peered_node_that_restarts_is_dialled_again() {
    let identity = Identity::generate();
    let config = NodeConfig { identity: identity.clone(), ..NodeConfig::loopback() };
    let peered = TestNode::start(config.clone()).await;
    let address = peered.address().await;
    let keeper = TestNode::start(NodeConfig { peers: vec![address.clone()], ..NodeConfig::loopback() }).await;
    let mut events = keeper.handle.events();
    if keeper.handle.peers().await.is_empty() {
        wait_for(&mut events, PeerEvent::Connected(peered.id())).await;
    }

    peered.stop().await;
    wait_for(&mut events, PeerEvent::Disconnected(identity.peer_id())).await;
    let again = TestNode::start(NodeConfig { listen: vec![without_peer(address)], ..config }).await;
    wait_for(&mut events, PeerEvent::Connected(identity.peer_id())).await;

    keeper.stop().await;
    again.stop().await;
}

fn without_peer(mut address: Multiaddr) -> Multiaddr {
    address.pop();
    address
}

#[tokio::test]
async fn provider_is_found_through_a_dht_server() {
    let cid: Cid = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq".parse().unwrap();
    let middle = TestNode::start(NodeConfig { lan: Lan::Server, ..NodeConfig::loopback() }).await;
    let mut seen_by_middle = middle.handle.events();

    let mut provider = noise_only();
    let provider_id = *provider.local_peer_id();
    let address = listening(&mut provider).await;
    provider.add_external_address(address);
    provider.behaviour_mut().kad.add_address(&middle.id(), middle.address().await);
    provider.behaviour_mut().kad.start_providing(RecordKey::new(&cid.hash().to_bytes())).unwrap();
    soon("the record", async {
        loop {
            if let SwarmEvent::Behaviour(StrangerEvent::Kad(kad::Event::OutboundQueryProgressed {
                result: kad::QueryResult::StartProviding(result),
                ..
            })) = provider.select_next_some().await
            {
                return result.unwrap();
            }
        }
    })
    .await;
    let mut met_by_provider = run(provider);
    if middle.handle.peers().await.is_empty() {
        wait_for(&mut seen_by_middle, PeerEvent::Connected(provider_id)).await;
    }

    // The search starts before the finder knows any peer, and waits for one.
    let bootstrap = Bootstrap::List(vec![middle.address().await]);
    let finder = TestNode::start(NodeConfig { bootstrap, ..NodeConfig::loopback() }).await;
    let mut seen_by_finder = finder.handle.events();
    let mut search = finder.handle.find_providers(cid.hash());
    let found = soon("finding", search.next()).await;
    assert_eq!(found, Some(provider_id));
    wait_for(&mut seen_by_finder, PeerEvent::Connected(provider_id)).await;
    soon("the provider meeting the finder", async {
        while met_by_provider.recv().await.unwrap() != finder.id() {}
    })
    .await;

    drop(search);
    finder.stop().await;
    middle.stop().await;
}

#[tokio::test]
async fn node_without_bootstrap_dials_nothing() {
    let cid: Cid = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq".parse().unwrap();
    let lonely = TestNode::start(NodeConfig { lan: Lan::Off, ..NodeConfig::loopback() }).await;
    assert_eq!(soon("the end of the search", lonely.handle.find_providers(cid.hash()).next()).await, None);
    assert_eq!(lonely.handle.stats().await.dials, 0);

    // The same search with a known peer does dial.
    let other = TestNode::start(NodeConfig { lan: Lan::Server, ..NodeConfig::loopback() }).await;
    let bootstrap = Bootstrap::List(vec![other.address().await]);
    let asking = TestNode::start(NodeConfig { bootstrap, ..NodeConfig::loopback() }).await;
    let mut events = asking.handle.events();
    let mut search = asking.handle.find_providers(cid.hash());
    tokio::select! {
        () = wait_for(&mut events, PeerEvent::Connected(other.id())) => {}
        found = search.next() => panic!("the search ended before it asked: {found:?}"),
    }
    assert!(asking.handle.stats().await.dials > 0);
    for node in [lonely, other, asking] {
        node.stop().await;
    }
}

#[tokio::test]
async fn address_in_use_is_reported() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let first = TestNode::on(listen).await;
        let address = without_peer(first.address().await);
        let config = NodeConfig { listen: vec![address.clone()], ..NodeConfig::loopback() };
        let error = start(&config, dummy::Behaviour).await.err().unwrap();
        assert_eq!(error, StartError::AddressInUse { address: address.clone() });
        assert!(error.to_string().contains(&address.to_string()), "{error}");

        first.stop().await;
        TestNode::start(config).await.stop().await;
    }
}

#[tokio::test]
async fn unsupported_address_is_refused_at_start() {
    let listen = vec!["/ip4/127.0.0.1/sctp/4001".parse().unwrap()];
    let error =
        start(&NodeConfig { listen, ..NodeConfig::loopback() }, dummy::Behaviour).await.err().unwrap();
    assert!(matches!(error, StartError::Unsupported { .. }), "{error:?}");

    for peer in ["/ip4/127.0.0.1/tcp/4001", "/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ"] {
        let config = NodeConfig { peers: vec![peer.parse().unwrap()], ..NodeConfig::loopback() };
        let error = start(&config, dummy::Behaviour).await.err().unwrap();
        assert!(matches!(error, StartError::NotAPeer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn request_cannot_make_the_node_dial_private_addresses() {
    let inside = TestNode::on("/ip4/127.0.0.1/tcp/0").await;
    let config = NodeConfig { private_origins: false, ..NodeConfig::loopback() };
    let node = TestNode::start(config).await;
    let address = inside.address().await;
    let refused = node.handle.dial(inside.id(), vec![address.clone()]).await;
    assert_eq!(refused, Err(DialError::NoAddress));

    let name: Multiaddr = address.to_string().replace("/ip4/127.0.0.1/", "/dns4/localhost/").parse().unwrap();
    let refused = soon("the answer", node.handle.dial(inside.id(), vec![name.clone()])).await;
    assert!(matches!(refused, Err(DialError::Failed(_))), "{refused:?}");

    // The operator can.
    soon("the dial", node.handle.dial_trusted(inside.id(), address)).await.unwrap();
    let keeper = TestNode::start(NodeConfig { peers: vec![name], ..NodeConfig::loopback() }).await;
    let mut events = keeper.handle.events();
    if keeper.handle.peers().await.is_empty() {
        wait_for(&mut events, PeerEvent::Connected(inside.id())).await;
    }
    for node in [inside, node, keeper] {
        node.stop().await;
    }
}

#[tokio::test]
async fn announced_addresses_are_listed_first() {
    let announce: Multiaddr = "/ip4/203.0.113.7/tcp/4001".parse().unwrap();
    let node =
        TestNode::start(NodeConfig { announce: vec![announce.clone()], ..NodeConfig::loopback() }).await;
    let addresses = node.handle.listen_addresses().await;
    assert_eq!(addresses[0], announce.with_p2p(node.id()).unwrap());
    assert_eq!(addresses.len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn stopped_node_reports_stopping() {
    let node = TestNode::start(NodeConfig::loopback()).await;
    let handle = node.handle.clone();
    node.stop().await;
    assert_eq!(handle.dial(PeerId::random(), vec![]).await, Err(DialError::Stopping));
    assert_eq!(handle.peers().await, []);
    handle.stop().await;
}

//! The contract suite on the scripted cluster.

use std::sync::Arc;

use cid::Cid;
use pinfold_cluster::{Cluster, ClusterError, Fate, Gate, HoldName, Scripted};

use crate::contract::{World, contract, hold, terms};

impl World for Scripted {
    fn cluster(&self) -> &dyn Cluster {
        self
    }

    async fn origins(&self) -> Vec<String> {
        Vec::new()
    }

    async fn publish(&self, text: &str) -> Cid {
        Scripted::publish(self, text, text.len() as u64)
    }

    async fn unpublish(&self, root: &Cid) {
        Scripted::unpublish(self, root);
    }

    async fn interrupt(&self, name: &HoldName) -> Cid {
        let (root, gate) = (Scripted::publish(self, "interrupted", 11), Gate::default());
        self.script_hold(&root, [Fate::Waits(gate.clone())]);
        let (terms, progress) = (terms(self).await, Arc::default());
        tokio::select! {
            held = self.hold(name, &root, &terms, &progress) => panic!("it passed the gate: {held:?}"),
            () = gate.reached() => {}
        }
        root
    }

    async fn stop(self) {}
}

contract!(Scripted::default());

#[tokio::test]
async fn scripted_fates_happen_in_order() {
    let cluster = Scripted::default();
    let root = Scripted::publish(&cluster, "x", 1);
    cluster.script_hold(&root, [Fate::Fails(ClusterError::Full), Fate::Works]);
    assert_eq!(hold(&cluster, "pin/a", &root).await, Err(ClusterError::Full));
    assert!(!cluster.has(&root) && cluster.all_names() == ["pin/a"], "a failed hold leaves its name");
    hold(&cluster, "pin/a", &root).await.unwrap();
    assert!(cluster.holds("pin/a", &root));
}

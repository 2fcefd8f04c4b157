//! `presence prune-presences` and `prune-rooms`.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    name::{NodeId, NodeName, RequestId},
    store::{Answer, NodeState, NodeStore, NodeSummary, Order, Request, RequestStore, RoomStore, SqlStore},
};

use super::{
    Failure, Report,
    table::{Medium, visible},
};

/// How many presences are removed in one transaction, so that joins never wait for more than that.
const BATCH: u64 = 1000;
/// Time between two looks at the answers.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize)]
pub(super) struct PrunedRooms {
    removed: u64,
}

pub(super) async fn rooms(store: &SqlStore, node: NodeId) -> Result<PrunedRooms, Failure> {
    Ok(PrunedRooms { removed: store.prune_rooms(node).await? })
}

impl Report for PrunedRooms {
    fn text(&self, _: Medium) -> String {
        format!("removed {}\n", counted(self.removed, "empty room"))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Pruned {
    max_age_ms: u128,
    /// In all.
    pruned: u64,
    /// Whom we asked.
    nodes: Vec<Asked>,
    /// Presences that no live node answers for, held ones among them, which we removed.
    orphaned: u64,
    #[serde(skip)]
    wait: Duration,
}

#[derive(Debug, Serialize)]
struct Asked {
    node: NodeName,
    node_id: NodeId,
    outcome: Outcome,
    pruned: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Answered,
    /// It lives, but did not answer in time. It still may have pruned, or be about to.
    Silent,
    /// Its life was over before it answered; what it left behind was ours or another node's to judge.
    Ended,
}

pub(super) async fn presences(
    store: &SqlStore,
    node: NodeId,
    max_age: Duration,
    wait: Duration,
) -> Result<Pruned, Failure> {
    let (answers, states) = ask(store, node, max_age, wait).await?;
    let nodes: Vec<Asked> = answers
        .into_iter()
        .map(|Answer { node, name, removed: pruned }| {
            let outcome = match (pruned, states.get(&node)) {
                (Some(_), _) => Outcome::Answered,
                (None, Some(NodeState::Live { .. })) => Outcome::Silent,
                (None, _) => Outcome::Ended,
            };
            Asked { node: name, node_id: node, outcome, pruned }
        })
        .collect();
    let mut orphaned = 0;
    loop {
        let batch = store.prune(node, max_age, BATCH).await?;
        orphaned += batch.handled;
        if !batch.more {
            break;
        }
    }
    let pruned = nodes.iter().filter_map(|asked| asked.pruned).sum::<u64>() + orphaned;
    Ok(Pruned { max_age_ms: max_age.as_millis(), pruned, nodes, orphaned, wait })
}

/// Asks live nodes and waits until all have answered, or `wait` is over. A node whose lease ran out may have been kept from
/// renewing it by the database alone, so it has as long to come back, and is asked then.
async fn ask(
    store: &SqlStore,
    node: NodeId,
    max_age: Duration,
    wait: Duration,
) -> Result<(Vec<Answer>, HashMap<NodeId, NodeState>), Failure> {
    let (request, since) = (Request { id: RequestId::random(), order: Order::Prune { max_age } }, Instant::now());
    loop {
        store.send_request(node, request.clone()).await?;
        let answers = store.answers(request.id).await?;
        let nodes = store.nodes().await?;
        let left = wait.saturating_sub(since.elapsed());
        if left.is_zero() || !nodes.iter().any(|node| may_yet_answer(node, &answers)) {
            return Ok((answers, nodes.into_iter().map(|node| (node.node, node.state)).collect()));
        }
        tokio::time::sleep(LOOK.min(left)).await;
    }
}

fn may_yet_answer(node: &NodeSummary, answers: &[Answer]) -> bool {
    let answer = answers.iter().find(|answer| answer.node == node.node);
    match (node.state, answer) {
        (NodeState::Live { .. }, Some(answer)) => answer.removed.is_none(),
        // One that has just come to life is asked next time.
        (NodeState::Live { .. } | NodeState::Expired { .. }, _) => node.presences > node.held,
        (NodeState::Fenced { .. }, _) => false,
    }
}

impl Pruned {
    /// What is to be complained of, although all that could be done was.
    pub(super) fn complaint(&self) -> Result<(), Failure> {
        let silent = self.nodes.iter().filter(|asked| asked.outcome == Outcome::Silent);
        let nodes: Vec<String> = silent.map(|asked| visible(asked.node.as_str()).into_owned()).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        Err(Failure::Silent { nodes, wait: humantime::format_duration(self.wait).to_string() })
    }
}

impl Report for Pruned {
    fn text(&self, _: Medium) -> String {
        let mut text = String::new();
        for asked in &self.nodes {
            let node = visible(asked.node.as_str());
            text.push_str(&match (asked.outcome, asked.pruned) {
                (Outcome::Answered, pruned) => format!("node {node}: pruned {}\n", pruned.unwrap_or(0)),
                (Outcome::Silent, _) => format!("node {node}: no answer\n"),
                (Outcome::Ended, _) => format!("node {node}: ended before it answered\n"),
            });
        }
        text.push_str(&format!("held or of no live node: pruned {}\n", self.orphaned));
        let age = u64::try_from(self.max_age_ms).unwrap_or(u64::MAX);
        let age = humantime::format_duration(Duration::from_millis(age));
        text.push_str(&format!("pruned {} not seen for {age}\n", counted(self.pruned, "presence")));
        text
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
